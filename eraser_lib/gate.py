"""The input-aware gate: how strongly a prompt belongs to the forget set, as one number per prompt and layer.

MLLMEraser fits a `d x d` matrix `W` with `W P h = r` on the forget set and `W P h = 0` on the retain set.
Every target column is the same vector `r`, so the solution has rank exactly one: `W P h = (a . h) r`. The
solvers below return the vector `a`; the matrix never exists. The proof, in one line: the minimiser of `||W P
H_f - r 1^T||^2 + gamma ||W P||^2` is `W P = r 1^T (H_f^T P H_f + gamma I)^-1 H_f^T P = r a^T`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from .moments import Moments
from .precision import exact

RMS_EPSILON = 1e-6


def rms_normalise(h: Tensor) -> Tensor:
    """Vectors `(..., d)` divided by their root mean square, so that long activations do not open the gate."""
    return h * torch.rsqrt(h.square().mean(dim=-1, keepdim=True) + RMS_EPSILON)


@dataclass(frozen=True, eq=False)
class Gate:
    """`k` affine functions of the residual stream, `g_k(h) = a_k . h + b_k`, with a threshold each.

    Kept factored: the patch is `sum_k g_k(h) r_k`, rank `k` for `k` erasure requests, never a `d x d` matrix.
    """

    weight: Tensor
    """The vectors `a_k`, shape `(k, d)`."""

    bias: Tensor
    """The offsets `b_k`, shape `(k,)`; zero in the published form."""

    threshold: Tensor | None = None
    """Open where the value is strictly greater, shape `(k,)`; `None`: no decision, the value itself is the
    amount."""

    rms: bool = False
    """Whether `h` is divided by its root mean square first."""

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise ValueError(f"Gate.weight must have shape (k, d), got {tuple(self.weight.shape)}.")
        for name, value in (("bias", self.bias), ("threshold", self.threshold)):
            if value is not None and tuple(value.shape) != (self.rank,):
                raise ValueError(f"Gate.{name} must have shape ({self.rank},), got {tuple(value.shape)}.")
        if self.threshold is not None and not self.threshold.is_meta and bool(self.threshold.isnan().any()):
            raise ValueError("Gate.threshold is not a number: such a gate would never open. Calibrate it again.")

    @property
    def rank(self) -> int:
        """Number `k` of requests."""
        return self.weight.shape[0]

    @property
    def readings(self) -> int:
        """Number of linear readings that `read` takes of a vector: `k` here, as they are the values."""
        return self.rank

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by the names of the fields; without a threshold where there is none."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def __call__(self, h: Tensor) -> Tensor:
        """Gate values `(..., k)` of vectors `(..., d)`, computed in float32 or wider."""
        return self.values(self.read(h))

    def read(self, h: Tensor) -> Tensor:
        """Linear readings `(..., readings)` of vectors `(..., d)`; those of the parts of a `split` gate add up."""
        dtype = torch.promote_types(h.dtype, torch.float32)
        h = h.to(dtype)
        if self.rms:
            h = rms_normalise(h)
        with exact(h.device):
            return self._read(h)

    def _read(self, h: Tensor) -> Tensor:
        return h @ self.weight.to(h).T + self.bias.to(h)

    def values(self, readings: Tensor) -> Tensor:
        """Gate values `(..., k)` of readings `(..., readings)`."""
        return readings

    def opens(self, values: Tensor) -> Tensor:
        """Whether gate values `(..., k)` are above the threshold; everything opens a gate without one."""
        if self.threshold is None:
            return torch.ones_like(values, dtype=torch.bool)
        return values > self.threshold.to(values)

    def with_threshold(self, threshold: float | Sequence[float] | Tensor) -> Gate:
        """The same gate with a threshold, one number or one per request."""
        value = torch.as_tensor(threshold, dtype=torch.float64).reshape(-1).expand(self.rank).clone()
        return replace(self, threshold=value)

    def split(self, parts: int) -> list[Gate]:
        """A gate on the joined streams of `parts` sites, `(..., parts * d)`, as one gate `(k, d)` per site.

        Their readings add up to those of the joined gate; offset and threshold stay with the last. `ValueError` where
        the width is no multiple of `parts`, or the gate is RMS-normalised (a norm of joined streams has no parts).
        """
        if self.weight.shape[1] % parts or self.rms:
            raise ValueError(f"A gate of width {self.weight.shape[1]} (rms={self.rms}) has no {parts} equal parts.")
        return self._split(parts)

    def _split(self, parts: int) -> list[Gate]:
        *early, last = self.weight.chunk(parts, dim=1)
        return [Gate(w, torch.zeros_like(self.bias)) for w in early] + [replace(self, weight=last)]

    def to(self, device: torch.device) -> Gate:
        """The same gate on another device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in self.tensors.items()}
        return replace(self, **moved)


