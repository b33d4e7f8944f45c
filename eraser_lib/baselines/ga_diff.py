"""Gradient difference (GA_Diff): ascend on the forget rows, descend on retained rows, in mixed batches.

Objective: - L_f + lambda L_r, with L the mean negative log-likelihood per answer token. MLLMU-Bench's script runs a
whole ascent pass and then a whole descent pass; here every step holds both, which is the objective as written.
Source: MLLMU-Bench (arXiv 2410.22108).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eraser_lib.baselines.training import Objective, Step, descend, loss_of
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


@dataclass(frozen=True)
class GADiff(Objective):
    """Gradient difference."""

    lam: float = 1.0
    """Weight of the retain loss."""
    name = "ga_diff"

    def begin(self, model: Loaded, vanilla: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Step:
        """See `Objective.begin`."""

        def step(gone: Sequence[Question], kept: Sequence[Question]) -> dict[str, float]:
            ascent, descent = loss_of(model, gone), loss_of(model, kept)
            return descend(self.lam * descent - ascent, forget=ascent, retain=descent)

        return step
