"""Every baseline behind one interface: fitted on forget and retain rows, it is a model or a hook, with what that cost.

    done = BASELINES["leace"].fit(loaded, forget, retain)
    done.answer(prompts), done.cost.seconds

What stands in `BASELINES` has the settings at which the searches of the study begin, where it is trained, and a plain
one of its grid otherwise. They are chosen for each model there, on people erased for practice (`experiments.trained`,
`experiments.closed`), and should be for any other:
`replace(BASELINES["npo"], config=TrainConfig(lr=3e-4, steps=120))`.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from eraser_lib.baselines.constant import constant
from eraser_lib.baselines.detector import RULES, embed
from eraser_lib.baselines.leace import Leace
from eraser_lib.baselines.manu import Manu
from eraser_lib.baselines.prompting import PLAIN
from eraser_lib.baselines.training import Objective, TrainConfig, unlearn
from eraser_lib.bench.language import REFUSALS, SILENCE_INSTRUCTIONS
from eraser_lib.bench.questions import silence
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.direction import contrast
from eraser_lib.experiments.activations import join, read_activations
from eraser_lib.experiments.memory import peak
from eraser_lib.experiments.methods import Push
from eraser_lib.experiments.study import with_system
from eraser_lib.experiments.trained import OBJECTIVES
from eraser_lib.families import Loaded
from eraser_lib.sites import HookSite, find_decoder
from eraser_lib.threshold import calibrate

BATCH = 16
"""Prompts that are answered at a time."""


@dataclass(frozen=True)
class Cost:
    """What a baseline took, and takes."""

    seconds: float
    """To fit it, without any search."""
    peak_memory_bytes: int
    """Largest resident memory of the process while it was fitted, the model included; not that of a GPU."""
    trained_parameters: int
    stored_bytes: int
    """Of what has to be kept beside the vanilla weights, or in their place."""
    reversible: bool
    """Whether vanilla comes back without its old weights."""


@dataclass(frozen=True)
class Fitted:
    """A model that has been made to forget; `evaluate(loaded, rows, context=attach, prepare=prepare)` scores it."""

    name: str
    loaded: Loaded
    """A changed copy, or the vanilla model itself where something is attached to it."""
    cost: Cost
    attach: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The hooks of one batch."""
    prepare: Callable[[Prompt], Prompt] = field(default=lambda prompt: prompt)
    """What is asked in the place of a prompt."""
    refuses: Callable[[Sequence[Prompt]], list[bool]] | None = None
    """Which prompts never reach the model, where a detector stands in front of it; they get `reply`."""
    reply: str = REFUSALS[0]

    def answer(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 50, batch: int = BATCH) -> list[str]:
        """Greedy answers, in the order of the prompts."""
        stopped = self.refuses(prompts) if self.refuses is not None else [False] * len(prompts)
        found = [self.reply] * len(prompts)
        asked = [number for number, stops in enumerate(stopped) if not stops]
        for start in range(0, len(asked), batch):
            these = asked[start : start + batch]
            with self.attach():
                said = self.loaded.generate(
                    [self.prepare(prompts[number]) for number in these], max_new_tokens=max_new_tokens
                )
            for number, text in zip(these, said, strict=True):
                found[number] = text
        return found


class Baseline(ABC):
    """A method with its settings. Implementations are frozen dataclasses."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As in `summary.csv`."""

    def fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Fitted:
        """Make a model forget the people of `forget` and keep those of `retain`; the model given is not changed.

        Raises:
            ValueError: no forget or no retain rows, or none of a kind that the method needs.
        """
        if not forget or not retain:
            raise ValueError(f"{self.name} needs forget and retain rows, at least one of each")
        with peak() as memory:
            began = time.perf_counter()
            done = self._fit(loaded, forget, retain)
            seconds = time.perf_counter() - began
        return replace(done, cost=replace(done.cost, seconds=seconds, peak_memory_bytes=memory["peak_memory_bytes"]))

    @abstractmethod
    def _fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Fitted: ...


def _cost(stored: int, *, trained: int = 0, reversible: bool = True) -> Cost:
    """All but the seconds and the memory, which `Baseline.fit` measures."""
    return Cost(0.0, 0, trained, stored, reversible)


@dataclass(frozen=True)
class Training(Baseline):
    """An objective and its budget."""

    objective: Objective
    config: TrainConfig = field(default_factory=lambda: TrainConfig(lr=1e-4, steps=120))

    @property
    def name(self) -> str:
        """That of the objective."""
        return self.objective.name

    def _fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Fitted:
        done = unlearn(loaded, forget, retain, self.objective, self.config)
        width = next(done.loaded.model.parameters()).element_size()
        count = done.trained_parameters
        return Fitted(self.name, done.loaded, _cost(width * count, trained=count, reversible=False))


@dataclass(frozen=True)
class Pruning(Baseline):
    """MANU."""

    rule: Manu = field(default_factory=Manu)
    name = "manu"

    def _fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Fitted:
        done = self.rule.fit(loaded, forget, retain)
        # the numbers of the neurons, whose weights are gone
        return Fitted(self.name, done.loaded, _cost(4 * sum(map(len, done.cut)), reversible=False))