def stack(gates: Sequence[Gate]) -> Gate:
    """Several requests as one gate whose rank is the sum of the ranks.

    `ValueError` for no gates, or for gates that differ in kind, in RMS normalisation, in having a threshold, or in the
    shape of what they read.
    """
    if not gates:
        raise ValueError("stack() needs at least one gate.")
    if len({gate.rms for gate in gates}) > 1 or len({gate.threshold is None for gate in gates}) > 1:
        raise ValueError("Gates can be stacked when all or none are RMS-normalised, and all or none have a threshold.")
    if len({(type(gate), *(tuple(value.shape[1:]) for value in gate.tensors.values())) for gate in gates}) > 1:
        raise ValueError(
            "Gates can be stacked when they are of one kind and width, quadratic ones with the same number of curves."
        )
    joined: dict[str, Any] = {name: torch.cat([gate.tensors[name] for gate in gates]) for name in gates[0].tensors}
    return replace(gates[0], **joined)


def retain_basis(
    retain: Moments, *, energy: float | None = None, keep: float | None = None, centred: bool = True
) -> Tensor:
    """Orthonormal basis `(d, m)` of the directions that the retain set uses; the gate must be blind to them.

    Exactly one rule: `energy`, the share of the retain energy that the removed directions must hold at least
    (.99 leaves 1 % of leakage), or `keep`, the share of the `d` dimensions with the least energy that stays
    open (AlphaSteer's hand-set .3 to .6). `centred=True` removes the retain mean direction in any case and
    applies the share to the centred rest: where one mean direction holds most of the uncentred energy, an
    uncentred 99 % rule removes almost nothing and leaks. `centred=False` is the published form, on uncentred
    moments.
    """
    if (energy is None) == (keep is None):
        raise ValueError("Pass exactly one of energy= (share of retain energy) and keep= (share of dimensions).")
    share = energy if energy is not None else keep
    if share is None or not 0 < share < 1:
        raise ValueError(f"The share is {share}; it must lie strictly between 0 and 1.")
    matrix = (retain.covariance if centred else retain.uncentred).to(torch.float64)
    mean = retain.mean.to(torch.float64)
    if centred:  # the mean direction leaves the space first, so that the share is one of the rest
        unit = mean / mean.norm().clamp_min(torch.finfo(torch.float64).tiny)
        matrix = matrix - torch.outer(unit, unit @ matrix)
        matrix = matrix - torch.outer(matrix @ unit, unit)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)  # largest first
    if keep is not None:
        removed = retain.size - round(keep * retain.size)
    else:
        cumulative = values.cumsum(0)
        removed = int((cumulative < share * cumulative[-1]).sum()) + 1
    basis = vectors[:, :removed]
    return torch.linalg.qr(torch.cat([mean[:, None], basis], dim=1)).Q if centred else basis


