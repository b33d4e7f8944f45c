"""What the searches of trained baselines did not look at: neighbours of the choice at the rate of the choice.

A search goes on along a weight while a neighbour of the best has been tried at no rate (`trained.tune`). One that was
tried at another rate alone counts as seen there, although the best may lie elsewhere at this one; methods that are
`trained.AT_EVERY_RATE` have no such neighbour. Here each is trained as in the search. Nothing is chosen from it: the
settings of the tables stand.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from eraser_lib.experiments import trained
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.study import Study
from eraser_lib.experiments.trained import OBJECTIVES, STOPS, ladder, objective, watched
from eraser_lib.study.kept import kept


def searched(study: Study, method: str) -> pd.DataFrame | None:
    """Rows of the search of a method, best first; `None` where it was not searched."""
    first = replace(study, split=5)
    if not first.figure(f"tuning-{method}").with_suffix(".json").is_file():
        return None
    return pd.DataFrame(first.read_note(f"tuning-{method}", made_by=f"notebook 08_tune for {method}")["rows"])


def untried(method: str, rows: pd.DataFrame, *, lora: int = 0) -> list[str]:
    """Settings beside the best on a line of `trained.LADDERS` which were not trained at the rate of the best."""
    looks = rows.to_dict("records")
    lines = [[str(one) for one in line] for line in ladder(method, lora=lora)]
    return trained.untried(looks, looks[0], lines, at_its_rate=True)


def looked_beside(study: Study, dev: DevRows, *, lora: int = 0) -> pd.DataFrame:
    """The best look at each neighbour that was `untried`, after a row for the choice that it lies beside.

    Columns: `method, chosen` (the choice itself), and those of `trained.watched`. One training each, as in the search.
    A job that was stopped goes on after its last training.
    """
    found: list[dict[Any, Any]] = []
    for method in OBJECTIVES:
        rows = searched(study, method)
        beside = [] if rows is None else untried(method, rows, lora=lora)
        if rows is None or not beside:
            continue
        best = rows.iloc[0].to_dict()
        stops = STOPS if study.strict else (int(best["steps"]),)
        found.append({"method": method, "chosen": True, **best})
        for settings in beside:
            train = partial(watched, dev, objective(method, settings, lora=lora), float(best["lr"]), stops)
            top = max(kept(f"{settings} at {best['lr']:g}", train), key=lambda look: float(look["score"]))
            found.append({"method": method, "chosen": False, **top})
    return pd.DataFrame(found, columns=None if found else ["method", "chosen", "settings", "lr", "score"])


def best_beside(table: pd.DataFrame) -> pd.DataFrame:
    """Of `looked_beside`, each choice and the best that was found beside it."""
    places = table.groupby(["method", "chosen"], sort=False)["score"].idxmax()
    return table.loc[sorted(places)].reset_index(drop=True)
