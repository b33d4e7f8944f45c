"""Detector and canned refusal: a nearest-neighbour test in front of the model; whoever it knows is refused.

Cheap and strong: nothing in the model changes, so nothing can be damaged, and nothing is forgotten either. The score of
a prompt is its mean cosine similarity to the k nearest forget rows minus that to the k nearest retain rows, on the
model's own streams or on its input embeddings. The threshold is the conformal one of the gate, on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded
from eraser_lib.hooks import run_capture
from eraser_lib.sites import HookSite

EMBEDDING = HookSite(0, "input")
"""Where the model's own embeddings stand: what enters the first block."""


def _unit(values: Tensor) -> Tensor:
    return torch.nn.functional.normalize(values, dim=-1)


@dataclass(frozen=True, eq=False)
class Detector:
    """Reference rows and k."""

    forget: Tensor
    """Unit vectors `(N, D)` about the mean of the retain rows."""
    retain: Tensor
    """Unit vectors `(M, D)`."""
    centre: Tensor
    """Mean of the retain rows, `(D,)`."""
    k: int

    @staticmethod
    def fit(forget: Tensor, retain: Tensor, *, k: int = 5) -> Detector:
        """Of features `(N, D)` and `(M, D)`. `ValueError` where there are fewer than k rows of either."""
        if not 1 <= k <= min(len(forget), len(retain)):
            raise ValueError(f"k is {k}; it must lie between 1 and the {min(len(forget), len(retain))} rows at hand")
        centre = retain.float().mean(dim=0)
        return Detector(_unit(forget.float() - centre), _unit(retain.float() - centre), centre, k)

    def __call__(self, features: Tensor) -> Tensor:
        """Scores `(B,)` of features `(B, D)`, between -2 and 2."""
        rows = _unit(features.float() - self.centre)
        gone, kept = ((rows @ known.T).topk(self.k, dim=1).values.mean(dim=1) for known in (self.forget, self.retain))
        return gone - kept

    @property
    def bytes(self) -> int:
        """Bytes of what is stored: it keeps rows of the people who asked to be forgotten."""
        return 4 * (self.forget.numel() + self.retain.numel() + self.centre.numel())


def embed(loaded: Loaded, prompts: Sequence[Prompt], *, batch: int = 64) -> Tensor:
    """Mean input embedding `(N, d)`: of the image tokens where a prompt has a picture, else of its text."""
    order = sorted(range(len(prompts)), key=lambda i: (prompts[i].image is None, len(prompts[i].text)))
    model: Any = loaded.model
    found = []
    for start in range(0, len(order), batch):
        inputs = loaded.encode([prompts[i] for i in order[start : start + batch]])
        stream = run_capture(model, inputs, [EMBEDDING], "all")[EMBEDDING].float()
        pictures = inputs["input_ids"].eq(model.config.image_token_id)
        seen = pictures.any(dim=1, keepdim=True)
        use = torch.where(seen, pictures, inputs["attention_mask"].bool()).to(stream)[..., None]
        found.append(((stream * use).sum(dim=1) / use.sum(dim=1)).cpu())
    return torch.cat(found)[torch.argsort(torch.tensor(order))]
