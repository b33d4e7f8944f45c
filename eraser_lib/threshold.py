"""A threshold with a guarantee: split-conformal calibration of gate values on retained prompts.

If a new retained prompt is exchangeable with the `n` calibration prompts, the probability that its gate opens
is at most `alpha`, in finite samples and whatever the distribution. The guarantee is marginal over the
calibration set: for one calibration set the rate scatters around it by a Beta distribution
(`open_rate_band`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor


def conformal_rank(n: int, alpha: float) -> int:
    """The rank `ceil((n + 1)(1 - alpha))` of the threshold among `n` sorted scores; `n + 1` means infinite.

    Computed exactly on the decimal value of `alpha`, because a rounding error would move the rank by one.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; the share of touched retained prompts must lie between 0 and 1.")
    if n < 0:
        raise ValueError(f"n is {n}; it counts calibration scores.")
    return math.ceil((n + 1) * (1 - Fraction(repr(float(alpha)))))


def conformal_threshold(scores: Tensor | Sequence[float], alpha: float) -> float:
    """The `ceil((n + 1)(1 - alpha))`-th smallest score; open a gate when its value is strictly greater.

    `scores`: gate values `(n,)` of retained prompts that neither fitted nor selected the gate; of a gate with several
    requests the largest of each prompt, and `ValueError` for one value per request. Returns `inf`
    when `n < 1/alpha - 1`: then no finite threshold keeps the promise (see `smallest_alpha`).
    Source: split conformal prediction (Vovk et al. 2005; Lei et al. 2018).
    """
    values = torch.as_tensor(scores, dtype=torch.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(
            f"Calibration scores have shape {tuple(values.shape)}; expected one per prompt. A prompt is steered when "
            "any of its requests opens, so take the largest value of each row: scores.amax(dim=1)."
        )
    if not bool(torch.isfinite(values).all()):
        raise ValueError("Calibration scores must be finite; there is a NaN or an infinity among them.")
    rank = conformal_rank(len(values), alpha)
    return math.inf if rank > len(values) else float(values.sort().values[rank - 1])


def smallest_alpha(n: int) -> float:
    """The smallest `alpha` for which `n` calibration scores give a finite threshold: `1 / (n + 1)`, rounded up.

    The nearest float may lie below that, and a threshold for it would be infinite. 1.0 without any score.
    """
    alpha = 1.0 / (n + 1)
    while alpha < 1 and conformal_rank(n, alpha) > n:
        alpha = math.nextafter(alpha, 1.0)
    return alpha


def rounded_up(alpha: float) -> str:
    """An alpha in four decimals for a message: rounded to the nearest it might not be attainable."""
    return f"{math.ceil(alpha * 1e4) / 1e4:g}"


def largest_per_person(scores: Tensor | Sequence[float], people: Sequence[Hashable]) -> list[float]:
    """Person-level scores: the maximum over each person's prompts, in the order of first appearance.

    With them the promise is about people: the probability that *any* of a new person's prompts opens the gate
    is at most `alpha`, if people (not prompts) are exchangeable and as many prompts are asked.
    """
    values = [float(score) for score in scores]
    if len(values) != len(people):
        raise ValueError(f"There are {len(values)} scores but {len(people)} people; expected one person per score.")
    best: dict[Hashable, float] = {}
    for person, value in zip(people, values, strict=True):
        best[person] = max(value, best.get(person, -math.inf))
    return list(best.values())


def open_rate_band(n: int, alpha: float, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the true false-open rate over draws of the calibration set, for scores without ties.

    With rank `k` the closed rate follows Beta(k, n + 1 - k), so the open rate follows Beta(n + 1 - k, k).
    Returns `(0, 0)` when the threshold is infinite. A rate observed on few test prompts scatters more.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1.")
    rank = conformal_rank(n, alpha)
    if rank > n:
        return 0.0, 0.0
    from scipy.stats import beta  # imported here: steering itself does not need scipy

    low, high = beta.ppf([(1 - level) / 2, (1 + level) / 2], n + 1 - rank, rank)
    return float(low), float(high)


@dataclass(frozen=True)
class Calibration:
    """A threshold and where it came from."""

    alpha: float
    """Largest tolerated share of touched retained prompts (or people)."""

    value: float
    """The threshold: the largest over the groups; infinite when a group is too small."""

    per_group: dict[str, float]
    """Threshold of each group by itself."""

    counts: dict[str, int]
    """Number of calibration scores (prompts or people) of each group."""

    @property
    def attainable_alpha(self) -> float:
        """The smallest alpha at which every group has a finite threshold."""
        return smallest_alpha(min(self.counts.values()))

    def __str__(self) -> str:
        if math.isfinite(self.value):
            return f"threshold {self.value:.4g} at alpha = {self.alpha:g}"
        small = min(self.counts, key=lambda group: self.counts[group])
        return (
            f"infinite threshold at alpha = {self.alpha:g}: group {small!r} has {self.counts[small]} "
            f"calibration scores; the smallest attainable alpha is {rounded_up(self.attainable_alpha)}"
        )


def calibrate(
    scores: Mapping[str, Tensor | Sequence[float]],
    alpha: float,
    *,
    people: Mapping[str, Iterable[Hashable]] | None = None,
) -> Calibration:
    """Calibrate per group and take the largest threshold, so that the promise holds in every group.

    `scores`: gate values per group of retained inputs (people, celebrities, benign, general, ...). `people`:
    for the groups that it names, the person behind each score; these groups are calibrated at person level.
    """
    if not scores:
        raise ValueError("calibrate() needs at least one group of calibration scores.")
    people = people or {}
    unknown = set(people) - set(scores)
    if unknown:
        raise ValueError(f"`people` names groups without scores: {sorted(unknown)}.")
    units = {
        group: largest_per_person(values, list(people[group])) if group in people else [float(v) for v in values]
        for group, values in scores.items()
    }
    per_group = {group: conformal_threshold(values, alpha) for group, values in units.items()}
    return Calibration(alpha, max(per_group.values()), per_group, {g: len(v) for g, v in units.items()})
