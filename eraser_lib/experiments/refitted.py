"""What changes weights, on the forget sets of notebook 13_pooled: the same sets and questions, one fit for each set.

Settings, rates and steps are those of the study. Ten people are few to tell methods apart; of the cheap methods
`experiments.pooled` asks forty, and here are the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from eraser_lib.baselines.training import TrainConfig, unlearn
from eraser_lib.bench.people import Person
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.summary import compare
from eraser_lib.experiments import closed, contest, pooled, rows, trained
from eraser_lib.experiments.lottery import Lottery, Rows
from eraser_lib.experiments.sets import dev_questions, fit_sets, person_rows, stratified, test_sets
from eraser_lib.experiments.study import Study
from eraser_lib.families import Loaded

Fit = Callable[[Sequence[Question], Sequence[Question]], Loaded]
"""Forget and retain rows -> the changed model."""
ABOUT = ("test", "retain")
METHODS = (*trained.OBJECTIVES, "manu")
KEEPS_TEXT = "mmunlearner"
"""What means to keep all that is known without a picture, and is to be judged on pictures."""


def questions(study: Study, people: Sequence[Person]) -> Lottery:
    """The rows of `lottery.open_lottery`, of which no activation is read, since weights are fitted on questions."""
    world, folder, split = study.world, study.world_folder, study.split
    per_person = study.sizes.per_person
    test = test_sets(world, folder, split, size=study.sizes.test)
    return Lottery(
        Rows(person_rows(people, "forget", "fit", rows=8 * per_person), {}),
        Rows(fit_sets(world, split, forget=world.roles(split)["forget"], per_person=per_person)["retain"], {}),
        Rows(dev_questions(folder, people, size=study.sizes.select * len(people)), {}),
        Rows(test["retain"] + test["celebrity"], {}),
        {},
    )


def asked(study: Study, own: Lottery) -> list[Question]:
    """What `pooled.answers` asks: `test` prompts about a set, `own` as `Lottery.erasing` leaves it, `retain` others."""
    size = study.sizes.select
    unseen, kept = own.unseen.sample(size).questions, own.kept.sample(size // 2).questions
    return [*(replace(one, subset="test") for one in unseen), *(replace(one, subset="retain") for one in kept)]


def fit_of(study: Study, method: str, *, seed: int = 0, lora: int = 0) -> tuple[Fit, str]:
    """How a method is fitted, and its settings in words: of 08_tune for a training, of 09_closed for MANU.

    `FileNotFoundError` where that notebook has not run; `ValueError` where its settings are none of the grid.
    """
    vanilla = study.vanilla
    if method == "manu":
        note = study.read_note("closed", made_by=f"notebook 09_closed for {study.model}")["choice"]["manu"]
        pruners = {str(one): one for one in closed.PRUNERS}
        if note not in pruners:
            raise ValueError(f"MANU has no setting {note}; run 09_closed again. It has {', '.join(pruners)}")
        return (lambda forget, retain: pruners[note].fit(vanilla, forget, retain).loaded), note
    choice = trained.read_choice(study, method)
    objective = trained.objective(method, choice["settings"], lora=lora)
    config = TrainConfig(lr=choice["lr"], steps=choice["steps"], seed=seed)

    def train(forget: Sequence[Question], retain: Sequence[Question]) -> Loaded:
        return unlearn(vanilla, stratified(forget, study.sizes.train), retain, objective, config).loaded

    return train, f"{objective}, rate {config.lr:g}, {config.steps} steps"


def answers(study: Study, method: str, fit: Fit, drawn: Sequence[Sequence[Person]]) -> pd.DataFrame:
    """Logs about each of the sets after it was erased, in one table with a column `set`."""
    everything = questions(study, [person for group in drawn for person in group])
    options = {**study.fluency(), "truth_ratios": False}
    logs = []
    for group in drawn:
        own = everything.erasing(group)
        log = study.quick(asked(study, own), fit(own.forget.questions, own.retain.questions), **options)
        about: dict[str, Any] = {
            "preset": study.preset,
            "model": study.model,
            "split": str(study.split),
            "seed": study.seed,
        }
        logs.append(log.assign(method=method, **about))
    return pooled.numbered(logs)


def together(study: Study) -> pd.DataFrame:
    """The rows of 13_pooled and of all that was refitted on its sets; empty where 13_pooled did not run."""
    names = ["pooled", *(f"pooled_{method}" for method in METHODS)]
    paths = [rows.path(study, name) for name in names]
    if not paths[0].exists():
        return pd.DataFrame()
    return pd.concat([pd.read_parquet(path) for path in paths if path.exists()], ignore_index=True)


def compared(logs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`trade`, what each method trades, and `tests` of each against the corrected form; `logs`: of `together`.

    Columns are those of `contest.trade` and of `evaluate.summary.compare`, with what the prompts are `about`: `test`
    (forgotten people, the primary measure) or `retain`; Holm over the methods of each. What was made after the others
    had been seen is in the trade alone. The same under `modalities` for prompts with a picture and without one, with a
    column `modality`; and under `pictures` the test of `KEEPS_TEXT` alone, on prompts with a picture. Empty for empty
    logs.
    """
    if logs.empty:
        return {}
    baselines = [name for name in logs["method"].unique() if name not in ("mllmeraser", *pooled.LATER)]
    tests = [
        compare(logs, method="mllmeraser", baselines=baselines, subsets=(about,)).assign(about=about) for about in ABOUT
    ]
    seen = logs[logs["modality"] == "vqa"]
    spared = [name for name in baselines if name == KEEPS_TEXT]
    pictures = [compare(seen, method="mllmeraser", baselines=spared, subsets=(one,)).assign(about=one) for one in ABOUT]
    parts = [contest.trade(own).assign(modality=modality) for modality, own in logs.groupby("modality", sort=False)]
    return {
        "trade": contest.trade(logs).sort_values("gone", ignore_index=True),
        "tests": pd.concat(tests, ignore_index=True),
        "modalities": pd.concat(parts, ignore_index=True).sort_values(["modality", "gone"], ignore_index=True),
        "pictures": pd.concat(pictures, ignore_index=True),
    }
