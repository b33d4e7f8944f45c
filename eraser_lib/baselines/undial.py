"""UNDIAL: self-distillation towards vanilla's own logits with the true token pushed down.

Objective: E_f mean_t CE(softmax(z_vanilla - gamma e_y), p) + lambda L_r. The target is fixed, so that training
converges instead of diverging as ascent does. lambda = 0 is the method as published. Source: arXiv 2402.10052.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eraser_lib.baselines.training import Loss, answer_logits, loss_of
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


def distillation(vanilla: Tensor, logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Mean over answer tokens of the cross entropy with the lowered target, nats; shapes as in `answer_logits`."""
    learned = labels != -100
    lowered = vanilla[learned].clone()
    lowered.scatter_add_(1, labels[learned].unsqueeze(1), lowered.new_full((len(lowered), 1), -gamma))
    target = torch.softmax(lowered, dim=-1)
    return -(target * torch.log_softmax(logits[learned], dim=-1)).sum(dim=-1).mean()


@dataclass(frozen=True)
class Undial(Loss):
    """Self-distillation with adjusted logits."""

    gamma: float = 10.0
    """How far the true token's logit is lowered."""
    lam: float = 0.0
    """Weight of the retain loss."""
    name = "undial"

    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""
        with torch.no_grad():
            before, _ = answer_logits(vanilla, gone)
        lowered = distillation(before, *answer_logits(model, gone), self.gamma)
        if not self.lam:
            return lowered, {"distillation": lowered}
        descent = loss_of(model, kept)
        return lowered + self.lam * descent, {"distillation": lowered, "retain": descent}
