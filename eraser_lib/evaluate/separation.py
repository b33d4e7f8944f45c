"""How far apart two samples are: truth ratios, gate values, activations. People are the unit."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from eraser_lib.evaluate.stats import (
    Floats,
    Interval,
    bootstrap_counts,
    checked,
    codes_of,
    percentiles,
    ratio,
    sample,
)


def ks_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Kolmogorov-Smirnov distance of two samples: the largest gap of their distribution functions, 0 to 1.

    Raises:
        ValueError: a sample is empty or not finite.
    """
    a, b = sample(first), sample(second)
    ones_a, ones_b = np.ones((1, a.size)), np.ones((1, b.size))
    return float(_weighted_ks(a, ones_a, b, ones_b)[0])


def ks_interval(
    first: ArrayLike,
    second: ArrayLike,
    first_people: Sequence[Hashable],
    second_people: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """KS distance with a bootstrap interval; a person that is in both samples is drawn in both together.

    The bootstrap distribution of a distance lies above the distance itself when that is near 0, so the
    interval is widened where needed to hold the estimate.

    Raises:
        ValueError: see `ks_distance`.
    """
    return ks_interval_over_seeds(
        [first], [first_people], second, second_people, level=level, draws=draws, seed=seed
    )  # fmt: skip


def ks_interval_over_seeds(
    firsts: Sequence[ArrayLike],
    first_people: Sequence[Sequence[Hashable]],
    second: ArrayLike,
    second_people: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean KS distance of several runs of a method to one reference; the interval draws people, and then runs.

    Args:
        firsts, first_people: samples of the runs, and the people of each.
        second, second_people: the reference.

    Raises:
        ValueError: see `ks_distance`.
    """
    b = checked(second, second_people)
    runs = [checked(values, people) for values, people in zip(firsts, first_people, strict=True)]
    (*codes, codes_b), n_people = codes_of(*first_people, second_people)
    weights = bootstrap_counts(n_people, draws, seed)
    drawn = np.stack(
        [_weighted_ks(a, weights[:, code], b, weights[:, codes_b]) for a, code in zip(runs, codes, strict=True)]
    )
    if len(runs) > 1:
        chosen = np.random.default_rng(seed + 1).integers(len(runs), size=drawn.shape)
        drawn = np.take_along_axis(drawn, chosen, axis=0)
    value = float(np.mean([ks_distance(a, b) for a in runs]))
    low, high = percentiles(drawn.mean(axis=0), level)
    n = min(b.size, *(a.size for a in runs))
    return Interval(value, min(low, value), max(high, value), n=n, n_people=n_people)


def ks_swap_test(
    first: ArrayLike, second: ArrayLike, people: Sequence[Hashable], *, draws: int = 2000, seed: int = 0
) -> float | None:
    """P-value of equal distributions for paired samples, by swapping the two labels within each person.

    Args:
        first, second: arrays of shape `(n,)`, question by question.
        people: cluster of each question.

    Returns:
        The p-value, or `None` below 10 people, where a large one proves nothing.

    Raises:
        ValueError: see `ks_distance`.
    """
    a, b = checked(first, people), checked(second, people)
    (codes,), n_people = codes_of(people)
    if n_people < 10:
        return None
    swaps = np.random.default_rng(seed).random((draws, n_people))[:, codes] < 0.5  # (B, n)
    pooled = np.concatenate([a, b])
    weights = np.concatenate([~swaps, swaps], axis=1).astype(float)  # membership of the first sample
    drawn = _weighted_ks(pooled, weights, pooled, 1.0 - weights)
    return (int(np.sum(drawn >= ks_distance(a, b) - 1e-12)) + 1) / (draws + 1)


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Probability that a positive score is above a negative one, ties counted half.

    Raises:
        ValueError: a sample is empty or not finite.
    """
    a, b = sample(positive), np.sort(sample(negative))
    below = np.searchsorted(b, a, side="left") + np.searchsorted(b, a, side="right")
    return float(below.sum() / (2.0 * a.size * b.size))


def auc_interval(
    positive: ArrayLike,
    negative: ArrayLike,
    positive_people: Sequence[Hashable],
    negative_people: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """AUC with a bootstrap interval over people, drawn apart on the two sides.

    Raises:
        ValueError: see `auc`.
    """
    a, b = checked(positive, positive_people), checked(negative, negative_people)
    (codes_a,), n_a = codes_of(positive_people)
    (codes_b,), n_b = codes_of(negative_people)
    order = np.argsort(b, kind="stable")
    ranked = b[order]
    left, right = np.searchsorted(ranked, a, side="left"), np.searchsorted(ranked, a, side="right")
    weights_a = bootstrap_counts(n_a, draws, seed)[:, codes_a]  # (B, n)
    weights_b = bootstrap_counts(n_b, draws, seed + 1)[:, codes_b][:, order]  # (B, m)
    mass = np.concatenate([np.zeros((draws, 1)), np.cumsum(weights_b, axis=1)], axis=1)
    wins = np.sum(weights_a * (mass[:, left] + mass[:, right]) / 2.0, axis=1)
    drawn = ratio(wins, weights_a.sum(axis=1) * weights_b.sum(axis=1))
    low, high = percentiles(drawn, level)
    return Interval(auc(a, b), low, high, n=a.size + b.size, n_people=n_a + n_b)


def roc_curve(positive: ArrayLike, negative: ArrayLike) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, both from 0 to 1.

    Raises:
        ValueError: see `auc`.
    """
    a, b = np.sort(sample(positive)), np.sort(sample(negative))
    thresholds = np.unique(np.concatenate([a, b]))[::-1]
    true = (a.size - np.searchsorted(a, thresholds, side="left")) / a.size
    false = (b.size - np.searchsorted(b, thresholds, side="left")) / b.size
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def centroid_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Distance of two centroids in units of the pooled within-group root mean square radius.

    Args:
        first, second: arrays of shapes `(n, d)` and `(m, d)`.

    Raises:
        ValueError: the arrays are not two-dimensional with the same width, or every point is its own
            centroid.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ValueError(f"expected arrays of shapes (n, d) and (m, d); found {a.shape} and {b.shape}")
    spread = np.sqrt(np.mean(np.concatenate([_squared_radii(a), _squared_radii(b)])))
    if spread == 0:
        raise ValueError("the points of both groups coincide with their centroids; a distance in radii is not defined")
    return float(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) / spread)


def silhouette(first: ArrayLike, second: ArrayLike) -> float:
    """Mean silhouette coefficient of two groups of points, -1 (mixed up) to 1 (far apart).

    Args:
        first, second: arrays of shapes `(n, d)` and `(m, d)`, with `n + m > 2`.
    """
    from sklearn.metrics import silhouette_score

    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    labels = np.repeat([0, 1], [len(a), len(b)])
    return float(silhouette_score(np.concatenate([a, b]), labels))


def _squared_radii(points: Floats) -> Floats:
    return np.sum((points - points.mean(axis=0)) ** 2, axis=1)


def _weighted_ks(a: Floats, weights_a: Floats, b: Floats, weights_b: Floats) -> Floats:
    """KS distance for each of B sets of weights, of shapes (B, n) and (B, m)."""
    values = np.concatenate([a, b])
    order = np.argsort(values, kind="stable")
    last = np.append(np.diff(values[order]) > 0, True)  # compare only after all ties of a value
    share_a = ratio(weights_a, weights_a.sum(axis=1, keepdims=True))
    share_b = ratio(weights_b, weights_b.sum(axis=1, keepdims=True))
    steps = np.concatenate([share_a, -share_b], axis=1)[:, order]
    gaps: Floats = np.max(np.abs(np.cumsum(steps, axis=1)[:, last]), axis=1)
    return gaps