def hard_gate(
    forget: Tensor,
    retain: Moments,
    *,
    energy: float | None = None,
    keep: float | None = None,
    gamma: float = 1e-2,
    centred: bool = True,
    bias: bool = False,
) -> Gate:
    """Null-space gate `a = P H (H^T P H + gamma I)^-1 1`, with `P` the projector off the retain directions.

    `forget`: activations `(N_f, d)`, one row per prompt (`H` is its transpose). `retain`: moments of the
    retain set. `energy`, `keep`, `centred`: see `retain_basis`. `gamma`: ridge in units of the mean
    eigenvalue of `H^T P H`. `bias`: measure from the retain mean, `a . (h - m_r)`; then the mean direction
    need not be removed. Source: MLLMEraser (arXiv 2510.04217) in its exact rank-one form. Raises `ValueError`
    on non-positive `gamma`.
    """
    rows = _checked(forget, retain, gamma)  # (N_f, d)
    origin = retain.mean.to(rows) if bias else torch.zeros_like(rows[0])
    if bias and centred:
        basis = retain_basis(_centred(retain), energy=energy, keep=keep, centred=False)
    else:
        basis = retain_basis(retain, energy=energy, keep=keep, centred=centred)
    basis = basis.to(rows)
    rows = rows - origin
    whole = float(rows.square().sum())
    rows = rows - (rows @ basis) @ basis.T  # P H, transposed
    weight = _ridge(rows, gamma, whole)
    return Gate(weight[None], -(weight @ origin)[None])


def ridge_gate(
    forget: Tensor | Moments, retain: Moments, *, beta: float = 1.0, gamma: float = 1e-2, bias: bool = False
) -> Gate:
    """Soft gate `a = (C_f + beta C_r + gamma I)^-1 m_f`: value 1 is asked for on forget, 0 on retain prompts.

    `C` are uncentred second moments and `m_f` the forget mean. `beta`: weight of the retain set, in units
    that give both sets the same mean eigenvalue. `gamma`: ridge in units of the mean eigenvalue of `C_f`.
    `bias`: fit an unpenalised offset too. One `d x d` Cholesky, no eigendecomposition; where the retain set
    has an exact null space the hard gate is the limit of large `beta`. Peak of memory beside what is given: four
    `d x d` matrices of float64 (both moments, their sum and its factor), one more with `bias`, and one more where
    `forget` are activations. Raises `ValueError` on non-positive `beta` or `gamma`.
    """
    known = forget if isinstance(forget, Moments) else Moments.of(_checked(forget, retain, gamma))
    if beta <= 0 or gamma <= 0:
        raise ValueError(f"beta and gamma must be positive, got beta={beta} and gamma={gamma}.")
    c_f, c_r = known.uncentred.to(torch.float64), retain.uncentred.to(torch.float64)
    mean_f, mean_r = known.mean.to(torch.float64), retain.mean.to(torch.float64)
    weight_r = beta * float(c_f.trace() / c_r.trace().clamp_min(torch.finfo(torch.float64).tiny))
    matrix = c_f + weight_r * c_r
    matrix.diagonal().add_(gamma * float(c_f.trace()) / known.size)
    if not bias:
        return Gate(_solve(matrix, mean_f)[None], torch.zeros(1, dtype=torch.float64))
    # With an unpenalised offset the problem is the same one around the weighted mean of both sets.
    centre = (mean_f + weight_r * mean_r) / (1 + weight_r)
    weight = _solve(matrix - (1 + weight_r) * torch.outer(centre, centre), mean_f - centre)
    offset = 1 / (1 + weight_r) - centre @ weight
    return Gate(weight[None], offset[None])


