"""What notebook 08_fluent found, in one table; apart from `experiments.fluent`: comparing imports no training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from eraser_lib.experiments.study import Study

COLUMNS = ["model", "method", "form", "settings", "lr", "steps", "tried", "gone", "kept", "refused", "gibberish"]


def collected(studies: Sequence[Study], points: pd.DataFrame) -> pd.DataFrame:
    """What notebook 08_fluent found for each model and method, beside the method's best setting of all.

    Args:
        studies: one per model, of one split. At other shares than 5 % the methods have no form that speaks.
        points: `contest.trade` of the studies' logs.

    Returns:
        Columns `model, method`, `form` ("best" or "speaking"), `settings, lr, steps`, `tried` (points trained again),
        and those of `contest.trade`. A method of which 08_fluent found that no point speaks has its best form alone.
    """
    rows: list[dict[str, Any]] = []
    for study in studies:
        for path in sorted(study.figure("x").parent.glob("fluent_*.json")):
            found = study.read_note(path.stem, made_by="notebook 08_fluent")
            method = found["method"]
            tuned = study.read_note(f"tuning-{method}", made_by=f"notebook 08_tune for {study.model} and {method}")
            best = points[(points["model"] == study.model) & (points["method"] == method)]
            tried = {"tried": len(found["tried"])}
            rows += [{**row, **tuned["choice"]["best"], **tried, "form": "best"} for row in best.to_dict("records")]
            rows += [{**row, **found["choice"], **tried, "form": "speaking"} for row in found["rows"]]
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)
