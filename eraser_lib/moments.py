"""Streamed first and second moments of activations: all that a gate needs to know about the retain set."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .precision import exact


class Moments:
    """Count, sum and uncentred second moment of vectors in `d` dimensions, updated batch by batch.

    Moments add up, so they also subtract: the retain set of an erasure request is
    `everything.subtract(forgotten)`, without a forward pass.
    """

    count: int
    """Number of vectors seen."""

    sum: Tensor
    """Sum of the vectors, shape `(d,)`."""

    second: Tensor
    """Sum of the outer products `x x^T`, shape `(d, d)`, not divided by the count."""

    def __init__(self, size: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"Moments accumulate in float32 or float64, not in {dtype}.")
        self.count = 0
        self.sum = torch.zeros(size, dtype=dtype, device=device)
        self.second = torch.zeros(size, size, dtype=dtype, device=device)

    @classmethod
    def of(cls, x: Tensor, *, dtype: torch.dtype = torch.float64) -> Moments:
        """Moments of one tensor of shape `(..., d)`."""
        return cls(x.shape[-1], dtype=dtype, device=x.device).update(x)

    @property
    def size(self) -> int:
        """The dimension `d`."""
        return self.sum.shape[0]

    @torch.no_grad()
    def update(self, x: Tensor) -> Moments:
        """Add vectors of shape `(..., d)`; any floating dtype. Returns itself. Raises `ValueError` on another
        `d`."""
        if x.shape[-1] != self.size:
            raise ValueError(f"Expected vectors of size {self.size}, got a tensor of shape {tuple(x.shape)}.")
        rows = x.reshape(-1, self.size).to(self.sum)  # (n, d)
        self.count += rows.shape[0]
        self.sum += rows.sum(dim=0)
        with exact(rows.device):
            self.second += rows.T @ rows
        return self

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together, as a new object."""
        return self._combined(other, sign=1)

    def subtract(self, other: Moments) -> Moments:
        """The moments of this set without the vectors of `other`, which must be part of it; a new object.

        Raises `ValueError` when `other` holds more vectors.
        """
        if other.count > self.count:
            raise ValueError(f"Cannot take {other.count} vectors away from {self.count}: they are not a part of them.")
        return self._combined(other, sign=-1)

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file, so that shards and processes can each count a part and `merge` them."""
        tensors = {"sum": self.sum, "second": self.second, "count": torch.tensor(self.count)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """The inverse of `save`, on the CPU."""
        read = load_file(path)
        moments = cls(read["sum"].shape[0], dtype=read["sum"].dtype)
        moments.count, moments.sum, moments.second = int(read["count"]), read["sum"], read["second"]
        return moments

    def _combined(self, other: Moments, *, sign: int) -> Moments:
        if other.size != self.size:
            raise ValueError(f"These moments have sizes {self.size} and {other.size}; they cannot be combined.")
        result = Moments(self.size, dtype=self.sum.dtype, device=self.sum.device)
        result.count = self.count + sign * other.count
        result.sum = self.sum + sign * other.sum.to(self.sum)
        result.second = self.second + sign * other.second.to(self.second)
        return result

    def _nonempty(self) -> int:
        if self.count < 1:
            raise ValueError("These moments hold no vectors; call update() first.")
        return self.count

    @property
    def mean(self) -> Tensor:
        """Mean, shape `(d,)`."""
        return self.sum / self._nonempty()

    @property
    def uncentred(self) -> Tensor:
        """Mean of `x x^T`, shape `(d, d)`."""
        return self.second / self._nonempty()

    @property
    def covariance(self) -> Tensor:
        """Covariance around the mean, divided by the count (not count - 1), shape `(d, d)`."""
        mean = self.mean
        return self.uncentred - torch.outer(mean, mean)

    def __repr__(self) -> str:
        return f"Moments(size={self.size}, count={self.count}, dtype={self.sum.dtype})"
