"""Chooses everything on the dev forget set: people who are erased for practice and never reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from eraser_lib import Direction, Eraser
from eraser_lib.bench.people import Person
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.separation import auc
from eraser_lib.experiments import gates
from eraser_lib.experiments.activations import Activations, join, of_questions
from eraser_lib.experiments.dev import DevRows, open_rows
from eraser_lib.experiments.methods import Decision, Push, constant, corrected, published
from eraser_lib.experiments.sets import calibration_sets, dev_questions, person_rows, practice_people
from eraser_lib.experiments.study import Study
from eraser_lib.threshold import calibrate

GAIN = 0.01
"""What a stronger push must gain to be followed by a stronger one still."""


@dataclass(frozen=True)
class Rehearsal:
    """One forget set as a gate sees it."""

    rows: dict[str, list[Question]]
    """Questions of the fit: `forget`, `retain`."""
    fit: dict[str, Activations]
    unseen: Activations
    """The same people in unseen views and held-out wordings: what should open."""


@dataclass
class Dev(DevRows):
    """Everything that selection looks at."""

    directions: dict[str, Direction]
    activations: dict[str, dict[str, Activations]]
    """Role (`calibrate`, `select`) -> set -> activations."""
    rehearsals: list[Rehearsal]
    """The dev people, then other groups of fit people: gates are chosen on all of them. Ten people alone are too few
    to tell gates apart, and a gate costs no training."""


def open_dev(study: Study, directions: dict[str, Direction]) -> Dev:
    """`open_rows`, and the activations that the gates need."""
    rows = open_rows(study)
    where = (study.world, study.world_folder, study.split)
    roles = {
        "fit": rows.fit,
        "calibrate": calibration_sets(*where, size=study.sizes.calibrate, role="select"),
        "select": {"dev": rows.forget, "kept": rows.kept},
    }
    activations = {role: of_questions(study.vanilla, sets) for role, sets in roles.items()}
    rehearsals = [Rehearsal(rows.fit, activations.pop("fit"), activations["select"]["dev"])]
    for group in practice_people(study.world, study.split):
        rehearsals.append(rehearse(study, group, rehearsals[0]))
    return Dev(**vars(rows), directions=directions, activations=activations, rehearsals=rehearsals)


def rehearse(study: Study, group: Sequence[Person], like: Rehearsal) -> Rehearsal:
    """Erase a group of fit people for practice: their rows leave the retain set of `like` and become a forget set."""
    sets = {
        "forget": person_rows(group, "forget", "fit", rows=8 * study.sizes.per_person),
        "unseen": dev_questions(study.world_folder, group, size=study.sizes.select),
    }
    read = of_questions(study.vanilla, sets)
    gone = {person.id for person in group}
    # what can be seen on their pictures stays, as it does for the people who are forgotten in earnest
    stay = [row.subset != "retain" or row.person not in gone for row in like.rows["retain"]]
    kept = [row for row, stays in zip(like.rows["retain"], stay, strict=True) if stays]
    mask = torch.tensor(stay)
    retain = {site: values[mask] for site, values in like.fit["retain"].items()}
    return Rehearsal(
        {"forget": sets["forget"], "retain": kept}, {"forget": read["forget"], "retain": retain}, read["unseen"]
    )


def choose_decision(
    dev: Dev, candidates: Sequence[tuple[Sequence[int], str]], *, alpha: float = 0.01, strict: bool = True
) -> tuple[Decision, pd.DataFrame]:
    """The blocks read and the solver that open most prompts about people erased for practice, at `alpha`.

    Rates are means over the rehearsals. Ties go to the larger margin: the value that nine tenths of the prompts exceed,
    in units of the threshold. `candidates`: blocks and solvers, see `gates.candidates`. Raises `ValueError` where none
    opens at all, unless `strict` is off (tiny samples calibrate nothing).
    """
    rows = []
    for layers, solver in candidates:
        found = pd.DataFrame([_practise(dev, rehearsal, solver, layers, alpha) for rehearsal in dev.rehearsals])
        means = {"opened": found["opened"].mean(), "opened_least": found["opened"].min()}
        means |= {name: found[name].mean() for name in ("kept_opened", "margin", "auc")}
        rows.append({"solver": solver, "layers": layers, "alpha": alpha, **means, "forget_sets": len(found)})
    table = pd.DataFrame(rows).sort_values(["opened", "margin"], ascending=False, ignore_index=True)
    best = table.iloc[0]
    if strict and not best["opened"]:
        counts = {group: len(next(iter(read.values()))) for group, read in dev.activations["calibrate"].items()}
        raise ValueError(
            f"no gate opens for anybody at alpha = {alpha:g}. A threshold needs {math.ceil(1 / alpha) - 1} calibration "
            f"prompts in every group, and there are {counts}; with fewer it is infinite"
        )
    return Decision(best["layers"], str(best["solver"]), alpha), table


def _practise(dev: Dev, rehearsal: Rehearsal, solver: str, layers: Sequence[int], alpha: float) -> dict[str, float]:
    gate = gates.fit_joined(solver, rehearsal.fit, rehearsal.rows, layers)
    groups = dev.activations["calibrate"].items()
    threshold = calibrate({g: gates.gate_values(gate, join(read, layers)) for g, read in groups}, alpha).value
    up, down = (
        gates.gate_values(gate, join(read, layers)) for read in (rehearsal.unseen, dev.activations["select"]["kept"])
    )
    return {
        "opened": float((up > threshold).double().mean()),
        "kept_opened": float((down > threshold).double().mean()),
        "margin": float(up.quantile(0.1)) / threshold,
        "auc": auc(up.numpy(), down.numpy()),
    }


def dev_eraser(dev: Dev, push: Push, decision: Decision) -> Eraser:
    """The corrected eraser of the dev people."""
    gate = gates.fit_joined(decision.solver, dev.rehearsals[0].fit, dev.fit, decision.layers)
    return corrected(push, decision, gate, dev.activations["calibrate"], dev.directions, dev.directions.get("answer"))[
        0
    ]


def choose_push(dev: Dev, candidates: Sequence[Push], *, prompts: int = 48) -> tuple[Push, pd.DataFrame]:
    """The push under which opened dev prompts end in fluent refusals and the fact is least probable.

    What an opened prompt answers does not depend on the gate, so every candidate is tried without one, on `prompts`
    dev rows. The measure is the share of dev rows that are refused fluently without the fact, minus the mean answer
    probability. A best strength at the edge of its grid is followed by twice that strength, for as long as that gains
    more than `GAIN`.
    """
    rows, tried, queue = [], [], list(candidates)
    before = -math.inf
    sample = dev.forget[:: max(1, len(dev.forget) // prompts)]
    while queue:
        push = queue.pop(0)
        eraser = constant(push, dev.directions, dev.directions.get("answer"))
        log = dev.study.quick(sample, dev.study.vanilla, context=dev.attach(eraser))
        row = {
            **push.describe(), "refused": float(whole_refusals(log, sample).mean()),
            "forget_prob": float(log["answer_prob"].mean()),
            "gibberish": float(log["gibberish"].astype(float).mean()),
            "reentry": float(contains_fact(log, sample).mean()),
        }  # fmt: skip
        row["measure"] = row["refused"] - row["forget_prob"]
        rows.append(row)
        tried.append(push)
        measures = [row["measure"] for row in rows]
        best = tried[measures.index(max(measures))]
        edge = max(p.strength for p in tried if replace(p, strength=best.strength) == best)
        if not queue and best.strength == edge < 16 and max(measures) - before > GAIN:
            before = max(measures)
            queue.append(replace(best, strength=2 * edge))
    return best, pd.DataFrame(rows).sort_values("measure", ascending=False, ignore_index=True)


def contains_fact(log: pd.DataFrame, questions: Sequence[Question]) -> pd.Series:
    """Whether the fact stands in the answer, whatever else does (letters never count as facts)."""
    facts = [question.fact or "" for question in questions]
    return pd.Series(
        [bool(fact) and fact.lower() in str(text).lower() for fact, text in zip(facts, log["output"], strict=True)],
        index=log.index,
    )


def whole_refusals(log: pd.DataFrame, questions: Sequence[Question]) -> pd.Series:
    """Which answers are refusals, fluent and without the fact."""
    return log["refusal"].astype(bool) & log["fluent"].astype(bool) & ~contains_fact(log, questions)


def choose_strength(dev: Dev, make: Any, strengths: Sequence[float]) -> tuple[float, pd.DataFrame]:
    """The strength with the best selection score for `make(strength) -> Eraser`; an edge widens the grid."""
    rows: list[dict[str, float]] = []
    queue = list(strengths)
    while queue:
        strength = queue.pop(0)
        rows.append({"strength": strength, **dev.score(context=dev.attach(make(strength)))})
        best = max(rows, key=lambda row: row["score"])
        if not queue and 0 < best["strength"] == max(row["strength"] for row in rows) < 16:
            queue.append(2 * best["strength"])
    return float(best["strength"]), pd.DataFrame(rows)


def published_eraser(dev: Dev, strength: float) -> Eraser:
    """The as-published eraser of the dev people."""
    fit = dev.rehearsals[0].fit
    return published(fit["forget"], fit["retain"], dev.directions["multimodal"], strength)
