"""The loop that all trained baselines share: same order, budget and stop rule; a method is its objective."""

from __future__ import annotations

import copy
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded

Step = Callable[[Sequence[Question], Sequence[Question]], dict[str, float]]
"""One step of a method on forget and retain rows: leaves gradients in the parameters and returns its loss terms."""


LARGE = 10**9
"""From so many weights on, a block's activations are computed again in the backward pass instead of being kept: 32 rows
of 640 tokens through 7B would need more memory than any one GPU has."""


class Objective(ABC):
    """What a trained method minimises. Implementations are frozen dataclasses of its hyper-parameters."""

    name: str
    recomputes: ClassVar[bool] = True
    """Whether a large model may compute its blocks again; not where a method reads them on the way."""

    @abstractmethod
    def begin(self, model: Loaded, vanilla: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Step:
        """Prepare a training: `model` is trained, `vanilla` is the frozen model that it starts from."""

    def parameters(self, model: Any) -> list[nn.Parameter]:
        """What is trained: all language weights, unless a method says otherwise."""
        return language_weights(model)

    def drawn(self, seed: int) -> Objective:
        """The method with its own chance drawn by the seed of a training: itself where it draws nothing."""
        return self


class Loss(Objective):
    """An objective that is one sum of losses on forget and retain rows, with nothing to prepare."""

    @abstractmethod
    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum that is minimised on forget rows `gone` and retain rows `kept`, and its terms by name."""

    def begin(self, model: Loaded, vanilla: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Step:
        """See `Objective.begin`."""

        def step(gone: Sequence[Question], kept: Sequence[Question]) -> dict[str, float]:
            return descend(*self.terms(model, vanilla, gone, kept))

        return step


@dataclass(frozen=True)
class TrainConfig:
    """The budget of a training; `lr` and `steps` are chosen on people erased for practice."""

    lr: float
    steps: int | None = None
    """The stop rule: so many steps, or the end of the last epoch."""
    epochs: int = 1
    """Passes over the forget rows."""
    batch: int = 16
    """Forget rows of a step, and retain rows as well."""
    seed: int = 0


@dataclass
class Trained:
    """A changed copy of the model and what it cost."""

    loaded: Loaded
    seconds: float
    trained_parameters: int
    losses: list[dict[str, float]]
    """Loss terms of every step, by the names that the method gives them."""


def unlearn(
    loaded: Loaded,
    forget: Sequence[Question],
    retain: Sequence[Question],
    objective: Objective,
    config: TrainConfig,
    *,
    watch: Callable[[int, Loaded], bool] | None = None,
) -> Trained:
    """Train a copy of the model by an objective; the model given is not changed.

    AdamW without decay, constant rate, gradient norm clipped at 1; weights in half precision are updated in float32
    copies, since small steps would be rounded away (12 bytes a trained weight, with AdamW's moments). Forget rows are
    shuffled once an epoch; the retain rows of a step are drawn at random. Dropout is on where the model has it. So a
    training of fewer steps is the beginning of one with more.

    Args:
        loaded: the vanilla model.
        forget, retain: rows to let go and to keep.
        objective, config: the method and its budget.
        watch: called after every step with its number, from 1, and the model in evaluation mode; training ends where
            it returns true. Its time is not counted.

    Raises:
        ValueError: no forget rows, or no retain rows.
    """
    if not forget or not retain:
        raise ValueError(f"{objective.name} needs forget and retain rows, at least one of each")
    objective = objective.drawn(config.seed)
    model = copy.deepcopy(loaded.model).train()
    mine = Loaded(model, loaded.processor, loaded.family)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    parameters = objective.parameters(model)
    for parameter in parameters:
        parameter.requires_grad_(True)
    if objective.recomputes and sum(parameter.numel() for parameter in model.parameters()) >= LARGE:
        _checkpointing(model, "enable")({"use_reentrant": False})
    masters = [_master(parameter) for parameter in parameters]
    optimiser = torch.optim.AdamW(masters, lr=config.lr, weight_decay=0.0)
    rng = random.Random(f"unlearn-{config.seed}")
    began = time.perf_counter()
    step = objective.begin(mine, loaded, forget, retain)
    batches = [
        chunk for _ in range(config.epochs) for chunk in _chunks(rng.sample(list(forget), len(forget)), config.batch)
    ]
    losses = []
    watching = 0.0
    for number, chunk in enumerate(batches[: config.steps]):
        kept = rng.sample(list(retain), min(len(retain), config.batch))
        model.zero_grad()
        optimiser.zero_grad()
        losses.append(step(chunk, kept))
        _give_gradients(parameters, masters)
        nn.utils.clip_grad_norm_(masters, 1.0)
        optimiser.step()
        _take_values(parameters, masters)
        if watch is not None:
            paused, drawn = time.perf_counter(), torch.get_rng_state()
            ended = watch(number + 1, Loaded(model.eval(), mine.processor, mine.family))
            model.train()
            torch.set_rng_state(drawn)  # looking changes nothing
            watching += time.perf_counter() - paused
            if ended:
                break
    model.eval()
    _checkpointing(model, "disable")()
    count = sum(parameter.numel() for parameter in parameters)
    return Trained(mine, time.perf_counter() - began - watching, count, losses)


def _master(parameter: nn.Parameter) -> nn.Parameter:
    """What the optimiser changes: the parameter itself, or a float32 copy of one in half precision."""
    if parameter.dtype not in (torch.bfloat16, torch.float16):
        return parameter
    return nn.Parameter(parameter.detach().float())


def _give_gradients(parameters: Sequence[nn.Parameter], masters: Sequence[nn.Parameter]) -> None:
    for parameter, master in zip(parameters, masters, strict=True):
        if master is not parameter and parameter.grad is not None:
            master.grad = parameter.grad.float()
            parameter.grad = None


@torch.no_grad()
def _take_values(parameters: Sequence[nn.Parameter], masters: Sequence[nn.Parameter]) -> None:
    for parameter, master in zip(parameters, masters, strict=True):
        if master is not parameter:
            parameter.copy_(master)


def descend(total: Tensor, terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Backpropagate the sum of a method and return its terms as numbers."""
    total.backward()
    return {name: float(term.detach()) for name, term in terms.items()}


def language_weights(model: Any) -> list[nn.Parameter]:
    """All weights of the language decoder and of its head, each once."""
    return list({id(p): p for p in (*model.get_decoder().parameters(), *model.lm_head.parameters())}.values())


def answer_logits(
    loaded: Loaded, rows: Sequence[Question], answers: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Logits before every answer token and the tokens themselves.

    Args:
        rows: B questions.
        answers: what is said instead of the right answers, one per question.

    Returns:
        Logits `(B, T, V)` in float32 or wider and labels `(B, T)`: the label at t is what the logits at t predict;
        -100 where nothing is learned.
    """
    said = [row.answer for row in rows] if answers is None else list(answers)
    inputs = loaded.encode([row.prompt for row in rows], said)
    labels = inputs.pop("labels")
    logits = loaded.model(**inputs, use_cache=False).logits[:, :-1]
    return (logits if logits.dtype == torch.float64 else logits.float()), labels[:, 1:]


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood per answer token, over all tokens of a batch; shapes as in `answer_logits`."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def answer_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-likelihood of every answer, summed over its tokens, `(B,)`; shapes as in `answer_logits`."""
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return -losses.sum(dim=1)


def loss_of(loaded: Loaded, rows: Sequence[Question], answers: Sequence[str] | None = None) -> Tensor:
    """`answer_loss` of rows."""
    return answer_loss(*answer_logits(loaded, rows, answers))


def _checkpointing(model: Any, what: str) -> Callable[..., None]:
    """The model's own switch, whose name has changed in transformers 5."""
    newer = f"activation_checkpointing_{what}"
    return getattr(model, newer) if hasattr(model, newer) else getattr(model, f"gradient_checkpointing_{what}")


def _chunks(rows: list[Question], size: int) -> list[list[Question]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
