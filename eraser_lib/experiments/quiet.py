"""What must go on speaking, with more people to forget: the form that speaks at 5 %, at 10 and 15 %.

The dev people are ten, so a setting for twenty or thirty cannot be searched anew: the one that notebook 08_fluent found
is trained on them. How long is read twice, at as many steps as at 5 % and at as many passes over the forget rows, since
it may babble after the second and not after the first. LEACE needs no training, and has a search of its own at every
share: its maps are read with the floor of fluency, best first, until one speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from eraser_lib.baselines.training import TrainConfig, unlearn
from eraser_lib.bench.records import Question
from eraser_lib.experiments import closed, fluent, trained
from eraser_lib.experiments.activations import of_questions
from eraser_lib.experiments.dev import DevRows, open_rows
from eraser_lib.experiments.pooled import find_scrubber
from eraser_lib.experiments.sets import fit_sets, stratified, test_sets
from eraser_lib.experiments.study import Study
from eraser_lib.families import Loaded

SUBSETS = ("test", "retain")
"""What `contest.trade` reads: unseen prompts about the forgotten, and retained people."""


def stops(steps: int, split: int) -> dict[int, str]:
    """Steps of training -> what they keep of a choice at 5 %, `steps` or `passes`, for `split` per cent of people."""
    return {steps: "steps", steps * split // 5: "passes"}


def asked(study: Study) -> list[Question]:
    """The test questions of `SUBSETS`."""
    sets = test_sets(study.world, study.world_folder, study.split, size=study.sizes.test)
    return [question for name in SUBSETS for question in sets[name]]


def answers(
    study: Study, method: str, best: dict[str, Any], seeds: Sequence[int], *, lora: int = 0
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Train the people of the study's split away as `best` says, and ask at each of `stops`.

    Args:
        study: of the larger share.
        method: a trained baseline.
        best: `settings, lr, steps` of `fluent.choice` at 5 %.
        seeds: of the trainings.
        lora: as in the search.

    Returns:
        For each stop what it is (`kept_of_choice`, of `stops`, and `steps`) and the rows of a log of every seed, about
        `SUBSETS`.
    """
    questions, options = asked(study), {**study.fluency(), "truth_ratios": False}
    people = study.world.roles(study.split)["forget"]
    fit = fit_sets(study.world, study.split, forget=people, per_person=study.sizes.per_person)
    forget = stratified(fit["forget"], study.sizes.train * study.split // 5)
    objective = trained.objective(method, best["settings"], lora=lora)
    places = stops(best["steps"], study.split)
    logs: dict[int, list[pd.DataFrame]] = {step: [] for step in places}
    for seed in seeds:

        def look(step: int, model: Loaded, seed: int = seed) -> bool:
            if step in places:
                log = study.quick(questions, model, **options)
                logs[step].append(log.assign(model=study.model, method=method, split=str(study.split), seed=seed))
            return step == max(places)

        config = TrainConfig(lr=best["lr"], steps=max(places), seed=seed)
        unlearn(study.vanilla, forget, fit["retain"], objective, config, watch=look)
    return [
        ({"kept_of_choice": places[step], "steps": step}, pd.concat(found, ignore_index=True))
        for step, found in logs.items()
    ]


def scrubbed(dev: DevRows, tuned: pd.DataFrame, *, limit: float = fluent.LIMIT) -> pd.DataFrame:
    """LEACE's maps of 09_closed on the dev people again, best first, with the floor, until one does not babble.

    `tuned`: its rows. Returns the maps tried, in order: `settings, speaks` and the columns of `DevRows.score`.
    """
    study = dev.study
    rows: list[dict[str, Any]] = []
    read = of_questions(study.vanilla, dev.fit)
    options = {**study.fluency(), "truth_ratios": False}
    quiet = tuned[tuned[["gibberish", "kept_gibberish"]].max(axis=1) <= limit]  # the floor only adds to the babble
    for settings in quiet.sort_values("score", ascending=False, kind="stable")["settings"].head(fluent.TRIES):
        scrubber = find_scrubber(len(read["retain"]), settings)
        made = scrubber.fit(read["forget"], read["retain"], closed.names(dev.fit["forget"], scrubber.label))
        score = dev.score(context=dev.attach(made), **options)
        speaks = max(score["gibberish"], score["kept_gibberish"]) <= limit
        rows.append({"settings": settings, "speaks": speaks, **score})
        if speaks:
            break
    return pd.DataFrame(rows)


def scrub(study: Study, settings: str) -> pd.DataFrame:
    """The rows of a log of the LEACE map of those settings, about `SUBSETS`."""
    people = study.world.roles(study.split)["forget"]
    fit = fit_sets(study.world, study.split, forget=people, per_person=study.sizes.per_person)
    read = of_questions(study.vanilla, fit)
    scrubber = find_scrubber(len(read["retain"]), settings)
    made = scrubber.fit(read["forget"], read["retain"], closed.names(fit["forget"], scrubber.label))
    options = {**study.fluency(), "truth_ratios": False}
    log = study.quick(asked(study), study.vanilla, context=lambda: made.attach(study.vanilla.model), **options)
    return log.assign(model=study.model, method="leace", split=str(study.split), seed=0)


def found(study: Study, method: str, seeds: Sequence[int], *, limit: float, lora: int = 0) -> dict[str, Any]:
    """What is to be noted of a method at the study's share, in the form of notebook 08_fluent.

    Keys `method, limit, tried, choice, rows`; `rows` are those of `fluent.outcome` with `kept_of_choice` and `steps`
    of each stop, none where no point speaks. Reads the note of 08_fluent at 5 %, and of 09_closed for LEACE.
    `ValueError` for a training at 5 %, of which 08_fluent says everything.
    """
    tried: list[dict[Any, Any]] = []
    logs: list[tuple[dict[str, Any], pd.DataFrame]] = []
    choice: dict[str, Any] | None = None
    if method == "leace":
        tuned = pd.DataFrame(study.read_note("closed", made_by=f"notebook 09_closed for {study.model}")["leace"])
        tried = scrubbed(open_rows(study), tuned, limit=limit).to_dict("records")
        if tried and tried[-1]["speaks"]:
            choice = {"settings": tried[-1]["settings"], "lr": None, "steps": None}
            logs = [({"kept_of_choice": None, "steps": None}, scrub(study, choice["settings"]))]
    elif study.split == 5:
        raise ValueError(f"at 5 % notebook 08_fluent trains {method} and notes what it found; run that one")
    else:
        first = replace(study, split=5)
        note = first.read_note(f"fluent_{method}", made_by=f"notebook 08_fluent for {study.model} and {method}")
        choice = note["choice"]
        if choice is not None:
            logs = answers(study, method, choice, seeds, lora=lora)
    rows = [{**about, **row} for about, log in logs for row in fluent.outcome(log).to_dict("records")]
    return {"method": method, "limit": limit, "tried": tried, "choice": choice, "rows": rows}
