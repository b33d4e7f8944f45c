"""Detector and canned refusal: a test in front of the model; whoever it knows is refused.

Cheap and strong: nothing in the model changes, so nothing can be damaged, and nothing is forgotten either. Two scores
of a prompt, on the model's own streams or on its input embeddings: the mean cosine similarity to the k nearest forget
rows minus that to the k nearest retain rows; and the log density among forget rows minus that among retain rows, as of
Gaussians. The threshold is the conformal one of the gate, on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded
from eraser_lib.hooks import run_capture
from eraser_lib.precision import workbench
from eraser_lib.quadratic import shrunken
from eraser_lib.sites import HookSite

EMBEDDING = HookSite(0, "input")
"""Where the model's own embeddings stand: what enters the first block."""


def _unit(values: Tensor) -> Tensor:
    return torch.nn.functional.normalize(values, dim=-1)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Reference rows and k."""

    forget: Tensor
    """Unit vectors `(N, D)` about the mean of the retain rows."""
    retain: Tensor
    """Unit vectors `(M, D)`."""
    centre: Tensor
    """Mean of the retain rows, `(D,)`."""
    k: int

    @staticmethod
    def fit(forget: Tensor, retain: Tensor, *, k: int = 5) -> Neighbours:
        """Of features `(N, D)` and `(M, D)`, kept on the `workbench`. `ValueError` for fewer than k rows of either."""
        if not 1 <= k <= min(len(forget), len(retain)):
            raise ValueError(f"k is {k}; it must lie between 1 and the {min(len(forget), len(retain))} rows at hand")
        forget, retain = (rows.to(workbench(rows.shape[1])).float() for rows in (forget, retain))
        centre = retain.mean(dim=0)
        return Neighbours(_unit(forget - centre), _unit(retain - centre), centre, k)

    def __call__(self, features: Tensor) -> Tensor:
        """Scores `(B,)` of features `(B, D)`, between -2 and 2."""
        rows = _unit(features.to(self.centre) - self.centre)
        gone, kept = ((rows @ known.T).topk(self.k, dim=1).values.mean(dim=1) for known in (self.forget, self.retain))
        return (gone - kept).cpu()

    @property
    def bytes(self) -> int:
        """Bytes of what is stored: it keeps rows of the people who asked to be forgotten."""
        return 4 * (self.forget.numel() + self.retain.numel() + self.centre.numel())


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Means and Cholesky factors of shrunken covariances (Ledoit and Wolf 2004), of forget and of retain rows."""

    means: tuple[Tensor, Tensor]
    """Of `(D,)`, float64."""
    factors: tuple[Tensor, Tensor]
    """Lower triangular `(D, D)`, float64."""

    @staticmethod
    def fit(forget: Tensor, retain: Tensor) -> Gaussians:
        """Of features `(N, D)` and `(M, D)`; it computes on the `workbench`."""
        (own, near), (other, far) = (shrunken(rows.to(workbench(rows.shape[1]))) for rows in (forget, retain))
        return Gaussians((own, other), (torch.linalg.cholesky(near), torch.linalg.cholesky(far)))

    def __call__(self, features: Tensor) -> Tensor:
        """Scores `(B,)` of features `(B, D)`: difference of log densities in nats."""
        rows = features.to(self.means[0])
        own, other = (self._density(rows, *side) for side in zip(self.means, self.factors, strict=True))
        return (own - other).cpu()

    @staticmethod
    def _density(rows: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(factor, (rows - mean).T, upper=False)  # (D, B)
        return -0.5 * white.square().sum(dim=0) - factor.diagonal().log().sum()

    @property
    def bytes(self) -> int:
        """Bytes of what is stored: two means and two triangles."""
        width = len(self.means[0])
        return 8 * (2 * width + width * (width + 1))


Detector: TypeAlias = Neighbours | Gaussians
RULES: dict[str, Callable[[Tensor, Tensor], Detector]] = {
    **{f"{k} nearest": partial(Neighbours.fit, k=k) for k in (1, 5, 20, 50)},
    "Gaussian": Gaussians.fit,
}
"""How a detector is made of forget and retain features `(N, D)`, by name."""


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
