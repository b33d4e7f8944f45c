"""Gradient difference (GA_Diff): ascend on the forget rows, descend on retained rows, in mixed batches.

Objective: - L_f + lambda L_r, with L the mean negative log-likelihood per answer token. MLLMU-Bench's script runs a
whole ascent pass and then a whole descent pass; here every step holds both, which is the objective as written.
Source: MLLMU-Bench (arXiv 2410.22108).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from eraser_lib.baselines.training import Loss, loss_of
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


@dataclass(frozen=True)
class GADiff(Loss):
    """Gradient difference."""

    lam: float = 1.0
    """Weight of the retain loss."""
    name = "ga_diff"

    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""
        ascent, descent = loss_of(model, gone), loss_of(model, kept)
        return self.lam * descent - ascent, {"forget": ascent, "retain": descent}
