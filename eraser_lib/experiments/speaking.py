"""What notebook 08_fluent found, in one table; apart from `experiments.fluent`: comparing imports no training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from eraser_lib.experiments.study import Study


def collected(study: Study, points: pd.DataFrame) -> pd.DataFrame:
    """What notebook 08_fluent found for each method, beside the method's best setting of all.

    Args:
        study: model and split.
        points: `contest.trade` of the study's logs.

    Returns:
        Columns `method`, `form` ("best" or "speaking"), `settings, lr, steps`, `tried` (points trained again), and
        those of `contest.trade`. A method of which 08_fluent found that no point speaks has its best form alone.
    """
    rows: list[dict[str, Any]] = []
    smallest = replace(study, split=5)
    for path in sorted(smallest.figure("x").parent.glob("fluent_*.json")):
        found = smallest.read_note(path.stem, made_by="notebook 08_fluent")
        method = found["method"]
        tuned = smallest.read_note(f"tuning-{method}", made_by=f"notebook 08_tune for {study.model} and {method}")
        best = points[(points["model"] == study.model) & (points["method"] == method)]
        tried = {"tried": len(found["tried"])}
        rows += [{**row, **tuned["choice"]["best"], **tried, "form": "best"} for row in best.to_dict("records")]
        rows += [{**row, **found["choice"], **tried, "form": "speaking"} for row in found["rows"]]
    return pd.DataFrame(rows)
