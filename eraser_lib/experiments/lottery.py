"""The forget-set lottery: everybody is erased once, in random sets of ten. How much hangs on who is to be forgotten?

A trained baseline pays a training for every forget set; a gate pays a small linear solve, so it can be refitted on all
of them. The people of the world fall at random into disjoint sets as large as the 5 % split. For each set the gate, the
quadratic gate and the detector are fitted and calibrated as the study does, without the rows of these people among the
retained and the calibration rows, and asked about them in unseen views and held-out wordings.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from eraser_lib.baselines.detector import EMBEDDING, RULES, embed
from eraser_lib.bench.people import Person
from eraser_lib.bench.records import Question
from eraser_lib.experiments import curved, gates
from eraser_lib.experiments.activations import Activations, join, read_activations
from eraser_lib.experiments.closed import Reading, features
from eraser_lib.experiments.methods import Decision
from eraser_lib.experiments.sets import calibration_sets, dev_questions, fit_sets, person_rows, stratified, test_sets
from eraser_lib.experiments.study import Study
from eraser_lib.gate import Gate
from eraser_lib.sites import HookSite
from eraser_lib.threshold import calibrate


@dataclass(frozen=True)
class Rows:
    """Questions with their activations."""

    questions: list[Question]
    read: Activations

    def of(self, keep: Sequence[bool]) -> Rows:
        """Some of them."""
        mask = torch.tensor(list(keep), dtype=torch.bool)
        left = [question for question, stays in zip(self.questions, keep, strict=True) if stays]
        return Rows(left, {site: values[mask] for site, values in self.read.items()})

    def about(self, people: set[str], *, others: bool = False) -> Rows:
        """Rows about some people, or all rows but those."""
        return self.of([(question.person in people) != others for question in self.questions])

    def sample(self, count: int) -> Rows:
        """At most `count` of them, equally many of each modality and task."""
        chosen = {id(question) for question in stratified(self.questions, count)}
        return self.of([id(question) in chosen for question in self.questions])


@dataclass(frozen=True)
class Lottery:
    """Everything that a draw is made of, read once."""

    forget: Rows
    """Fit rows of everybody, as if they were to be forgotten."""
    retain: Rows
    unseen: Rows
    kept: Rows
    """Test rows of retained people and celebrities."""
    calibration: dict[str, Rows]

    def erasing(self, group: Sequence[Person]) -> Lottery:
        """The same with some people to be forgotten: their rows and no others to forget, and none of them to keep."""
        gone = {person.id for person in group}
        # what can be seen on their pictures stays among the retained rows, as for those who are forgotten in earnest
        stays = [q.subset != "retain" or q.person not in gone for q in self.retain.questions]
        return Lottery(
            self.forget.about(gone), self.retain.of(stays), self.unseen.about(gone), self.kept.about(gone, others=True),
            {name: rows.about(gone, others=True) for name, rows in self.calibration.items()},
        )  # fmt: skip


def open_lottery(study: Study, readings: Sequence[Reading], people: Sequence[Person]) -> Lottery:
    """Read the activations of all rows where `readings` look; `people`: who will be erased."""
    world, folder, split = study.world, study.world_folder, study.split
    sites = [HookSite(layer, "output") for layer in sorted({layer for reading in readings for layer in reading})]
    per_person = study.sizes.per_person
    forget = person_rows(people, "forget", "fit", rows=8 * per_person)
    retain = fit_sets(world, split, forget=world.roles(split)["forget"], per_person=per_person)["retain"]
    test = test_sets(world, folder, split, size=study.sizes.test)

    def read(questions: list[Question]) -> Rows:
        prompts = [question.prompt for question in questions]
        found = read_activations(study.vanilla, prompts, sites=sites)
        return Rows(questions, found if all(readings) else {**found, EMBEDDING: embed(study.vanilla, prompts)})

    return Lottery(
        read(forget), read(retain),
        read(dev_questions(folder, people, size=study.sizes.select * len(people))),
        read(test["retain"] + test["celebrity"]),
        {name: read(rows) for name, rows in calibration_sets(world, folder, split, size=study.sizes.calibrate).items()},
    )  # fmt: skip


def draws(people: Sequence[Person], size: int, *, seed: int = 0) -> list[list[Person]]:
    """Disjoint random sets of `size` people; who is left over when the number is no multiple is in none."""
    shuffled = random.Random(f"lottery-{seed}").sample(list(people), len(people))
    return [shuffled[start : start + size] for start in range(0, len(shuffled) - size + 1, size)]


def play(
    lottery: Lottery, group: Sequence[Person], decision: Decision, quadratic: Decision, *, reading: Reading, rule: str
) -> pd.DataFrame:
    """Erase one set: one row per unseen question about it and per kept question, opened or not by each of `RIVALS`.

    `decision` and `quadratic` are those of the two gates, `reading` and `rule` those of the detector. Columns: `id,
    person, modality, task, subset` (`test` for the set's own people), and `RIVALS` (bool).
    """
    gone = {person.id for person in group}
    own = lottery.erasing(group)
    detector = RULES[rule](features(own.forget.read, reading), features(own.retain.read, reading))
    values: dict[str, Callable[[Rows], Tensor]] = {
        "gate": _values(fit_gate(own, decision), decision),
        "quadratic": _values(fit_gate(own, quadratic), quadratic),
        "detector": lambda rows: detector(features(rows.read, reading)),
    }
    asked = [*own.unseen.questions, *own.kept.questions]
    table = pd.DataFrame({
        "id": [q.id for q in asked], "person": [q.person for q in asked], "modality": [q.modality for q in asked],
        "task": [q.task for q in asked],
        "subset": ["test" if q.person in gone else q.subset for q in asked],
    })  # fmt: skip
    for name, value in values.items():
        threshold = calibrate({about: value(rows) for about, rows in own.calibration.items()}, decision.alpha).value
        table[name] = (torch.cat([value(own.unseen), value(own.kept)]) > threshold).tolist()
    return table


def _values(gate: Gate, decision: Decision) -> Callable[[Rows], Tensor]:
    return lambda rows: gates.gate_values(gate, join(rows.read, decision.layers))


def fit_gate(own: Lottery, decision: Decision) -> Gate:
    """A gate of the study on one set, linear or quadratic: `own` as `Lottery.erasing` leaves it."""
    fit = {"forget": own.forget, "retain": own.retain}
    if decision.solver.startswith(curved.SOLVER):
        return curved.fit_gate(decision, {name: rows.read for name, rows in fit.items()})
    return gates.fit_joined(
        decision.solver, {name: rows.read for name, rows in fit.items()},
        {name: rows.questions for name, rows in fit.items()}, decision.layers,
    )  # fmt: skip


RIVALS = ("gate", "quadratic", "detector")
SUBSETS = ("test", "retain", "celebrity")


def by_set(played: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """One row per set: share opened of its own prompts, by kind, and of kept ones, for each of `RIVALS`."""
    rows = []
    for number, table in played.items():
        row: dict[str, Any] = {"set": number, "people": table[table["subset"] == "test"]["person"].nunique()}
        for name in RIVALS:
            shares = table.groupby("subset")[name].mean()
            row |= {f"{name}_{subset}": float(shares.get(subset, float("nan"))) for subset in SUBSETS}
            kinds = table[table["subset"] == "test"].groupby("modality")[name].mean()
            row |= {f"{name}_{kind}": float(kinds.get(kind, float("nan"))) for kind in ("vqa", "qa")}
        rows.append(row)
    return pd.DataFrame(rows)


ASKED = {
    "test": "forgotten people, all prompts", "vqa": "forgotten people, pictures", "qa": "forgotten people, names",
    "retain": "retained people", "celebrity": "celebrities",
}  # fmt: skip


def overview(table: pd.DataFrame, *, enough: float = 0.9) -> pd.DataFrame:
    """Share opened over sets, one row per kind of prompt and per method of `by_set`.

    Columns: `method, asked, mean, sd, least, most`, and `enough`, the share of sets in which at least so many open.
    """
    rows = []
    for method in RIVALS:
        for name, asked in ASKED.items():
            values = table[f"{method}_{name}"].dropna()
            rows.append({
                "method": method, "asked": asked, "mean": values.mean(), "sd": values.std(ddof=1),
                "least": values.min(), "most": values.max(),
                "enough": (values >= enough).mean() if name in ("test", "vqa", "qa") else None,
            })  # fmt: skip
    return pd.DataFrame(rows)


def by_person(played: Mapping[int, pd.DataFrame], people: Sequence[Person]) -> pd.DataFrame:
    """One row per person, hardest first: share opened by the gate, and what may make somebody hard to erase.

    `people`: everybody of the same kind. `look_alike`: drawing factors, of ten, that the nearest other person shares;
    `first_name`, `last_name`: how many others bear it.
    """
    opened = pd.concat([table[table["subset"] == "test"].assign(set=number) for number, table in played.items()])
    first, last = (Counter(person.name.split()[place] for person in people) for place in (0, -1))
    rows = []
    for person in people:
        mine = opened[opened["person"] == person.id]
        if mine.empty:
            continue
        others = [other for other in people if other.id != person.id]
        kinds = mine.groupby("modality")["gate"].mean()
        rows.append({
            "person": person.id, "set": int(mine["set"].iloc[0]), "opened": float(mine["gate"].mean()),
            "opened_vqa": float(kinds.get("vqa", float("nan"))), "opened_qa": float(kinds.get("qa", float("nan"))),
            **{name: float(mine[name].mean()) for name in RIVALS[1:]},
            "look_alike": 10 - min(person.genotype.distance(other.genotype) for other in others),
            "first_name": first[person.name.split()[0]] - 1, "last_name": last[person.name.split()[-1]] - 1,
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["opened", "person"], ignore_index=True)


def explained(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation (Spearman) of being opened with what may make it hard, over people.

    Portraits can only be told apart by the face and names by the name, so each kind of prompt has its own reasons.
    """
    rows = []
    for opened, reason in (("opened_vqa", "look_alike"), ("opened_qa", "first_name"), ("opened_qa", "last_name")):
        pair = table[[opened, reason]].dropna()
        varies = pair[opened].nunique() > 1 and pair[reason].nunique() > 1
        found = spearmanr(pair[opened], pair[reason]) if varies else None
        rows.append({
            "opened": opened, "reason": reason, "people": len(pair),
            "correlation": None if found is None else float(found.statistic),
            "p_value": None if found is None else float(found.pvalue),
        })  # fmt: skip
    return pd.DataFrame(rows)
