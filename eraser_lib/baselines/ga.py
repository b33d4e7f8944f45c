"""Gradient ascent (GA): raise the loss of the forget rows, and nothing else.

Objective: - L_f, with L the mean negative log-likelihood per answer token. Source: the baseline of MLLMU-Bench
(arXiv 2410.22108); it has no brake, so that the rate and the number of steps decide between no effect and collapse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from eraser_lib.baselines.training import Loss, loss_of
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


@dataclass(frozen=True)
class GA(Loss):
    """Gradient ascent."""

    name = "ga"

    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""
        loss = loss_of(model, gone)
        return -loss, {"forget": loss}
