from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from eraser_lib.evaluate.separation import (
    auc,
    auc_interval,
    centroid_distance,
    ks_distance,
    ks_interval,
    ks_swap_test,
    roc_curve,
    silhouette,
)
from eraser_lib.evaluate.stats import (
    bootstrap_mean,
    bootstrap_mean_over_seeds,
    holm,
    paired_difference,
    sign_flip_test,
    wilson,
)

samples = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)
shares = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=25))
def test_interval_holds_the_mean_of_a_bounded_sample(rows: list[tuple[float, int]]) -> None:
    values, people = zip(*rows, strict=True)
    found = bootstrap_mean(values, people, draws=200)
    assert found.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    assert (found.n, found.n_people) == (len(values), len(set(people)))
    assert found == bootstrap_mean(values, people, draws=200), "the same seed gives the same interval"


def test_interval_follows_people_not_questions() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=20)
    values = np.repeat(effects, 50)  # all questions of a person agree: 1000 questions carry 20 people of news
    people = np.repeat(np.arange(20), 50).tolist()
    found = bootstrap_mean(values, people)
    standard_error = effects.std() / np.sqrt(20)
    assert (found.high - found.low) / (2 * 1.96 * standard_error) == pytest.approx(1.0, abs=0.1)
    wrong = bootstrap_mean(values, list(range(1000)))
    assert (found.high - found.low) > 5 * (wrong.high - wrong.low)


def test_interval_by_enumeration() -> None:
    """Two people: the bootstrap draws only three means, with probabilities 1/4, 1/2, 1/4."""
    found = bootstrap_mean([1.0, 1.0, 0.0], ["a", "a", "b"], level=0.4)
    assert (found.low, found.value, found.high) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    found = bootstrap_mean([1.0, 1.0, 0.0], ["a", "a", "b"])
    assert (found.low, found.high) == (0.0, 1.0)


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    people = [f"p{index}" for index in range(30)]
    base = rng.random(30)
    apart = [base + shift for shift in (-0.3, 0.0, 0.3)]
    one, three = bootstrap_mean(base, people), bootstrap_mean_over_seeds(apart, [people] * 3)
    assert three.value == pytest.approx(one.value)
    assert three.high - three.low > 2 * (one.high - one.low)
    assert (three.n, three.n_people) == (30, 30)


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(2)
    people = [index // 3 for index in range(60)]
    base = rng.normal(size=60)
    found = paired_difference(base - 0.1 + 0.001 * rng.normal(size=60), base, people)
    assert found.value == pytest.approx(0.1, abs=0.001)
    assert found.high - found.low < 0.002


@pytest.mark.parametrize(
    ("values", "people", "message"),
    [
        ([], [], "non-empty"),
        ([1.0], ["a", "b"], "one person per value"),
        ([1.0, float("nan")], ["a", "b"], "position 1"),
    ],
)
def test_wrong_samples_are_refused(values: list[float], people: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, people)


def test_sign_flips_by_enumeration() -> None:
    # person sums 3, 1, 2: of 8 patterns only +++ and --- reach |6|
    assert sign_flip_test([1.0, 2.0, 1.0, 2.0], ["a", "a", "b", "c"]) == 2 / 8
    assert sign_flip_test([0.0, 0.0], ["a", "b"]) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9))
def test_sign_flips_equal_brute_force(values: list[float]) -> None:
    patterns = list(itertools.product([-1, 1], repeat=len(values)))
    extreme = [abs(np.dot(signs, values)) >= abs(sum(values)) - 1e-9 for signs in patterns]
    assert sign_flip_test(values, list(range(len(values)))) == pytest.approx(np.mean(extreme))


