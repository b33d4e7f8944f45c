"""Split-conformal thresholds: ranks, promises, bands."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eraser_lib import calibrate, conformal_threshold, open_rate_band, smallest_alpha
from eraser_lib.threshold import conformal_rank, largest_per_person, rounded_up


@given(
    scores=st.lists(st.floats(-5, 5), min_size=2, max_size=60),
    alpha=st.sampled_from([0.5, 0.2, 0.1, 0.05, 0.02, 0.01]),
)
@settings(max_examples=100, deadline=None)
def test_at_most_alpha_of_exchangeable_scores_open(scores: list[float], alpha: float) -> None:
    """The finite-sample promise, exactly: leave each score out in turn; at most a share alpha of them
    opens."""
    opened = sum(s > conformal_threshold(scores[:i] + scores[i + 1 :], alpha) for i, s in enumerate(scores))
    assert opened <= alpha * len(scores) + 1e-9


def test_rank_by_hand() -> None:
    assert conformal_threshold([4.0, 1.0, 3.0, 2.0], 0.5) == 3.0  # ceil(5 * .5) = 3rd smallest
    assert conformal_rank(99, 0.01) == 99
    assert conformal_threshold(list(range(99)), 0.01) == 98
    assert conformal_threshold(list(range(98)), 0.01) == math.inf
    assert conformal_rank(49, 0.02) == 49  # 50 * .98 is 49 exactly, in decimals
    assert smallest_alpha(99) == pytest.approx(0.01)


def test_the_smallest_alpha_is_attained_and_nothing_below_it() -> None:
    """1 / (n + 1) as a float often lies below the number, and would give an infinite threshold."""
    for n in range(1, 1000):
        alpha = smallest_alpha(n)
        assert conformal_rank(n, alpha) <= n < conformal_rank(n, math.nextafter(alpha, 0.0))
        assert conformal_rank(n, float(rounded_up(alpha))) <= n, "what a message advises"
    assert smallest_alpha(0) == 1


def test_open_rate_lies_in_the_beta_band() -> None:
    n, alpha = 199, 0.05
    low, high = open_rate_band(n, alpha)
    generator = torch.Generator().manual_seed(0)
    # For uniform scores the true open rate of a threshold t is 1 - t.
    rates = [1 - conformal_threshold(torch.rand(n, generator=generator), alpha) for _ in range(400)]
    inside = sum(low <= rate <= high for rate in rates) / len(rates)
    assert 0.91 < inside < 0.98
    assert sum(rates) / len(rates) <= alpha * 1.05
    assert open_rate_band(10, 0.01) == (0.0, 0.0)


def test_largest_group_threshold_and_people() -> None:
    scores = {"people": [0.1, 0.5, 0.2, 0.3, 0.0, 0.4], "benign": [0.0] * 9}
    calibration = calibrate(scores, 0.25, people={"people": ["a", "a", "b", "b", "c", "c"]})
    assert calibration.counts == {"people": 3, "benign": 9}
    assert calibration.per_group == {"people": 0.5, "benign": 0.0}
    assert calibration.value == 0.5
    assert largest_per_person([1.0, 3.0, 2.0], ["x", "y", "x"]) == [2.0, 3.0]
    assert "0.5" in str(calibration)


def test_too_few_give_an_infinite_threshold_that_says_why() -> None:
    calibration = calibrate({"a": [0.0] * 200, "b": [0.0] * 9}, 0.01)
    assert calibration.value == math.inf
    assert calibration.attainable_alpha == pytest.approx(0.1)
    assert "'b' has 9" in str(calibration)
    assert "0.1" in str(calibration)


def test_errors() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_threshold([1.0], 1.0)
    with pytest.raises(ValueError, match="finite"):
        conformal_threshold([math.nan], 0.1)
    with pytest.raises(ValueError, match="one person per score"):
        largest_per_person([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="at least one group"):
        calibrate({}, 0.1)
    with pytest.raises(ValueError, match="without scores"):
        calibrate({"a": [1.0]}, 0.1, people={"b": ["x"]})
    with pytest.raises(ValueError, match="level"):
        open_rate_band(10, 0.1, level=2)


def test_several_values_of_a_prompt_are_refused() -> None:
    """A prompt opens when any of its requests does: flattened, their values would promise too much."""
    scores = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"shape \(200, 4\); expected one per prompt.*amax"):
        conformal_threshold(scores, 0.05)
    assert conformal_threshold(scores[:, :1], 0.05) == conformal_threshold(scores[:, 0], 0.05)
