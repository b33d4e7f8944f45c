"""Several forget sets in full: every method that can be refitted cheaply, on people of disjoint sets pooled.

One forget set has ten people, too few to tell methods apart. Directions, settings and strengths are those of the study;
gates, detector and LEACE are fitted and calibrated anew for each set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from eraser_lib.baselines.detector import EMBEDDING, RULES
from eraser_lib.baselines.leace import Leace
from eraser_lib.bench.people import Person
from eraser_lib.direction import Direction
from eraser_lib.eraser import Eraser
from eraser_lib.experiments import closed, curved, methods
from eraser_lib.experiments.lottery import Lottery, draws, fit_gate
from eraser_lib.experiments.sets import practice_people
from eraser_lib.experiments.study import Study
from eraser_lib.threshold import calibrate

METHODS = ("mllmeraser", "mllmeraser_published", "constant", "leace", "detector")
LATER = (curved.METHOD,)
"""Made after the tests of the others were seen, and no part of their family; as in `contest.LATER`."""


def disjoint_sets(study: Study, count: int, *, seed: int = 0) -> list[list[Person]]:
    """At most `count` random sets, as large as the 5 % split, of people on whom nothing practised.

    Some of them are asked about as kept people while settings are chosen, or calibrate the choice.
    """
    world = study.world
    practised = {person.id for group in practice_people(world, study.split) for person in group}
    practised |= set(world.population.dev)
    left = [person for person in world.population.of_kind("fictitious") if person.id not in practised]
    return draws(left, len(world.population.forget[5]), seed=seed)[:count]


def erase(
    own: Lottery, directions: Mapping[str, Direction], choice: Mapping[str, Any], scrubber: Leace,
    quadratic: methods.Decision,
) -> dict[str, Any]:  # fmt: skip
    """Method -> what attaches to the model, for one set.

    `own`: as `Lottery.erasing` leaves it, read at every block; `choice`: of 06_select; `scrubber`: of 09_closed;
    `quadratic`: of 18_quadratic.
    """
    push, decision = methods.Push(**choice["push"]), methods.Decision(**choice["decision"])
    forget, retain = (
        {site: values for site, values in rows.read.items() if site != EMBEDDING} for rows in (own.forget, own.retain)
    )
    calibration = {name: rows.read for name, rows in own.calibration.items()}
    known = dict(directions)

    def gated(decided: methods.Decision) -> Eraser:
        return methods.corrected(push, decided, fit_gate(own, decided), calibration, known, known["answer"])[0]

    return {
        "mllmeraser": gated(decision),
        curved.METHOD: gated(quadratic),
        "mllmeraser_published": methods.published(forget, retain, known["multimodal"], choice["published"]),
        "constant": methods.constant(replace(push, strength=choice["constant"]), known, known["answer"]),
        "leace": scrubber.fit(forget, retain, closed.names(own.forget.questions, scrubber.label)),
    }


def answers(
    study: Study, own: Lottery, erasers: Mapping[str, Any], reading: closed.Reading, rule: str, alpha: float
) -> pd.DataFrame:
    """Logs of vanilla, of `erasers` and of the detector about one set: `test` prompts about it, `retain` about others.

    `reading` and `rule` are those of the detector.
    """
    size = study.sizes.select
    unseen, kept = own.unseen.sample(size), own.kept.sample(size // 2)
    asked = [replace(question, subset="test") for question in unseen.questions]
    asked += [replace(question, subset="retain") for question in kept.questions]
    options = study.fluency()
    logs = {"vanilla": study.quick(asked, study.vanilla, **options)}
    for name, eraser in erasers.items():
        logs[name] = study.quick(asked, study.vanilla, context=study.attach(eraser), **options)
    detector = RULES[rule](*(closed.features(rows.read, reading) for rows in (own.forget, own.retain)))
    groups = {name: detector(closed.features(rows.read, reading)) for name, rows in own.calibration.items()}
    scores = torch.cat([detector(closed.features(rows.read, reading)) for rows in (unseen, kept)])
    logs["detector"] = closed.refused(logs["vanilla"], asked, scores, calibrate(groups, alpha).value, study)
    about: dict[str, Any] = {
        "preset": study.preset,
        "model": study.model,
        "split": str(study.split),
        "seed": study.seed,
    }
    return pd.concat([log.assign(method=name, **about) for name, log in logs.items()], ignore_index=True)


def find_scrubber(blocks: int, settings: str) -> Leace:
    """The LEACE map that notebook 09_closed names. `ValueError` where it is none of the grid."""
    found = {str(candidate): candidate for candidate in closed.scrubbers(blocks)}
    if settings not in found:
        raise ValueError(f"LEACE has no setting {settings}; run 09_closed again. It has {', '.join(found)}")
    return found[settings]


def by_person(logs: pd.DataFrame) -> pd.DataFrame:
    """Mean answer probability, refusals and gibberish per method, set, subset and person."""
    keys = ["method", "set", "subset", "person"]
    values = ["answer_prob", "refusal", "gibberish"]
    return logs.astype(dict.fromkeys(values, float)).groupby(keys, sort=False)[values].mean().reset_index()


def numbered(logs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The logs of several sets in one table, each question with its set, since kept people are asked in all of them."""
    return pd.concat(
        [log.assign(set=number, id=[f"{number}/{name}" for name in log["id"]]) for number, log in enumerate(logs)],
        ignore_index=True,
    )
