"""Past the edges of the searches: what a second pass would give, and NPO a retain weight beside that of its grid.

The same people, and the settings that were chosen. Nothing is chosen here: what was found after the tables cannot go
into them, but a reader should know what the searches held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from eraser_lib.baselines.low_rank import LowRank
from eraser_lib.baselines.npo import NPO
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.study import Study
from eraser_lib.experiments.trained import OBJECTIVES, objective, watched
from eraser_lib.study.kept import kept

PASSES = (1.0, 1.5, 2.0)
"""Multiples of the budget after which a training is looked at."""
WEIGHTS = (0.5, 2.0, 4.0, 8.0)
"""Retain weights of NPO. Its search varies beta alone, with a weight of 1, the largest of the published grid."""


def at_the_end(study: Study) -> pd.DataFrame:
    """Best row of the search of each method, `method, settings, lr, steps, score`, where it used up the budget.

    Methods that were not searched are left out.
    """
    first = replace(study, split=5)
    found = []
    for method in OBJECTIVES:
        if first.figure(f"tuning-{method}").with_suffix(".json").is_file():
            rows = first.read_note(f"tuning-{method}", made_by=f"notebook 08_tune for {method}")["rows"]
            if rows[0]["steps"] == max(row["steps"] for row in rows):
                found.append({"method": method, **rows[0]})
    return pd.DataFrame(found, columns=["method", "settings", "lr", "steps", "score"])


def trained_on(dev: DevRows, best: pd.DataFrame, *, lora: int = 0) -> pd.DataFrame:
    """Train each method of `at_the_end` by its best setting for two passes.

    The part up to the budget is the search's training but for the retain rows that are drawn. One that falls behind its
    best by `trained.DROP` ends. A job that was stopped goes on after its last training.

    Columns: `method, passes` and those of `trained.watched`, a row for each look.
    """
    tables = [pd.DataFrame(columns=["method", "passes", "score"])]
    for row in best.to_dict("records"):
        passes = {round(row["steps"] * times): times for times in PASSES}
        loss = objective(row["method"], row["settings"], lora=lora)
        train = partial(watched, dev, loss, row["lr"], list(passes), epochs=round(PASSES[-1]))
        table = pd.DataFrame(kept(row["method"], train))
        tables.append(table.assign(method=row["method"], passes=table["steps"].map(passes)))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def weighed(study: Study, dev: DevRows, weights: Sequence[float] = WEIGHTS, *, lora: int = 0) -> pd.DataFrame:
    """NPO by its best setting with other retain weights, one training each as in the search.

    Columns: `weight` and those of `trained.watched`: the best look of each weight, that of the search first.
    """
    note = replace(study, split=5).read_note("tuning-npo", made_by="notebook 08_tune for npo")
    tuned = pd.DataFrame(note["rows"])
    best = tuned.iloc[0].to_dict()
    beside = tuned[(tuned["settings"] == best["settings"]) & (tuned["lr"] == best["lr"])]
    found = objective("npo", str(best["settings"]))
    if not isinstance(found, NPO):
        raise TypeError(f"the setting of NPO is {found}")
    rows: list[dict[Any, Any]] = [{"weight": found.lam, **best}]
    for weight in weights:
        loss = replace(found, lam=weight)
        train = partial(
            watched, dev, LowRank(loss, lora) if lora else loss, float(best["lr"]), sorted(beside["steps"].tolist())
        )
        top = max(kept(f"weight {weight:g}", train), key=lambda look: float(look["score"]))
        rows.append({"weight": weight, **dict(top)})
    return pd.DataFrame(rows)


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per method of `trained_on`: what its best look has over the one at the budget.

    Columns: `method, settings, lr`; `score, forget_prob, kept_prob` at the budget; `best_passes`, and the same and
    `collapsed` there under names that begin with `best_`; `gain` of the score; `last`, passes at its last look.
    """
    measures = ["score", "forget_prob", "kept_prob"]
    table = []
    for method, own in rows.groupby("method", sort=False):
        looks = own.to_dict("records")
        budget, best = looks[0], max(looks, key=lambda look: float(look["score"]))
        table.append({
            "method": method, "settings": budget["settings"], "lr": budget["lr"],
            **{name: budget[name] for name in measures}, "best_passes": best["passes"],
            **{f"best_{name}": best[name] for name in (*measures, "collapsed")},
            "gain": best["score"] - budget["score"], "last": looks[-1]["passes"],
        })  # fmt: skip
    return pd.DataFrame(table)
