"""How strong a push, and how strong an attack behind the direction? Nothing is chosen here.

Both are measured on the forgotten people's test prompts, afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from eraser_lib import Direction, Eraser
from eraser_lib.bench.people import Person
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.refusal import RefusalDetector
from eraser_lib.experiments import directions as dirs
from eraser_lib.experiments.ablate_push import pushed
from eraser_lib.experiments.methods import Push
from eraser_lib.experiments.outcomes import outcomes, over_people
from eraser_lib.experiments.study import Study
from eraser_lib.study.paths import read_json

FORMS = ("mllmeraser", "mllmeraser_published", "constant")
TIMES = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the strength that was chosen for a form."""
STRENGTHS = (1.0, 2.0, 4.0)
"""At which a direction is tried."""
BARELY = 1e-3
"""Radius in 255ths that rounding to 8 bits takes back: pictures as they are."""


def forms(study: Study) -> dict[str, Eraser]:
    """The erasers of notebook 06_erase."""
    return {name: Eraser.from_pretrained(study.artifact(name), model=study.vanilla.model) for name in FORMS}


def by_strength(
    study: Study, erasers: Mapping[str, Eraser], sets: Mapping[str, Sequence[Question]], times: Sequence[float] = TIMES
) -> pd.DataFrame:
    """Every eraser, gate and all, at multiples of its own strength: one row per answer, see `outcomes.outcomes`.

    `sets`: questions, `test` about the forgotten and `retain` about others. Further columns: `set, method, times,
    strength`.
    """
    rows = []
    options = study.fluency()
    for method, eraser in erasers.items():
        for factor in times:
            changed = eraser.with_(strength=factor * eraser.strength)
            about: dict[str, str | float] = {"method": method, "times": factor, "strength": changed.strength}
            for name, questions in sets.items():
                log = study.quick(list(questions), study.vanilla, context=study.attach(changed), **options)
                rows.append(
                    outcomes(log, questions, set=name, **about).assign(any_refusal=log["refusal"].astype(float))
                )
    return pd.concat(rows, ignore_index=True)


def strengths_told(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares of `by_strength`, with intervals over people.

    Columns: `method, times, strength`; `gone` and `kept`, probability of right answers about the forgotten and about
    others; of the forgotten `refused, recalled, gibberish`; `kept_refused`: share of the others' prompts that is
    refused.
    """
    by = ["method", "times", "strength"]
    test = over_people(rows[rows["set"] == "test"], by)
    retain = over_people(rows[rows["set"] == "retain"], by, ("answer_prob", "any_refusal"))
    names = {"answer_prob": "gone", **{name: name for name in ("refused", "recalled", "gibberish")}}
    table = test[by].copy()
    for own, called in ((test, names), (retain, {"answer_prob": "kept", "any_refusal": "kept_refused"})):
        for name, to in called.items():
            for end in ("", "_low", "_high"):
                table[to + end] = own[name + end]
    return table


def curve(study: Study) -> dict[str, pd.DataFrame]:
    """The corrected form from no effect on, `dial, gone, kept`, under its name; empty where nobody measured it."""
    path = study.figure("dose_strength").with_suffix(".json")
    if not path.exists():
        return {}
    rows = pd.DataFrame(read_json(path)["rows"])
    own = rows[rows["method"] == "mllmeraser"].sort_values("times")
    return {"mllmeraser": own.rename(columns={"strength": "dial"})[["dial", "gone", "kept"]]}


@dataclass(frozen=True)
class Attack:
    """How PGD pictures are made; lengths in 255ths of the pixel range. A radius of 0 leaves pictures as they are."""

    varied: str
    """`radius`, `steps` or `step`: what this attack is one value of."""
    radius: float = 16.0
    step: float = 2.0
    steps: int = 40


ATTACKS = (
    *(Attack("radius", radius, radius / 8) for radius in (0.0, 4.0, 8.0, 16.0, 32.0, 64.0, 255.0)),
    *(Attack("steps", steps=steps) for steps in (5, 10, 20, 40, 80)),
    *(Attack("step", step=step) for step in (0.5, 1.0, 2.0, 4.0, 8.0)),
)


def by_attack(
    study: Study, people: Sequence[Person], answered: Sequence[Question], push: Push, known: Direction,
    questions: Sequence[Question], attacks: Sequence[Attack] = ATTACKS, strengths: Sequence[float] = STRENGTHS,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """The paper's direction from pictures of each attack, at the blocks of `push` and without a gate.

    `people`: whose pictures are attacked; `answered`: questions that the contrasts besides pictures take; `known`: the
    direction of the study, with which each is compared; `questions`: what is asked under the push.

    Returns a table and the answers behind it, one row each, as of `ablate_push.pushed`.

    Columns: those of `Attack`; `loss_before` (at a random point of the ball) and `loss`, nats a token of the answer
    that is wanted; `answered`: share of the secret questions that are answered then; `cosine` with `known`, the mean
    over blocks; `strength`, with `refused, recalled, gibberish` and `answer_prob` and their intervals over people.
    """
    rows: list[dict[str, Any]] = []
    said: list[pd.DataFrame] = []
    done: dict[Attack, list[dict[str, Any]]] = {}
    for attack in attacks:
        same = replace(attack, varied="")
        if same not in done:  # the attack of the study is a value of all three
            done[same], answers = _tried(study, people, answered, push, known, questions, same, strengths)
            said.append(answers)
        rows += [{**row, "varied": attack.varied} for row in done[same]]
    return pd.DataFrame(rows), pd.concat(said, ignore_index=True)


def _tried(
    study: Study, people: Sequence[Person], answered: Sequence[Question], push: Push, known: Direction,
    questions: Sequence[Question], attack: Attack, strengths: Sequence[float],
) -> tuple[list[dict[str, Any]], pd.DataFrame]:  # fmt: skip
    size = attack.radius or BARELY
    recall = dirs.recall_images(
        study.vanilla, people, epsilon=size / 255, step=(attack.step if attack.radius else BARELY) / 255,
        steps=attack.steps if attack.radius else 1, seed=study.seed,
    )  # fmt: skip
    said = study.vanilla.generate(recall.adversarial)
    refuses = RefusalDetector()
    pair = dirs.direction_pairs(recall, answered)["multimodal"]
    (direction,) = dirs.fit_directions(study.vanilla, {"multimodal": pair})[0].values()
    about = {
        "radius": attack.radius, "step": attack.step, "steps": attack.steps if attack.radius else 0,
        "loss_before": float(recall.losses[0]), "loss": float(recall.losses[-1]),
        "cosine": float(direction.cosine(known)[list(push.layers)].mean()),
        "answered": sum(not refuses(text) for text in said) / len(said),
    }  # fmt: skip
    names = ("multimodal",)
    answers = pushed(study, questions, {"multimodal": direction}, push, names=names, strengths=strengths)
    table = over_people(answers, ["strength"])
    which = {name: about[name] for name in ("radius", "step", "steps")}
    return [{**about, **row} for row in table.to_dict("records")], answers.assign(**which)
