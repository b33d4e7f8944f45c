"""MMUnlearner: ascend only where weights matter more to what is forgotten than to what is kept.

A weight takes part in the ascent on forgotten people's pictures where grad_f^2 / (grad_p^2 + eps) reaches a threshold,
grad^2 the mean squared gradient of the answer loss over batches. For language weights p is the text knowledge of
everybody and the retained pictures, for all others the retained pictures. The descent on retained rows is not masked.
The method means to KEEP text knowledge of the forgotten people: compare it on questions with pictures.

The mask is applied to the gradient of the ascent alone, in the same step as the descent and under one optimiser, so
that the momentum of a masked weight holds nothing of the ascent. Source: arXiv 2502.11051.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eraser_lib.baselines.training import Objective, Step, language_weights, loss_of
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded


def squared_gradients(
    loaded: Loaded, rows: Sequence[Question], parameters: Sequence[nn.Parameter], *, batch: int
) -> list[Tensor]:
    """Mean over batches of the squared gradient of the answer loss, one tensor per parameter."""
    found = [torch.zeros_like(parameter) for parameter in parameters]
    starts = range(0, len(rows), batch)
    for start in starts:
        grads = torch.autograd.grad(loss_of(loaded, rows[start : start + batch]), parameters, allow_unused=True)
        for total, grad in zip(found, grads, strict=True):
            if grad is not None:
                total += grad.square() / len(starts)
    return found


def mask(forget: Tensor, kept: Tensor, threshold: float, eps: float = 1e-12) -> Tensor:
    """Which weights may ascend, bool: forget / (kept + eps) reaches the threshold and the weight matters at all."""
    return (forget > 0) & (forget / (kept + eps) >= threshold)


@dataclass(frozen=True)
class MMUnlearner(Objective):
    """Saliency-masked ascent on pictures."""

    threshold: float = 1.0
    lam: float = 1.0
    """Weight of the retain loss."""
    rows: int = 256
    """At most so many rows of each set are read for the masks."""
    batch: int = 16
    name = "mmunlearner"

    def parameters(self, model: Any) -> list[nn.Parameter]:
        """All weights: those of the vision tower and of the projector too."""
        return list(model.parameters())

    def begin(self, model: Loaded, vanilla: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Step:
        """See `Objective.begin`. `ValueError` where no forget row or no retain row has a picture."""
        gone_seen, kept_seen = ([r for r in rows if r.modality == "vqa"] for rows in (forget, retain))
        if not gone_seen or not kept_seen:
            raise ValueError("MMUnlearner needs questions with pictures among the forget rows and the retain rows")
        said = [row for row in (*forget, *retain) if row.modality == "qa"]
        parameters = self.parameters(model.model)
        language = {id(parameter) for parameter in language_weights(model.model)}
        kept_spread = _spread(kept_seen, self.rows)
        sets = (_spread(gone_seen, self.rows), kept_spread, _spread([*said, *kept_spread], self.rows))
        lost, pictures, texts = (squared_gradients(model, rows, parameters, batch=self.batch) for rows in sets)
        masks = [
            mask(gone, text if id(parameter) in language else picture, self.threshold)
            for parameter, gone, picture, text in zip(parameters, lost, pictures, texts, strict=True)
        ]

        def step(gone: Sequence[Question], kept: Sequence[Question]) -> dict[str, float]:
            terms = {}
            descent = loss_of(model, kept)
            (self.lam * descent).backward()
            terms["retain"] = float(descent.detach())
            seen = [row for row in gone if row.modality == "vqa"]
            if seen:
                ascent = loss_of(model, seen)
                grads = torch.autograd.grad(ascent, parameters, allow_unused=True)
                for parameter, grad, free in zip(parameters, grads, masks, strict=True):
                    if grad is not None:
                        change = -grad * free
                        parameter.grad = change if parameter.grad is None else parameter.grad + change
                terms["forget"] = float(ascent.detach())
            return terms

        return step


def _spread(rows: Sequence[Question], count: int) -> list[Question]:
    """At most `count` rows at even distances."""
    return [rows[index * len(rows) // count] for index in range(count)] if len(rows) > count else list(rows)
