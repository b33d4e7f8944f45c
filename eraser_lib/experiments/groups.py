"""From whom gates and detectors tell the forgotten: ranking and openings, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from eraser_lib.evaluate.separation import auc_interval
from eraser_lib.evaluate.stats import bootstrap_mean
from eraser_lib.experiments.simple import KNOWN, OUTSIDE

GROUPS = {**{name: (name,) for name in KNOWN}, "outside": OUTSIDE}
"""Retained people, celebrities, and what is about none of them."""
DECIDERS = ("mllmeraser", "mllmeraser_quadratic", "detector")
"""Methods that open above a threshold."""


def told_apart(logs: pd.DataFrame, methods: Sequence[str] = DECIDERS) -> pd.DataFrame:
    """How well what a method looks at ranks the forgotten's test prompts above those of each group.

    Args:
        logs: answers of one model at one split.

    Returns:
        One row per method and group: `method`, `others`, `auc` with `_low` and `_high` (95 %, over people; a question
        about nobody counts as one), `opened` with `_low` and `_high`, the group's share above the method's own
        threshold, and `n`, its prompts. A method or a group that was not asked is left out.
    """
    rows: list[dict[str, Any]] = []
    for method in methods:
        own = logs[(logs["method"] == method) & logs["gate_value"].notna()]
        own = own.assign(person=own["person"].fillna(own["id"]))
        gone = own[own["subset"] == "test"]
        for name, subsets in GROUPS.items():
            others = own[own["subset"].isin(subsets)]
            if gone.empty or others.empty:
                continue
            ranked = auc_interval(
                gone["gate_value"].astype(float), others["gate_value"].astype(float), list(gone["person"]),
                list(others["person"]),
            )  # fmt: skip
            opened = bootstrap_mean(others["opened"].astype(float), list(others["person"]))
            rows.append({
                "method": method, "others": name, "auc": ranked.value, "auc_low": ranked.low, "auc_high": ranked.high,
                "opened": opened.value, "opened_low": opened.low, "opened_high": opened.high, "n": len(others),
            })  # fmt: skip
    return pd.DataFrame(rows)
