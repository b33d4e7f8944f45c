"""What a calibrated threshold promises, and how far one draw of the calibration keeps it: of prompts, and of people."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import betabinom
from torch import Tensor

from eraser_lib.threshold import (
    calibrate,
    conformal_rank,
    conformal_threshold,
    largest_per_person,
    open_rate_band,
    smallest_alpha,
)

Scores = Mapping[str, Tensor]
"""Group of prompts -> gate values `(N,)`."""
People = Mapping[str, Sequence[Hashable]]
"""Group of prompts -> who each is about, or the prompt itself where it is about nobody."""
UNITS = ("prompts", "people")
DRAWS = 1000


def promises(scores: Scores, people: People, alphas: Sequence[float]) -> pd.DataFrame:
    """What every group of calibration prompts can promise, by prompts and by people.

    Columns: `unit, group, n, attainable` (the smallest alpha with a finite threshold), `alpha`, `low, high` (95 % band
    of the share that truly opens, over draws of the calibration: Beta, see `open_rate_band`). Where no threshold is
    finite nothing opens, and the band is 0.
    """
    rows = []
    for unit in UNITS:
        for group, values in scores.items():
            n = len(values) if unit == "prompts" else len(set(people[group]))
            for alpha in alphas:
                low, high = open_rate_band(n, alpha)
                found = {"attainable": smallest_alpha(n), "alpha": alpha, "low": low, "high": high}
                rows.append({"unit": unit, "group": group, "n": n, **found})
    return pd.DataFrame(rows)


def kept(
    calibration: Scores, people: People, test: Scores, about: People, alphas: Sequence[float], *, group: str = "people"
) -> pd.DataFrame:
    """Thresholds of one group of calibration prompts, by prompts and by people, and what they open of other groups.

    Columns: `unit, alpha, threshold`, and of each group of `test` the share of prompts that opens, `<group>`, and of
    people with any prompt that opens, `<group>_people`. `about`: the people of `test`.
    """
    rows = []
    for unit in UNITS:
        level = {group: people[group]} if unit == "people" else None
        for alpha in alphas:
            threshold = calibrate({group: calibration[group]}, alpha, people=level).value
            row: dict[str, object] = {"unit": unit, "alpha": alpha, "threshold": threshold}
            for name, values in test.items():
                row[name] = float((values > threshold).double().mean())
                most = np.array(largest_per_person(values, about[name]))
                row[f"{name}_people"] = float((most > threshold).mean())
            rows.append(row)
    return pd.DataFrame(rows)


def redrawn(scores: Tensor, people: Sequence[Hashable], alpha: float, *, draws: int = DRAWS) -> pd.DataFrame:
    """Shares that open of the half of the people that did not calibrate, over random halves.

    One row for each draw and unit: `draw, unit, n` (that calibrated), `asked` (of the other half), `opened` (of these).
    """
    names = sorted(set(people), key=str)
    values = scores.double().numpy()
    rng = random.Random("promise")
    rows = []
    for draw in range(draws):
        half = set(rng.sample(names, len(names) // 2))
        mine = np.array([person in half for person in people])
        own, other = ([p for p, keeps in zip(people, side, strict=True) if keeps] for side in (mine, ~mine))
        parts = {"prompts": (values[mine], values[~mine])}
        parts["people"] = (
            np.array(largest_per_person(values[mine].tolist(), own)),
            np.array(largest_per_person(values[~mine].tolist(), other)),
        )
        for unit, (calibrating, asked) in parts.items():
            threshold = conformal_threshold(calibrating.tolist(), alpha)
            opened = int((asked > threshold).sum())
            rows.append({"draw": draw, "unit": unit, "n": len(calibrating), "asked": len(asked), "opened": opened})
    return pd.DataFrame(rows)


def against_theory(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """`redrawn` beside what follows if its units are exchangeable: a Beta-binomial share.

    Columns: `unit, n, asked` (means over draws), `mean` and `spread` (standard deviation) of the share that opens,
    `mean_if`, `spread_if` by theory, and `inside`, the share of draws within the 95 % interval of the theory. No row
    for a unit of which too few calibrate for a threshold at alpha.
    """
    rows = []
    for unit, own in table.groupby("unit", sort=False):
        if any(conformal_rank(n, alpha) > n for n in own["n"]):
            continue
        share = own["opened"] / own["asked"]
        laws = [_law(n, asked, alpha) for n, asked in zip(own["n"], own["asked"], strict=True)]
        inside = [law.ppf(0.025) <= opened <= law.ppf(0.975) for law, opened in zip(laws, own["opened"], strict=True)]
        means = np.array([law.mean() for law in laws]) / own["asked"]
        spreads = np.array([law.std() for law in laws]) / own["asked"]
        rows.append(
            {
                "unit": unit, "n": own["n"].mean(), "asked": own["asked"].mean(), "mean": share.mean(),
                "spread": share.std(), "mean_if": means.mean(), "spread_if": spreads.mean(), "inside": np.mean(inside),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _law(n: int, asked: int, alpha: float) -> betabinom:
    """How many of `asked` open, over draws of `n` exchangeable scores without ties that calibrate and of those."""
    rank = conformal_rank(n, alpha)
    return betabinom(asked, n + 1 - rank, rank)