def test_random_flips_approach_the_exact_test() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.4, size=13)
    exact = sign_flip_test(values, list(range(13)))
    # a person whose differences are all 0 changes nothing but sends the test to random flips
    drawn = sign_flip_test([*values, 0.0], list(range(14)), draws=20_000)
    assert drawn == pytest.approx(exact, abs=0.01)


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_monotone_and_between_raw_and_bonferroni(values: list[float]) -> None:
    p_values = dict(zip("abcdef", values, strict=False))
    adjusted = holm(p_values)
    assert list(adjusted) == list(p_values)
    for name, value in adjusted.items():
        assert p_values[name] <= value <= 1.0
        assert all(value >= adjusted[other] for other in p_values if p_values[other] < p_values[name])
    if p_values:
        assert min(adjusted.values()) == min(1.0, min(values) * len(values))


@settings(max_examples=30, deadline=None)
@given(samples, samples)
def test_ks_and_auc_equal_other_computations(first: list[float], second: list[float]) -> None:
    gaps = [np.mean(np.array(first) <= x) - np.mean(np.array(second) <= x) for x in [*first, *second]]
    assert ks_distance(first, second) == pytest.approx(np.max(np.abs(gaps)))
    labels = [1] * len(first) + [0] * len(second)
    assert auc(first, second) == pytest.approx(roc_auc_score(labels, first + second))
    assert auc(first, second) == pytest.approx(1 - auc(second, first))
    false, true = roc_curve(first, second)
    assert np.trapezoid(true, false) == pytest.approx(auc(first, second))
    assert (np.diff(false) >= 0).all() and (np.diff(true) >= 0).all()


def test_intervals_of_distances() -> None:
    rng = np.random.default_rng(4)
    people = [f"p{index // 4}" for index in range(80)]
    base, moved = rng.normal(size=80), rng.normal(1.0, size=80)
    same, other = ks_interval(base, base, people, people), ks_interval(base, moved, people, people)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0), "a person is drawn in both samples together"
    assert 0 < other.low <= other.value <= other.high <= 1
    found = auc_interval(moved, base, people, people)
    assert 0.5 < found.low < found.value < found.high < 1
    exact = auc_interval([2.0, 3.0], [0.0, 1.0], ["a", "b"], ["c", "d"])
    assert (exact.low, exact.value, exact.high) == (1.0, 1.0, 1.0)


def test_label_swaps() -> None:
    rng = np.random.default_rng(5)
    people = [f"p{index // 5}" for index in range(100)]
    base = rng.normal(size=100)
    small = ks_swap_test(base, base + 3.0, people, draws=500)
    assert small is not None and small < 0.01
    assert ks_swap_test(base, base, people, draws=100) == 1.0
    assert ks_swap_test(base[:45], base[:45], people[:45]) is None, "nine people prove nothing"


def test_label_swaps_keep_their_level() -> None:
    rng = np.random.default_rng(6)
    people = list(range(12))
    found = [ks_swap_test(rng.normal(size=12), rng.normal(size=12), people, draws=99) for _ in range(150)]
    assert np.mean([value is not None and value <= 0.1 for value in found]) < 0.17


@pytest.mark.parametrize("successes", [0, 3, 10])
def test_wilson_equals_scipy(successes: int) -> None:
    expected = scipy_stats.binomtest(successes, 10).proportion_ci(method="wilson")
    assert wilson(successes, 10) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_errors() -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes"):
        wilson(3, 2)


def test_distance_and_silhouette_of_groups() -> None:
    rng = np.random.default_rng(7)
    base = rng.normal(size=(200, 5))
    far = base + np.array([10.0, 0, 0, 0, 0])
    radius = np.sqrt(np.sum(np.var(base, axis=0)))
    assert centroid_distance(base, far) == pytest.approx(10 / radius)
    assert centroid_distance(3 * base, 3 * far) == pytest.approx(centroid_distance(base, far))
    assert silhouette(base, far) > 0.6 > 0.1 > silhouette(base, rng.normal(size=(200, 5)))
    with pytest.raises(ValueError, match="shapes"):
        centroid_distance(base, base[:, :2])
    with pytest.raises(ValueError, match="coincide"):
        centroid_distance(np.zeros((2, 2)), np.ones((2, 2)))
