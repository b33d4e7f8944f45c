"""Streamed moments (invariant f)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eraser_lib import Moments


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    d=st.integers(1, 12),
)
def test_merged_equals_one_batch(seed: int, sizes: list[int], d: int) -> None:
    x = torch.randn(sum(sizes), d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    whole, merged, streamed = Moments.of(x), Moments(d), Moments(d)
    for part in x.split(sizes):
        merged, streamed = merged.merge(Moments.of(part)), streamed.update(part)
    for one in (merged, streamed):
        assert one.count == len(x)
        assert relative(one.sum, whole.sum) < 1e-12
        assert relative(one.second, whole.second) < 1e-12


def test_mean_and_covariance_are_those_of_the_rows() -> None:
    x = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 2
    moments = Moments.of(x.view(4, 10, 5))
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.covariance, torch.cov(x.T, correction=0))


def test_retain_is_all_minus_forgotten() -> None:
    x = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    retain = Moments.of(x).subtract(Moments.of(x[:7]))
    expected = Moments.of(x[7:])
    assert retain.count == 33
    assert relative(retain.second, expected.second) < 1e-12


def test_half_precision_rows_are_accumulated_wide() -> None:
    moments = Moments(2).update(torch.ones(5000, 2, dtype=torch.bfloat16))
    assert moments.sum.tolist() == [5000, 5000]


def test_errors() -> None:
    with pytest.raises(ValueError, match="float32 or float64"):
        Moments(2, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="size 2"):
        Moments(2).update(torch.ones(3, 3))
    with pytest.raises(ValueError, match="no vectors"):
        _ = Moments(2).mean
    with pytest.raises(ValueError, match="not a part"):
        Moments(2).subtract(Moments.of(torch.ones(1, 2)))
    with pytest.raises(ValueError, match="cannot be combined"):
        Moments(2).merge(Moments(3))
