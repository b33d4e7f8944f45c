"""Gradient ascent (GA): raise the loss of the forget rows, and nothing else.

Objective: - L_f, with L the mean negative log-likelihood per answer token. Source: the baseline of MLLMU-Bench
(arXiv 2410.22108); it has no brake, so that the rate and the number of steps decide between no effect and collapse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eraser_lib.baselines.training import Objective, Step, descend, loss_of
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


@dataclass(frozen=True)
class GA(Objective):
    """Gradient ascent."""

    name = "ga"

    def begin(self, model: Loaded, vanilla: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Step:
        """See `Objective.begin`."""

        def step(gone: Sequence[Question], kept: Sequence[Question]) -> dict[str, float]:
            loss = loss_of(model, gone)
            return descend(-loss, forget=loss)

        return step