def ridge_gates(
    requests: Sequence[Tensor], retain: Moments, *, beta: float = 1.0, gamma: float = 1e-2, bias: bool = False
) -> Gate:
    """The `ridge_gate` of each request, stacked, with one Cholesky factor of size `d` for all of them.

    Both weights of `ridge_gate` are in units of the request's energy, so their ratio is the same for all: a request
    differs from `C_r + rho I` by its own `N` rows and, with `bias`, by a centre, which the formula of Woodbury adds in
    a system of size `N + 1`. Equal up to rounding. `requests`: activations `(N_i, d)` each, few rows in comparison with
    `d`. Errors as `ridge_gate`; `ValueError` also where the retain moments are all zero.
    """
    if beta <= 0 or gamma <= 0:
        raise ValueError(f"beta and gamma must be positive, got beta={beta} and gamma={gamma}.")
    rows = [_checked(request, retain, gamma) for request in requests]
    c_r, mean_r = retain.uncentred.to(torch.float64, copy=True), retain.mean.to(torch.float64)
    energy = float(c_r.trace())
    if not energy > 0:
        raise ValueError("The retain moments are all zero: there is nothing to keep apart from. Use ridge_gate.")
    c_r.diagonal().add_(gamma * energy / (beta * retain.size))
    solved = torch.cholesky_solve(torch.cat([*rows, mean_r[None]]).T, torch.linalg.cholesky(c_r)).T  # A^-1 of each row
    *solved_rows, solved_mean = solved.split([*map(len, rows), 1])
    weights, offsets = c_r.new_empty(len(rows), retain.size), c_r.new_zeros(len(rows))
    # requests of one length at once: a GPU would wait for each of them
    for count in sorted({len(own) for own in rows}):
        which = [number for number, own in enumerate(rows) if len(own) == count]
        own, inverse = (torch.stack([parts[number] for number in which]) for parts in (rows, solved_rows))  # (k, N, d)
        weight_r = beta * own.square().sum(dim=(1, 2)) / count / energy  # (k,)
        update, solved_update = own / count**0.5, inverse / count**0.5  # U^T and (A^-1 U)^T
        signs = weight_r[:, None].expand(-1, count)  # w S^-1
        right, solved_right = own.mean(dim=1), inverse.mean(dim=1)  # (k, d)
        if bias:
            share = weight_r[:, None]
            centre = (right + share * mean_r) / (1 + share)
            solved_centre = (solved_right + share * solved_mean) / (1 + share)
            update = torch.cat([update, centre[:, None]], dim=1)
            solved_update = torch.cat([solved_update, solved_centre[:, None]], dim=1)
            signs = torch.cat([signs, -share / (1 + share)], dim=1)
            right, solved_right = right - centre, solved_right - solved_centre
        small = update @ solved_update.mT + torch.diag_embed(signs)
        inner = torch.linalg.solve(small, (solved_update @ right[..., None])[..., 0])
        weights[which] = weight = (solved_right - (inner[:, None] @ solved_update)[:, 0]) / weight_r[:, None]
        if bias:
            offsets[which] = 1 / (1 + weight_r) - (centre * weight).sum(dim=1)
    return Gate(weights, offsets)


NOTHING_LEFT = 1e-12
"""A smaller share of the forget activations' energy outside the retain directions is rounding error."""


def _ridge(rows: Tensor, gamma: float, whole: float) -> Tensor:
    """`H (H^T H + gamma I)^-1 1` for rows `(N, d)`, by the smaller of the two equivalent systems.

    `whole`: sum of squares of the rows before the retain directions were removed.
    """
    count, size = rows.shape
    small = rows @ rows.T if count <= size else rows.T @ rows
    unit = float(rows.square().sum()) / count  # mean eigenvalue of the N x N matrix
    if not math.isfinite(unit) or unit * count <= NOTHING_LEFT * whole:
        raise ValueError(
            "Nothing of the forget activations is left outside the retain directions. Remove fewer "
            "directions (smaller energy= or larger keep=), or use the ridge solver."
        )
    small.diagonal().add_(gamma * unit)
    ones = torch.ones(count, dtype=rows.dtype, device=rows.device)
    return rows.T @ _solve(small, ones) if count <= size else _solve(small, rows.T @ ones)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[:, None], torch.linalg.cholesky(matrix))[:, 0]


def _centred(moments: Moments) -> Moments:
    result = Moments(moments.size, dtype=moments.sum.dtype, device=moments.sum.device)
    result.count, result.second = moments.count, moments.covariance * moments.count
    return result


def _checked(forget: Tensor, retain: Moments, gamma: float) -> Tensor:
    if forget.ndim != 2 or forget.shape[0] == 0 or forget.shape[1] != retain.size:
        raise ValueError(f"Expected forget activations of shape (N >= 1, {retain.size}), got {tuple(forget.shape)}.")
    if gamma <= 0:
        raise ValueError(f"gamma is {gamma}; it must be positive (a share of the mean eigenvalue, such as 0.01).")
    return forget.to(device=retain.sum.device, dtype=torch.float64)
