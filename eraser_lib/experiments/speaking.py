"""What 08_fluent and 08_quiet found, in one table; apart from `experiments.fluent`: comparing imports no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from eraser_lib.experiments.study import Study

COLUMNS = ["model", "method", "form", "settings", "lr", "steps", "tried", "gone", "kept", "refused", "gibberish"]
FORMS = {"steps": "speaking, as many steps", "passes": "speaking, as many passes"}
"""What a setting that was found at 5 % keeps where more people are forgotten, see `quiet.stops`."""


def collected(studies: Sequence[Study], points: pd.DataFrame) -> pd.DataFrame:
    """What was found for each model and method at one share, beside the method's best setting of all.

    Args:
        studies: one per model, of one split.
        points: `contest.trade` of the studies' logs.

    Returns:
        Columns `model, method`, `form` ("best", "speaking" or one of `FORMS`), `settings, lr, steps`, `tried` (points
        read again on the dev people), and those of `contest.trade`. A method of which no point speaks has its best form
        alone.
    """
    rows: list[dict[str, Any]] = []
    for study in studies:
        for path in sorted(study.figure("x").parent.glob("fluent_*.json")):
            found = study.read_note(path.stem, made_by="notebook 08_fluent")
            method, tried = found["method"], {"tried": len(found["tried"])}
            best = points[(points["model"] == study.model) & (points["method"] == method)]
            rows += [{**row, **_best(study, method), **tried, "form": "best"} for row in best.to_dict("records")]
            for row in found["rows"]:
                form = FORMS.get(row.get("kept_of_choice"), "speaking")
                rows.append({**found["choice"], **row, **tried, "form": form})
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def _best(study: Study, method: str) -> dict[str, Any]:
    """The best setting of all: that of the share for LEACE, for trainings the one that was found at 5 %."""
    if method == "leace":
        closed = study.read_note("closed", made_by=f"notebook 09_closed for {study.model}")
        return {"settings": closed["choice"]["leace"], "lr": None, "steps": None}
    first = replace(study, split=5)
    tuned = first.read_note(f"tuning-{method}", made_by=f"notebook 08_tune for {study.model} and {method}")
    best: dict[str, Any] = tuned["choice"]["best"]
    return {**best, "steps": best["steps"] * study.split // 5}
