"""Trained baselines: their grids, and the choice of hyper-parameters on the dev people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from eraser_lib.baselines.ga import GA
from eraser_lib.baselines.ga_diff import GADiff
from eraser_lib.baselines.idk import Idk
from eraser_lib.baselines.kl_min import KLMin
from eraser_lib.baselines.mmunlearner import MMUnlearner
from eraser_lib.baselines.npo import NPO
from eraser_lib.baselines.rmu import RMU
from eraser_lib.baselines.training import Objective, TrainConfig, unlearn
from eraser_lib.baselines.undial import Undial
from eraser_lib.experiments.selection import Dev
from eraser_lib.experiments.sets import dev_questions, fit_sets, kept_select_questions, stranger_questions, stratified
from eraser_lib.experiments.study import Study

OBJECTIVES: dict[str, tuple[Objective, ...]] = {
    "ga": (GA(),),
    "ga_diff": (GADiff(0.5), GADiff(1.0), GADiff(2.0)),
    "kl_min": (KLMin(0.5), KLMin(1.0), KLMin(2.0)),
    "npo": tuple(NPO(beta, 1.0) for beta in (0.05, 0.1, 0.2, 0.5)),
    "idk": (Idk(lam=0.5), Idk(lam=1.0), Idk(lam=2.0)),
    "undial": tuple(Undial(gamma, lam) for gamma in (3.0, 10.0, 30.0) for lam in (0.0, 1.0)),
    "rmu": tuple(RMU(layer, scale, alpha) for layer in (1, 3) for scale in (2.0, 8.0) for alpha in (1.0, 10.0)),
    "mmunlearner": tuple(MMUnlearner(threshold) for threshold in (0.5, 1.0, 2.0)),
}
"""Method -> the hyper-parameters tried, each at every learning rate."""
BABBLE = 0.05
"""A share of gibberish above this, on dev or on kept rows, counts as collapse."""


def objectives(method: str) -> tuple[Objective, ...]:
    """The grid of a method. `ValueError` for a method that is not trained, with the names of those that are."""
    if method not in OBJECTIVES:
        raise ValueError(f"method is {method!r}; trained baselines are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[method]


def open_dev(study: Study) -> Dev:
    """The dev people as a trained baseline needs them: rows to train on and to be judged by, no activations."""
    people = study.world.population.by_id(study.world.population.dev)
    fit = fit_sets(study.world, study.split, forget=people, per_person=study.sizes.per_person)
    forget = dev_questions(study.world_folder, people, size=study.sizes.select)
    kept = kept_select_questions(study.world, study.split, size=study.sizes.select)
    strangers = stranger_questions(study.world_folder, size=study.sizes.select)
    sets = {"dev": forget, "kept": kept, "stranger": strangers}
    baseline = {name: float(study.quick(rows, study.vanilla)["answer_prob"].mean()) for name, rows in sets.items()}
    return Dev(study, {}, fit, {}, forget, kept, baseline, [])


def tune(dev: Dev, grid: Sequence[Objective], rates: Sequence[float], *, first: int = 3) -> pd.DataFrame:
    """Train the grid on the dev people, one epoch each, and score it.

    Every objective is tried at the `first` rates in the middle of `rates`. The best one then at all others, so that its
    curve runs from no effect to collapse.

    Columns: `objective` (place in the grid), `settings`, `lr`, `edge` (the rate is the first or last), `collapsed`,
    `seconds`, and those of `Dev.score`, best first. A method's best point that has not collapsed is the first row
    where `collapsed` is false.
    """
    forget = stratified(dev.fit["forget"], dev.study.sizes.train)

    def tried(place: int, rate: float) -> dict[str, Any]:
        config = TrainConfig(lr=rate, seed=dev.study.seed)
        trained = unlearn(dev.study.vanilla, forget, dev.fit["retain"], grid[place], config)
        score = dev.score(loaded=trained.loaded)
        return {
            "objective": place, "settings": str(grid[place]), "lr": rate, "edge": rate in (rates[0], rates[-1]),
            "collapsed": max(score["gibberish"], score["kept_gibberish"]) > BABBLE,
            "seconds": trained.seconds, **score,
        }  # fmt: skip

    start = max(0, len(rates) - first + 1) // 2
    middle = rates[start : start + first]
    rows = [tried(place, rate) for place in range(len(grid)) for rate in middle]
    best = max(rows, key=lambda row: row["score"])["objective"]
    rows += [tried(best, rate) for rate in rates if rate not in middle]
    return pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable", ignore_index=True)


def choice(table: pd.DataFrame, *, fluent: bool = False) -> dict[str, Any] | None:
    """Objective and rate of the best row of `tune`, or of the best that has not collapsed (`None` if all have)."""
    rows = table[~table["collapsed"]] if fluent else table
    return None if rows.empty else {"objective": int(rows.iloc[0]["objective"]), "lr": float(rows.iloc[0]["lr"])}


def read_choice(study: Study, method: str) -> dict[str, Any]:
    """What notebook 08_tune chose for this model. `FileNotFoundError` where it has not run."""
    path = replace(study, split=5).figure(f"tuning-{method}").with_suffix(".json")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run notebook 08_tune for {study.model} and {method} first")
    found: dict[str, Any] = json.loads(path.read_text())["choice"]["best"]
    return found
