"""A trained baseline that has to go on speaking: its best training that does not babble, by the rule of the tables.

The search (`experiments.trained.tune`) counts babble before the floor of likelihood is known, so that what it calls
fluent may read as gibberish in the tables. Here its points are trained on the dev people again, best first, and read
with the floor, until one speaks. That one then erases the forgotten people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from eraser_lib.baselines.training import Objective, TrainConfig, Trained, unlearn
from eraser_lib.bench.records import Question
from eraser_lib.experiments import contest, trained
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.sets import fit_sets, stratified, test_sets
from eraser_lib.experiments.study import Study
from eraser_lib.families import Loaded

LIMIT = 0.1
"""A larger share of gibberish about the dev people, or about kept ones, is babbling. Twice what the search allows,
since the floor counts guesses too: of what retain-only says about people it never met, up to a tenth falls below."""
TRIES = 40
"""So many points of the search are read again at most; those of one training together."""


def candidates(tuned: pd.DataFrame, limit: float = LIMIT) -> pd.DataFrame:
    """Points of `trained.tune` that may speak, best first: the floor only adds to the babble that the search saw.

    Of settings that ended alike in every number (a weight that no longer matters) the first is kept.
    """
    table = tuned[tuned[["gibberish", "kept_gibberish"]].max(axis=1) <= limit]
    table = table.sort_values("score", ascending=False, kind="stable")
    return table.drop_duplicates(["lr", "steps", "score", "forget_prob"], ignore_index=True)


def speaking(
    dev: DevRows, tuned: pd.DataFrame, method: str, fluency: Mapping[str, Any], *, limit: float = LIMIT, lora: int = 0
) -> pd.DataFrame:
    """Train the search's points again until one does not babble by the rule of the tables.

    Args:
        dev: the dev people.
        tuned: what `trained.tune` found for the method.
        fluency: options of `Study.fluency`.
        limit: largest share of gibberish, about the dev people and about kept ones.
        lora: as in the search.

    Returns:
        The points tried, in order: `settings, lr, steps`, `searched` (gibberish about the dev people as the search
        counted it), `speaks`, and the columns of `DevRows.score`. Only the last may speak; empty where every point of
        the search babbles.
    """
    points = candidates(tuned, limit).head(TRIES).to_dict("records")
    stops: dict[tuple[str, float], list[int]] = {}
    for point in points:
        stops.setdefault((point["settings"], point["lr"]), []).append(point["steps"])
    seen: dict[tuple[str, float, int], dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    for point in points:
        settings, lr, steps = found = point["settings"], point["lr"], point["steps"]
        if found not in seen:
            objective = trained.objective(method, settings, lora=lora)
            read = _read(dev, objective, lr, stops[settings, lr], fluency)
            seen |= {(settings, lr, step): score for step, score in read.items()}
        score = seen[found]
        speaks = max(score["gibberish"], score["kept_gibberish"]) <= limit
        chosen = {"settings": settings, "lr": lr, "steps": steps}
        rows.append({**chosen, "searched": point["gibberish"], "speaks": speaks, **score})
        if speaks:
            break
    return pd.DataFrame(rows)


def _read(
    dev: DevRows, objective: Objective, lr: float, stops: Sequence[int], fluency: Mapping[str, Any]
) -> dict[int, dict[str, float]]:
    """One training on the dev people, scored with the floor at each of the stops."""
    found: dict[int, dict[str, float]] = {}

    def look(step: int, model: Loaded) -> bool:
        if step in stops:
            found[step] = dev.score(loaded=model, **{**fluency, "truth_ratios": False})
        return step == max(stops)

    forget = stratified(dev.fit["forget"], dev.study.sizes.train)
    config = TrainConfig(lr=lr, steps=max(stops), seed=dev.study.seed)
    unlearn(dev.study.vanilla, forget, dev.fit["retain"], objective, config, watch=look)
    return found


def choice(tried: pd.DataFrame) -> dict[str, Any] | None:
    """Settings, rate and steps of the point that speaks; `None` where none does."""
    if tried.empty or not tried.iloc[-1]["speaks"]:
        return None
    last = tried.iloc[-1]
    return {"settings": str(last["settings"]), "lr": float(last["lr"]), "steps": int(last["steps"])}


def erase(study: Study, objective: Objective, lr: float, steps: int, seed: int) -> Trained:
    """Train the forgotten people of the study's split away, as notebook 08_trained does."""
    fit = fit_sets(
        study.world, study.split, forget=study.world.roles(study.split)["forget"], per_person=study.sizes.per_person
    )
    forget = stratified(fit["forget"], study.sizes.train * study.split // 5)
    return unlearn(study.vanilla, forget, fit["retain"], objective, TrainConfig(lr=lr, steps=steps, seed=seed))


def answers(study: Study, method: str, best: Mapping[str, Any], seeds: Sequence[int], *, lora: int = 0) -> pd.DataFrame:
    """The rows of a log of every seed, on all test sets: `best` as from `choice`."""
    questions: list[Question] = [
        question
        for rows in test_sets(study.world, study.world_folder, study.split, size=study.sizes.test).values()
        for question in rows
    ]
    options = {**study.fluency(), "truth_ratios": False}
    objective = trained.objective(method, best["settings"], lora=lora)
    logs = []
    for seed in seeds:
        done = erase(study, objective, best["lr"], best["steps"], seed)
        log = study.quick(questions, done.loaded, **options)
        logs.append(log.assign(model=study.model, method=method, split=str(study.split), seed=seed))
    return pd.concat(logs, ignore_index=True)


def outcome(log: pd.DataFrame) -> pd.DataFrame:
    """One row with the columns of `contest.trade`, and `recalled`: share of open answers with the fact."""
    test = log[(log["subset"] == "test") & (log["task"] == "generation")]
    return contest.trade(log).assign(recalled=float(test["fact_recall"].astype(float).mean()))


def said(log: pd.DataFrame, count: int = 12) -> pd.DataFrame:
    """Some open answers about the forgotten people, at even distances; empty for an empty log."""
    if log.empty:
        return log
    own = log[(log["subset"] == "test") & (log["task"] == "generation")]
    return own[["modality", "attribute", "answer", "output", "gibberish"]].iloc[:: max(1, len(own) // count)]
