"""Statistics of clustered answers: everything here treats the person, not the question, as the unit.

Arrays hold one entry per question; `people` names the person of each (or any other cluster). With 10 people
the real coverage of a 95 % bootstrap interval is about .91, with 25 about .935.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with a percentile interval."""

    value: float
    low: float
    high: float
    n: int
    """Questions."""
    n_people: int
    """Clusters that were resampled."""


def bootstrap_mean(
    values: ArrayLike,
    people: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean over questions with a bootstrap interval over people.

    Args:
        values: array of shape `(n,)`.
        people: cluster of each value, length `n`.
        level: coverage aimed at.
        draws: bootstrap draws.
        seed: seed of the draws; the same seed gives the same interval.

    Raises:
        ValueError: no values, or lengths differ, or a value is not finite.
    """
    return bootstrap_mean_over_seeds([values], [people], level=level, draws=draws, seed=seed)


def bootstrap_mean_over_seeds(
    values: Sequence[ArrayLike],
    people: Sequence[Sequence[Hashable]],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean over seeds of the mean over questions; people and seeds are resampled, crossed.

    The same people are drawn for every seed, because the seeds answer the same questions.

    Args:
        values: one array of shape `(n_s,)` per seed.
        people: the clusters of each, in the same order.
        level, draws, seed: see `bootstrap_mean`.

    Raises:
        ValueError: see `bootstrap_mean`.
    """
    arrays = [checked(array, groups) for array, groups in zip(values, people, strict=True)]
    if not arrays:
        raise ValueError("a bootstrap needs at least one array of values; found none")
    codes, n_people = codes_of(*people)
    sums = np.stack([np.bincount(code, array, n_people) for code, array in zip(codes, arrays, strict=True)])
    counts = np.stack([np.bincount(code, minlength=n_people) for code in codes]).astype(float)  # (S, K)
    weights = bootstrap_counts(n_people, draws, seed)  # (B, K)
    means = ratio(weights @ sums.T, weights @ counts.T)  # (B, S)
    if len(arrays) > 1:
        seed_weights = bootstrap_counts(len(arrays), draws, seed + 1) / len(arrays)  # (B, S)
        # a draw of seeds may hold none of the drawn people
        drawn = ratio(np.nansum(means * seed_weights, axis=1), np.sum(seed_weights * ~np.isnan(means), axis=1))
    else:
        drawn = means[:, 0]
    low, high = percentiles(drawn, level)
    value = float(np.mean([array.mean() for array in arrays]))
    return Interval(value, low, high, n=max(array.size for array in arrays), n_people=n_people)


def paired_difference(
    method: ArrayLike,
    baseline: ArrayLike,
    people: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of `baseline - method` over the same questions (the paired loss) with an interval over people.

    Args:
        method, baseline: arrays of shape `(n,)`, question by question.
        people: cluster of each question.
        level, draws, seed: see `bootstrap_mean`.

    Raises:
        ValueError: see `bootstrap_mean`.
    """
    return bootstrap_mean(
        checked(baseline, people) - checked(method, people), people, level=level, draws=draws, seed=seed
    )


def sign_flip_test(differences: ArrayLike, people: Sequence[Hashable], *, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference of 0, flipping the sign of each person's questions together.

    Exact over all sign patterns for up to 13 people, else by random flips (the observed one counted).

    Args:
        differences: array of shape `(n,)`.
        people: cluster of each difference.
        draws: random flips.
        seed: seed of the flips.

    Raises:
        ValueError: see `bootstrap_mean`.
    """
    array = checked(differences, people)
    (codes,), n_people = codes_of(people)
    sums = np.bincount(codes, array, n_people)
    if n_people <= 13:
        patterns = np.arange(2**n_people)[:, None] >> np.arange(n_people) & 1
        flips = 2.0 * patterns - 1.0  # (2^K, K)
        extra = 0
    else:
        flips = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n_people))
        extra = 1
    tolerance = 1e-12 * max(1.0, float(np.abs(sums).sum()))
    extreme = int(np.sum(np.abs(flips @ sums) >= abs(float(sums.sum())) - tolerance))
    return (extreme + extra) / (len(flips) + extra)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, by name, in the order given."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(ordered):
        running = max(running, min(1.0, p_values[name] * (len(ordered) - rank)))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def wilson(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a binomial share, for independent trials.

    Raises:
        ValueError: `successes` is not between 0 and `n`, or `n` is 0.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n > 0; found successes={successes}, n={n}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bound is the share itself; without this the rounding error may put it a hair inside.
    low = 0.0 if successes == 0 else float(max(0.0, centre - half))
    high = 1.0 if successes == n else float(min(1.0, centre + half))
    return low, high


def sample(values: ArrayLike) -> Floats:
    """A non-empty, finite array of shape `(n,)`; `ValueError` otherwise."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"expected a non-empty array of shape (n,); found shape {array.shape}")
    if not np.isfinite(array).all():
        index = int(np.argmin(np.isfinite(array)))
        raise ValueError(f"expected finite values; found {array[index]} at position {index}")
    return array


def checked(values: ArrayLike, people: Sequence[Hashable]) -> Floats:
    """`sample`, with one person per value; `ValueError` otherwise."""
    array = sample(values)
    if len(people) != array.size:
        raise ValueError(f"expected one person per value; found {array.size} values and {len(people)} people")
    return array


def codes_of(*people: Sequence[Hashable]) -> tuple[list[NDArray[np.int64]], int]:
    """Number of each cluster by first appearance, shape `(n,)` per sample, and how many clusters all samples have."""
    names = {name: index for index, name in enumerate(dict.fromkeys(chain(*people)))}
    return [np.array([names[name] for name in groups], dtype=np.int64) for groups in people], len(names)


@lru_cache(maxsize=64)
def bootstrap_counts(n: int, draws: int, seed: int) -> Floats:
    """How often each of `n` clusters is drawn, shape `(draws, n)`, kept for reuse."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=draws).astype(float)
    counts.flags.writeable = False
    return counts


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    """Ends of the central interval of the draws, those without a value left out."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
