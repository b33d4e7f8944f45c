"""A gate that knows spreads: the log density ratio of two Gaussians, as a few squares of linear readings.

A linear gate asks how far a prompt lies along one vector. Whoever belongs to the forget set may differ from others in
how *narrowly* they lie as well, and a square sees that. With whitened coordinates `z = A (h - m_r)`, in which retained
prompts have the identity as covariance and forgotten ones a diagonal `lambda` about `mu`, the log density ratio is

    g(h) = sum_j [z_j^2 - (z_j - mu_j)^2 / lambda_j - log lambda_j] / 2,

one term per coordinate (quadratic discriminant analysis; Fukunaga 1990, chapters 3 and 10). Where a spread is near 1
its term is all but linear, and linear terms add up to one vector whatever their number. So squares are kept only where
they tell most, and the gate stays a handful of vectors; without any it is Fisher's linear discriminant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .gate import Gate


@dataclass(frozen=True, eq=False, kw_only=True)
class QuadraticGate(Gate):
    """`k` quadratic functions of the residual stream, `g_k(h) = a_k . h + b_k + sum_j q_kj (v_kj . h - s_kj)^2`."""

    curves: Tensor
    """The vectors `v_kj`, shape `(k, m, d)`."""

    shift: Tensor
    """The offsets `s_kj`, shape `(k, m)`."""

    curvature: Tensor
    """The factors `q_kj`, shape `(k, m)`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.curves.ndim != 3 or (len(self.curves), self.curves.shape[2]) != tuple(self.weight.shape):
            raise ValueError(
                f"QuadraticGate.curves must have shape (k, m, d) with (k, d) = {tuple(self.weight.shape)}, got "
                f"{tuple(self.curves.shape)}."
            )
        for name, value in (("shift", self.shift), ("curvature", self.curvature)):
            if value.shape != self.curves.shape[:2]:
                raise ValueError(
                    f"QuadraticGate.{name} must have shape {tuple(self.curves.shape[:2])}, got {tuple(value.shape)}."
                )

    @property
    def readings(self) -> int:
        """`1 + m` for each request: its linear part and its curves."""
        return self.rank + self.shift.numel()

    def _read(self, h: Tensor) -> Tensor:
        curved = h @ self.curves.to(h).flatten(0, 1).T - self.shift.to(h).flatten()
        # side by side for each request, so that the parts of stacked gates are the stacked parts
        return torch.cat([super()._read(h)[..., None], curved.unflatten(-1, self.shift.shape)], dim=-1).flatten(-2)

    def values(self, readings: Tensor) -> Tensor:
        """Gate values `(..., k)` of readings `(..., readings)`."""
        own = readings.unflatten(-1, (self.rank, -1))
        linear, curved = own[..., 0], own[..., 1:]
        return linear + (self.curvature.to(curved) * curved.square()).sum(dim=-1)

    def _split(self, parts: int) -> list[Gate]:
        *early, last = self.weight.chunk(parts, dim=1)
        *early_curves, last_curves = self.curves.chunk(parts, dim=2)
        rows = [torch.cat([w[:, None], c], dim=1).flatten(0, 1) for w, c in zip(early, early_curves, strict=True)]
        return [Gate(w, w.new_zeros(len(w))) for w in rows] + [replace(self, weight=last, curves=last_curves)]


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Two Gaussians in the coordinates in which both covariances are diagonal, the most telling spread first."""

    axes: Tensor
    """Rows of `A`, shape `(d, d)`: retained prompts have the identity as covariance of `A (h - origin)`."""
    places: Tensor
    """Means `mu` of forgotten prompts, shape `(d,)`."""
    spreads: Tensor
    """Variances `lambda` of forgotten prompts, shape `(d,)`."""
    origin: Tensor
    """Mean of retained prompts, shape `(d,)`."""

    @property
    def divergence(self) -> Tensor:
        """What the spread of each coordinate adds to the Kullback-Leibler divergence of forgotten from retained
        prompts, in nats, shape `(d,)`; the places add half of their squares."""
        return _divergence(self.spreads)

    def gate(self, curves: int | None = None) -> QuadraticGate:
        """The log density ratio with squares on the first `curves` coordinates; on all, and exact, by default.

        On the others forgotten prompts are taken to spread as retained ones do, which makes their terms linear.
        `ValueError` for a number outside of 0 to `d`.
        """
        width = len(self.origin)
        if curves is not None and not 0 <= curves <= width:
            raise ValueError(f"curves is {curves}; it must lie between 0 and the width {width}, or be None.")
        spreads = self.spreads.clone()
        spreads[width if curves is None else curves :] = 1
        slopes = self.places / spreads
        weight = slopes @ self.axes
        bias = -(self.places * slopes + spreads.log()).sum() / 2 - weight @ self.origin
        axes = self.axes[:curves]
        return QuadraticGate(
            weight[None], bias[None], curves=axes[None], shift=(axes @ self.origin)[None],
            curvature=((1 - 1 / spreads[:curves]) / 2)[None],
        )  # fmt: skip


def discriminant(forget: Tensor, retain: Tensor) -> Discriminant:
    """Fit two Gaussians on forget and retain activations, `(N, d)` and `(M, d)` with two rows or more.

    Covariances are shrunken as by Ledoit and Wolf (2004), which makes them invertible with fewer rows than dimensions.
    Needs the rows themselves, since the shrinkage is told by their fourth moments, and scikit-learn. Computed in
    float64 on the device of the rows.

    Raises:
        ValueError: shapes that do not fit; activations that are not finite, or too few and too alike to have a spread.
    """
    width = forget.shape[-1]
    for name, rows in (("forget", forget), ("retain", retain)):
        if rows.ndim != 2 or rows.shape[1] != width or len(rows) < 2:
            raise ValueError(f"Expected {name} activations of shape (N >= 2, {width}), got {tuple(rows.shape)}.")
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"The {name} activations must be finite; there is a NaN or an infinity among them.")
    (mean_f, spread_f), (mean_r, spread_r) = (shrunken(rows) for rows in (forget, retain))
    factor = _factor(spread_r, "retain")
    _factor(spread_f, "forget")
    half = torch.linalg.solve_triangular(factor, spread_f, upper=False)
    between = torch.linalg.solve_triangular(factor, half.T.contiguous(), upper=False)  # L^-1 S_f L^-T
    spreads, turned = torch.linalg.eigh((between + between.T) / 2)
    axes = torch.linalg.solve_triangular(factor.T, turned, upper=True).T  # A, one coordinate per row
    places = axes @ (mean_f - mean_r)
    order = _divergence(spreads).argsort(descending=True, stable=True)
    return Discriminant(axes[order], places[order], spreads[order], mean_r)


def gaussian_gate(forget: Tensor, retain: Tensor, *, curves: int | None = None) -> QuadraticGate:
    """The log density ratio of two Gaussians, of forget `(N, d)` over retain activations `(M, d)`, in nats.

    `curves`: number of squares, on the coordinates where forgotten prompts spread most unlike retained ones; `None`
    takes all `d`. Fit and errors: see `discriminant` and `Discriminant.gate`.
    """
    return discriminant(forget, retain).gate(curves)


NOTHING_LEFT = 1e-12
"""A direction with a smaller share of the largest spread is rounding error."""


def _factor(spread: Tensor, name: str) -> Tensor:
    """The Cholesky factor of a covariance; `ValueError` where it has none."""
    factor, failed = torch.linalg.cholesky_ex(spread)
    sizes = factor.diagonal().square()
    if bool(failed) or not bool(sizes.min() > NOTHING_LEFT * sizes.max()):
        raise ValueError(
            f"The {name} activations do not vary in every direction, and are too few to be shrunken towards a spread "
            "that does: give more rows."
        )
    return factor


def _divergence(spreads: Tensor) -> Tensor:
    return (spreads - 1 - spreads.log()) / 2


def shrunken(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(d,)` and covariance `(d, d)` of rows `(N, d)`, shrunken as by Ledoit and Wolf (2004), in float64.

    On the device of the rows: by scikit-learn on a CPU, by the same formula on a GPU, which would wait half a minute
    for it where the rows are wide.
    """
    if rows.is_cuda:
        return ledoit_wolf_here(rows.detach().double())
    from sklearn.covariance import ledoit_wolf  # imported here: steering itself does not need scikit-learn

    known: Any = rows.detach().double().cpu()
    spread, _ = ledoit_wolf(known.numpy())
    return known.mean(dim=0), torch.from_numpy(spread)


def ledoit_wolf_here(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and shrunken covariance of float64 rows `(N, d)` where they are; section 3.3 of Ledoit and Wolf (2004)."""
    count, size = rows.shape
    mean = rows.mean(dim=0)
    spread = (rows - mean).T @ (rows - mean) / count
    unit, squares = spread.trace() / size, spread.square().sum()
    noise = ((rows - mean).square().sum(dim=1).square().sum() / count - squares) / (size * count)
    far = squares / size - unit**2  # from a multiple of the identity
    share = torch.where((noise > 0) & (far > 0), torch.minimum(noise, far) / far, 0.0)
    spread = (1 - share) * spread
    spread.diagonal().add_(share * unit)
    return mean, spread
