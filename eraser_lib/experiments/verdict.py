"""Which method would I use, what does it take from others, and how sure is that? One row per method."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from eraser_lib.experiments.contest import over_seeds
from eraser_lib.experiments.outcome import left_behind, lost_elsewhere

RIGHT = "fact_recall"
"""Whether an open answer is right."""
PHOTOS = {True: "their", False: "others"}


def verdicts(logs: pd.DataFrame, tests: pd.DataFrame, forgotten: Collection[str]) -> pd.DataFrame:
    """What each method forgets and what it takes from others; `logs` of one model and split.

    Args:
        logs: of all methods, with vanilla's.
        tests: `contest.tests` of these logs.
        forgotten: identifiers of the people to forget.

    Returns:
        Columns `method`; `facts` and `gone`, exact-fact recall of open answers and probability of right answers on
        forgotten people's unseen prompts; `kept`, `famous` and `their_photos`, probability of right answers about
        retained people, about celebrities, and about colours on pictures of forgotten people; each with `_low` and
        `_high` (95 %, over people and seeds); `refused` and `gibberish`, shares of the forgotten people's prompts;
        `p_holm` of the difference from the corrected form; and `forgets`, `spares`, whether the study's criteria are
        met: no more left than by a model that never knew them, and at most a hundredth lost on people who stay.
        Missing where a method has no such rows or nothing to compare with.
    """
    p_values = dict(zip(tests["baseline"], tests["p_holm"], strict=True)) if len(tests) else {}
    rows = []
    for method, own in logs.groupby("method", sort=False):
        test, photos = own[own["subset"] == "test"], own[own["subset"] == "same_photo"]
        groups = {
            "facts": (test[test["task"] == "generation"], "fact_recall"), "gone": (test, "answer_prob"),
            "kept": (own[own["subset"] == "retain"], "answer_prob"),
            "famous": (own[own["subset"] == "celebrity"], "answer_prob"),
            "their_photos": (photos[photos["person"].isin(forgotten)], "answer_prob"),
        }  # fmt: skip
        row: dict[str, Any] = {"method": method}
        for name, (found, column) in groups.items():
            row.update(over_seeds(found, column, name))
        row |= {name: float(test[column].mean()) for name, column in (("refused", "refusal"), ("gibberish",) * 2)}
        row["p_holm"] = p_values.get(str(method))
        rows.append(row | _met(logs, str(method)))
    return pd.DataFrame(rows).sort_values("gone", kind="stable", ignore_index=True)


def photos(logs: pd.DataFrame, forgotten: Collection[str]) -> pd.DataFrame:
    """Questions about what else is to be seen on a picture, apart for pictures of forgotten people and of others.

    One row per method with columns `method` and, after `their_` (the forgotten people's pictures) and `others_`:
    `prob` (of the right answer) and `right` (share of right answers) with `_low` and `_high`, `opened` (share of
    prompts whose gate opened), `n` (questions). Empty where nobody wrote such questions.
    """
    asked = logs[logs["subset"] == "same_photo"]
    rows = []
    for method, own in asked.groupby("method", sort=False):
        row: dict[str, Any] = {"method": method}
        for is_theirs, whose in PHOTOS.items():
            group = own[own["person"].isin(forgotten) == is_theirs]
            opened = group["opened"].astype("boolean")
            row |= over_seeds(group, "answer_prob", f"{whose}_prob") | over_seeds(group, RIGHT, f"{whose}_right")
            row[f"{whose}_opened"] = float(opened.mean()) if opened.notna().any() else None
            row[f"{whose}_n"] = len(group) // own["seed"].nunique()  # of one seed
        rows.append(row)
    found = pd.DataFrame(rows)
    return found if found.empty else found.sort_values("their_prob", kind="stable", ignore_index=True)


def _met(logs: pd.DataFrame, method: str) -> dict[str, str | None]:
    """The criteria that do not ask how a method works, in two words."""
    if method == "vanilla":
        return {"forgets": None, "spares": None}
    found = {"forgets": left_behind(logs, method), "spares": lost_elsewhere(logs, method)}
    return {name: _all([row["met"] for row in rows]) for name, rows in found.items()}


def _all(verdicts: list[str]) -> str | None:
    """Whether all are met, or how many; None where one has no reference."""
    if not verdicts or "no reference" in verdicts:
        return None
    return "yes" if set(verdicts) == {"yes"} else f"{verdicts.count('yes')} of {len(verdicts)}"
