"""Negative preference optimisation (NPO): like ascent, but each row lets go as it is forgotten.

Objective: - (2 / beta) E_f log sigmoid(- beta r) + lambda L_r, with r the log-ratio of an answer's likelihood under the
model and under vanilla, SUMMED over its tokens. Public multimodal code takes the mean over tokens, which is a far
weaker method at the same beta: it is to be had as ``length="mean"``, and no search of the study tries it.
Source: arXiv 2404.05868.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eraser_lib.baselines.training import Loss, answer_logits, answer_sums, loss_of
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


def preference(ratio: Tensor, beta: float) -> Tensor:
    """- (2 / beta) E log sigmoid(- beta r) for log-ratios r `(B,)`; its gradient at r = 0 is that of ascent."""
    return -(2 / beta) * torch.nn.functional.logsigmoid(-beta * ratio).mean()


@dataclass(frozen=True)
class NPO(Loss):
    """Negative preference optimisation."""

    beta: float = 0.1
    lam: float = 1.0
    """Weight of the retain loss; 0 is NPO alone."""
    length: Literal["sum", "mean"] = "sum"
    """How the log-ratio of an answer is taken over its tokens."""
    name = "npo"

    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""

        def likelihood(loaded: Loaded, rows: Sequence[Question]) -> Tensor:
            logits, labels = answer_logits(loaded, rows)
            sums = answer_sums(logits, labels)
            return sums if self.length == "sum" else sums / (labels != -100).sum(dim=1)

        with torch.no_grad():
            before = likelihood(vanilla, gone)
        ratio = likelihood(model, gone) - before
        away, descent = preference(ratio, self.beta), loss_of(model, kept)
        terms = {"preference": away, "log_ratio": ratio.mean(), "retain": descent}
        return away + self.lam * descent, terms
