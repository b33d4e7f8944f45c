"""The erasure direction: what a prompt that is refused has in its residual stream and an answered one has
not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .moments import Moments
from .sites import HookSite, in_order


@dataclass(frozen=True, eq=False)
class Direction:
    """One vector per hook site, `r_l = mean over D+ of h_l - mean over D- of h_l`.

    **Sign.** D+ is the erasure side (prompts that are refused), D- the recall side (adversarial images with
    prompts that are answered); a positive strength pushes towards erasure. The two sets swap names between
    two equations of the MLLMEraser paper (as its public reviews note), and the authors' code uses negative
    strengths to the same end.
    """

    sites: tuple[HookSite, ...]
    """Hook sites in the order of the forward pass."""

    vectors: Tensor
    """Shape `(L, d)`, float32 or float64, one row per site."""

    position: str = "prompt_end"
    """Which token positions the means were taken over; for example `"prompt_end"` or `"answer"`."""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.shape[0] != len(self.sites):
            raise ValueError(
                f"Expected vectors of shape ({len(self.sites)}, d) for {len(self.sites)} sites, "
                f"got {tuple(self.vectors.shape)}."
            )
        if self.sites != in_order(self.sites):
            raise ValueError("The sites of a direction must be distinct and in the order of the forward pass.")

    def __getitem__(self, site: HookSite) -> Tensor:
        """The vector `(d,)` of one site."""
        if site not in self.sites:
            raise KeyError(f"No direction at hook site {site}; there are {', '.join(map(str, self.sites))}.")
        return self.vectors[self.sites.index(site)]

    @property
    def norms(self) -> Tensor:
        """Length of each vector, shape `(L,)`."""
        return self.vectors.norm(dim=1)

    def unit(self) -> Direction:
        """The same directions with length one. Raises `ValueError` for a zero vector."""
        if bool((self.norms == 0).any()):
            raise ValueError("A direction of length zero has no unit vector: D+ and D- have the same mean at a site.")
        return Direction(self.sites, self.vectors / self.norms[:, None], self.position)

    def at(self, *sites: HookSite) -> Direction:
        """The same directions, at some of the sites only."""
        chosen = in_order(sites)
        return Direction(chosen, torch.stack([self[site] for site in chosen]), self.position)

    def cosine(self, other: Direction) -> Tensor:
        """Cosine similarity with another direction per shared site, shape `(number of sites,)`."""
        if self.sites != other.sites:
            raise ValueError("The two directions live at different hook sites; restrict them with .at() first.")
        return torch.nn.functional.cosine_similarity(self.vectors, other.vectors, dim=1)


def contrast(
    positive: Mapping[HookSite, Tensor | Moments],
    negative: Mapping[HookSite, Tensor | Moments],
    *,
    unit: bool = False,
    position: str = "prompt_end",
) -> Direction:
    """Erasure direction from activations of the erasure side and of the recall side.

    `positive`: D+, refused prompts; `negative`: D-, answered prompts: per site a tensor `(N, d)` or
    `Moments`. The two may hold different numbers of rows. `unit`: divide by the length. Source: MLLMEraser
    (arXiv 2510.04217).

    Raises `ValueError` when the sites or sizes differ.
    """
    sites = in_order(positive)
    if not sites or sites != in_order(negative):
        plus, minus = [str(s) for s in in_order(positive)], [str(s) for s in in_order(negative)]
        raise ValueError(f"D+ has the sites {plus} and D- {minus}; a contrast needs the same ones, at least one.")
    vectors = torch.stack([_mean(positive[site]) - _mean(negative[site]) for site in sites])
    direction = Direction(sites, vectors, position)
    return direction.unit() if unit else direction


def _mean(values: Tensor | Moments) -> Tensor:
    if isinstance(values, Moments):
        return values.mean.to(torch.float64).cpu()
    if values.ndim != 2 or values.shape[0] == 0:
        raise ValueError(f"Expected activations of shape (N, d) with N >= 1, got {tuple(values.shape)}.")
    return values.to(torch.float64).mean(dim=0).cpu()
