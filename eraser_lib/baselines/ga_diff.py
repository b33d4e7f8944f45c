"""Gradient difference (GA_Diff): ascend on the forget set, descend on the retain set, in mixed batches.

Objective: - L_f + lambda L_r, with L the mean negative log-likelihood per answer token. MLLMU-Bench's script runs a
whole ascent pass and then a whole descent pass; here every step holds both, which is the objective as written.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


@dataclass(frozen=True)
class GaDiffConfig:
    """Hyper-parameters; `lr` is chosen on the dev forget set."""

    lr: float
    lam: float = 1.0
    """Weight of the retain loss."""
    epochs: int = 1
    """Passes over the forget rows; the stop rule is the end of the last one."""
    batch: int = 16
    seed: int = 0


@dataclass
class Trained:
    """A changed copy of the model and what it cost."""

    loaded: Loaded
    seconds: float
    trained_parameters: int
    losses: list[tuple[float, float]]
    """Forget and retain loss of every step, nats per token."""


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood per answer token: logits `(B, T, V)`, labels `(B, T)` with -100 elsewhere."""
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )


def difference(forget: Tensor, retain: Tensor, lam: float) -> Tensor:
    """The objective: - L_f + lambda L_r."""
    return lam * retain - forget


def ga_diff(
    loaded: Loaded,
    forget: Sequence[Question],
    retain: Sequence[Question],
    config: GaDiffConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Fine-tune all language-model weights of a copy; the model given is not changed.

    AdamW, constant rate, gradient norm clipped at 1. The retain rows of a step are drawn at random.
    """
    if not forget or not retain:
        raise ValueError("ga_diff needs forget and retain rows, at least one of each")
    model = copy.deepcopy(loaded.model).train()
    mine = Loaded(model, loaded.processor, loaded.family)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    parameters = [*model.get_decoder().parameters(), *model.lm_head.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0)
    rng = random.Random(f"ga-diff-{config.seed}")
    began, losses = time.perf_counter(), []
    steps = [
        chunk for _ in range(config.epochs) for chunk in _chunks(rng.sample(list(forget), len(forget)), config.batch)
    ]
    for number, chunk in enumerate(steps):
        kept = rng.sample(list(retain), min(len(retain), config.batch))
        loss_f = _loss(mine, chunk)
        loss_r = _loss(mine, kept)
        optimiser.zero_grad()
        difference(loss_f, loss_r, config.lam).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append((float(loss_f.detach()), float(loss_r.detach())))
        if progress is not None:
            progress(number + 1, len(steps))
    model.eval()
    count = sum(parameter.numel() for parameter in parameters)
    return Trained(mine, time.perf_counter() - began, count, losses)


def _chunks(rows: list[Question], size: int) -> list[list[Question]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _loss(loaded: Loaded, rows: Sequence[Question]) -> Tensor:
    inputs = loaded.encode([row.prompt for row in rows], [row.answer for row in rows])
    labels = inputs.pop("labels")
    return answer_loss(loaded.model(**inputs, use_cache=False).logits, labels)