@dataclass(frozen=True)
class Scrubbing(Baseline):
    """LEACE on the outputs of some blocks; the last one alone where none is named."""

    layers: tuple[int, ...] = ()
    everywhere: bool = False
    name = "leace"

    def _fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Fitted:
        layers = self.layers or (_blocks(loaded) - 1,)
        sites = [HookSite(layer, "output") for layer in layers]
        gone, kept = (
            read_activations(loaded, [row.prompt for row in rows], sites=sites, batch_size=BATCH)
            for rows in (forget, retain)
        )
        people = [row.person or row.id for row in forget]
        made = Leace(layers, everywhere=self.everywhere).fit(gone, kept, people)
        return Fitted(self.name, loaded, _cost(made.bytes), attach=lambda: made.attach(loaded.model))


@dataclass(frozen=True)
class Steering(Baseline):
    """Constant steering: from retained prompts as they are towards the same ones with an instruction to decline."""

    strength: float = 1.0
    layers: tuple[int, ...] = ()
    """Blocks that are pushed; the first half where none is named."""
    instruction: str = "Decline to answer."
    name = "constant"

    def _fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Fitted:
        layers = self.layers or tuple(range(_blocks(loaded) // 2))
        plain = [row.prompt for row in retain]
        told = [replace(prompt, text=f"{prompt.text} {self.instruction}") for prompt in plain]
        refused, answered = (read_activations(loaded, prompts, batch_size=BATCH) for prompts in (told, plain))
        eraser = constant(Push("instruction", layers, self.strength), {"instruction": contrast(refused, answered)})
        stored = int(eraser.inspect()["bytes"])
        return Fitted(self.name, loaded, _cost(stored), attach=lambda: eraser.attach(loaded.model))


@dataclass(frozen=True)
class Detecting(Baseline):
    """A detector with a canned refusal, at the conformal threshold of two thirds of the retained people, fitted on the
    others."""

    rule: str = "Gaussian"
    """One of `detector.RULES`."""
    layers: tuple[int, ...] = ()
    """Blocks that are read, joined; the input embeddings where none is named."""
    alpha: float = 0.05
    name = "detector"

    def _fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Fitted:
        people = sorted({row.person or row.id for row in retain})
        fitted = set(people[::3])
        parts = [[row for row in retain if ((row.person or row.id) in fitted) is side] for side in (True, False)]
        if not all(parts):
            raise ValueError("the detector needs two retained people: one to be fitted on, one to calibrate with")
        gone, kept, calibration = (self._read(loaded, [row.prompt for row in rows]) for rows in (forget, *parts))
        detector = RULES[self.rule](gone, kept)
        found = calibrate({"retain": detector(calibration)}, self.alpha)
        if not math.isfinite(found.value):
            raise ValueError(f"the detector would refuse nobody: {found}. Give more retained people, or a larger alpha")
        threshold = found.value

        def refuses(prompts: Sequence[Prompt]) -> list[bool]:
            above: list[bool] = (detector(self._read(loaded, prompts)) > threshold).tolist()
            return above

        return Fitted(self.name, loaded, _cost(detector.bytes), refuses=refuses)

    def _read(self, loaded: Loaded, prompts: Sequence[Prompt]) -> Tensor:
        if not self.layers:
            return embed(loaded, prompts, batch=BATCH)
        sites = [HookSite(layer, "output") for layer in self.layers]
        return join(read_activations(loaded, prompts, sites=sites, batch_size=BATCH), self.layers)


@dataclass(frozen=True)
class Prompting(Baseline):
    """A system instruction to keep silent; the oracle names the people, to every reader of the prompt."""

    oracle: bool = False
    names: tuple[str, ...] = ()
    """Of the people, for the oracle; what the forget rows call them where none is given."""

    @property
    def name(self) -> str:
        """The oracle is another method."""
        return "prompt_oracle" if self.oracle else "prompt"

    def _fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Fitted:
        names = self.names or tuple(dict.fromkeys(row.person for row in forget if row.person))
        if self.oracle and not names:
            raise ValueError("the oracle needs names: none are given, and the forget rows are about nobody")
        system = silence(list(names), SILENCE_INSTRUCTIONS[0]) if self.oracle else PLAIN
        stored = len(system.encode())
        return Fitted(self.name, loaded, _cost(stored), prepare=with_system(system))


def _blocks(loaded: Loaded) -> int:
    blocks: torch.nn.ModuleList = find_decoder(loaded.model).layers
    return len(blocks)


BASELINES: dict[str, Baseline] = {
    **{method: Training(grid[0]) for method, grid in OBJECTIVES.items()},
    **{one.name: one for one in (Pruning(), Scrubbing(), Steering(), Detecting(), Prompting(), Prompting(oracle=True))},
}
"""By the names of `summary.csv`."""
