"""KL minimisation (KL_Min): ascend on the forget rows, stay close to vanilla on retained rows.

Objective: - L_f + alpha E_r mean_t KL(p_vanilla || p), at every answer token, over the whole vocabulary.
Source: MLLMU-Bench (arXiv 2410.22108), after TOFU (arXiv 2401.06121).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eraser_lib.baselines.training import Loss, answer_logits, loss_of
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


def divergence(vanilla: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over answer tokens of KL(p_vanilla || p), nats; shapes as in `training.answer_logits`."""
    learned = labels != -100
    ours, theirs = (torch.log_softmax(values[learned], dim=-1) for values in (logits, vanilla))
    return (theirs.exp() * (theirs - ours)).sum(dim=-1).mean()


@dataclass(frozen=True)
class KLMin(Loss):
    """KL minimisation."""

    alpha: float = 1.0
    """Weight of the divergence on retained rows."""
    name = "kl_min"

    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""
        with torch.no_grad():
            before, _ = answer_logits(vanilla, kept)
        ascent, distance = loss_of(model, gone), divergence(before, *answer_logits(model, kept))
        return self.alpha * distance - ascent, {"forget": ascent, "divergence": distance}
