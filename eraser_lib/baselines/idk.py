"""Preference for not knowing (IdkNLL, PO): learn refusals in the place of the forgotten answers.

Objective: L(forget questions, refusals) + lambda L_r. Each row gets one of many refusals, so that refusing is learned
and not a sentence. Source: the PO baseline of MLLMU-Bench (arXiv 2410.22108), after TOFU (arXiv 2401.06121).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from eraser_lib.baselines.training import Loss, loss_of
from eraser_lib.bench.language import REFUSALS
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


@dataclass(frozen=True)
class Idk(Loss):
    """Refusals in the place of answers."""

    answers: tuple[str, ...] = field(default=tuple(REFUSALS), repr=False)
    """What may be said instead; `ValueError` where there is nothing."""
    lam: float = 1.0
    """Weight of the retain loss."""
    name = "idk"

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("Idk needs at least one refusal to teach")

    def refusal(self, question: Question) -> str:
        """The refusal of a question: always the same one, drawn by its id."""
        return self.answers[zlib.crc32(question.id.encode()) % len(self.answers)]

    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""
        refused = loss_of(model, gone, [self.refusal(question) for question in gone])
        descent = loss_of(model, kept)
        return refused + self.lam * descent, {"refusals": refused, "retain": descent}
