"""What the searches of trained baselines did not look at: neighbours of the choice at the rate of the choice.

A search goes on along a weight while a neighbour of the best has been tried at no rate (`trained.tune`). One that was
tried at another rate alone counts as seen there, although the best may lie elsewhere at this one. Here each such
neighbour is trained as in the search; and where a weight is a brake on climbing and the search went along one axis at a
time, it is followed to its best at each of the rates that a search begins with, and the best to rates beside it, since
a larger rate wants a larger brake. Nothing is chosen from it: the settings of the tables stand.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from eraser_lib.experiments import trained
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.study import Study
from eraser_lib.experiments.trained import OBJECTIVES, RATES, START, STOPS, beside, ladder, objective, watched
from eraser_lib.study.kept import kept

ACROSS = ("kl_min",)
"""Methods that climb on what is to be forgotten, are held back by one weight, and are not `trained.AT_EVERY_RATE`."""


def searched(study: Study, method: str) -> pd.DataFrame | None:
    """Rows of the search of a method, best first; `None` where it was not searched."""
    first = replace(study, split=5)
    if not first.figure(f"tuning-{method}").with_suffix(".json").is_file():
        return None
    return pd.DataFrame(first.read_note(f"tuning-{method}", made_by=f"notebook 08_tune for {method}")["rows"])


def untried(method: str, rows: pd.DataFrame, *, lora: int = 0) -> list[tuple[str, float]]:
    """Settings and rates beside the best, on a line of `trained.LADDERS` at its rate, which were not trained there.

    For a method of `ACROSS` also those beside the best at each rate of `trained.START`, and the rates beside the best.
    """
    looks = rows.to_dict("records")
    best = max(looks, key=lambda look: float(look["score"]))
    lines = [[str(one) for one in line] for line in ladder(method, lora=lora)]
    leaders, found = [best], []
    if method in ACROSS:
        own = [[look for look in looks if look["lr"] == rate] for rate in START]
        leaders += [max(at_rate, key=lambda look: float(look["score"])) for at_rate in own if at_rate]
        tried = {look["lr"] for look in looks if look["settings"] == best["settings"]}
        found = [(best["settings"], rate) for rate in beside(RATES, best["lr"]) if rate not in tried]
    for leader in leaders:
        found += [(one, leader["lr"]) for one in trained.untried(looks, leader, lines, at_its_rate=True)]
    return list(dict.fromkeys(found))


def looked_beside(study: Study, dev: DevRows, *, lora: int = 0) -> pd.DataFrame:
    """The best look at each point that was `untried`, after a row for the choice that it lies beside.

    Columns: `method, chosen` (the choice itself), and those of `trained.watched`. One training each, as in the search;
    of `ACROSS` as many as it takes until nothing better lies beside. A job that was stopped goes on after its last
    training.
    """
    found: list[dict[Any, Any]] = []
    for method in OBJECTIVES:
        rows = searched(study, method)
        if rows is None or not untried(method, rows, lora=lora):
            continue
        best = rows.iloc[0].to_dict()
        stops = STOPS if study.strict else (int(best["steps"]),)
        found.append({"method": method, "chosen": True, **best})
        while points := untried(method, rows, lora=lora):
            for settings, rate in points:
                train = partial(watched, dev, objective(method, settings, lora=lora), rate, stops)
                looks = kept(f"{settings} at {rate:g}", train)
                rows = pd.concat([rows, pd.DataFrame(looks)], ignore_index=True)
                found.append({"method": method, "chosen": False, **max(looks, key=lambda look: float(look["score"]))})
            if method not in ACROSS:
                break
    return pd.DataFrame(found, columns=None if found else ["method", "chosen", "settings", "lr", "score"])


def best_beside(table: pd.DataFrame) -> pd.DataFrame:
    """Of `looked_beside`, each choice and the best that was found beside it."""
    places = table.groupby(["method", "chosen"], sort=False)["score"].idxmax()
    return table.loc[sorted(places)].reset_index(drop=True)
