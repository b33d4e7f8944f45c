"""The forget-set lottery on streams in which every person has a direction of their own."""

from __future__ import annotations

import random
from dataclasses import replace

import pandas as pd
import pytest
import torch

from eraser_lib.bench.people import Person
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.bench.world import make_world
from eraser_lib.experiments import lottery
from eraser_lib.experiments.lottery import Lottery, Rows
from eraser_lib.experiments.methods import Decision
from eraser_lib.quadratic import QuadraticGate, gaussian_gate
from eraser_lib.sites import HookSite

SITE, WIDTH = HookSite(0, "output"), 48
DECISION = Decision((0,), "person:ridge_bias", 0.05)
CURVED = Decision((0,), "gaussian:8", 0.05)


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return make_world(fictitious=24, celebrities=4, strangers=4).population.of_kind("fictitious")


def rows(people: list[Person], each: int, subset: str, role: str) -> Rows:
    """Streams: the direction of the person, the same in every call, and noise."""
    g = torch.Generator().manual_seed(len(role))
    own = {
        p.id: torch.randn(WIDTH, generator=torch.Generator().manual_seed(number))
        for number, p in enumerate(make_world(fictitious=24, celebrities=4, strangers=4).population.people)
    }
    questions = [
        Question(
            id=f"{person.id}/{role}/{number}", subset=subset, role=role, modality=("vqa", "qa")[number % 2],  # type: ignore[arg-type]
            task="cloze", prompt=Prompt("?"), answer="", person=person.id,
        )
        for person in people for number in range(each)
    ]  # fmt: skip
    streams = [4 * own[q.person or ""] + 0.3 * torch.randn(WIDTH, generator=g) for q in questions]
    return Rows(questions, {SITE: torch.stack(streams)})


@pytest.fixture(scope="module")
def opened(people: list[Person]) -> Lottery:
    fit, calibrate, test = people[:8], people[8:20], people[20:]
    return Lottery(
        forget=rows(people, 6, "forget", "fit"), retain=rows(fit, 4, "retain", "fit"),
        unseen=rows(people, 4, "dev", "select"), kept=rows(test, 4, "retain", "test"),
        calibration={"people": rows(calibrate, 4, "retain", "calibrate")},
    )  # fmt: skip


def test_everybody_is_drawn_once(people: list[Person]) -> None:
    sets = lottery.draws(people, 5)
    drawn = [person.id for group in sets for person in group]
    assert [len(group) for group in sets] == [5] * 4
    assert len(set(drawn)) == 20 and drawn != [person.id for person in people[:20]]
    assert lottery.draws(people, 5) == sets != lottery.draws(people, 5, seed=1)


def test_a_set_opens_for_its_people_and_not_for_others(opened: Lottery, people: list[Person]) -> None:
    group = [*people[:2], *people[8:10], people[20]]  # of the fit, of the calibration, of the test people
    table = lottery.play(opened, group, DECISION, CURVED, reading=(0,), rule="1 nearest")
    mine = table[table["subset"] == "test"]
    assert set(mine["person"]) == {person.id for person in group}
    assert all(mine[name].mean() > 0.9 for name in lottery.RIVALS)
    others = table[table["subset"] == "retain"]
    assert set(others["person"]) == {person.id for person in people[21:]}, "who is erased is not kept as well"
    assert others["gate"].mean() < 0.3


def test_the_solver_of_a_decision_says_which_gate_is_fitted(opened: Lottery, people: list[Person]) -> None:
    own = opened.erasing(people[:3])
    assert lottery.fit_gate(own, DECISION).rank == 3, "one request per person"
    found = lottery.fit_gate(own, CURVED)
    wanted = gaussian_gate(own.forget.read[SITE], own.retain.read[SITE], curves=8)
    assert isinstance(found, QuadraticGate)
    assert torch.equal(found(own.unseen.read[SITE].double()), wanted(own.unseen.read[SITE].double()))


def test_the_rows_of_a_set_leave_fit_and_calibration(opened: Lottery, people: list[Person]) -> None:
    """Poisoned rows of the drawn people among retained and calibration rows must change nothing."""
    group = [people[0], people[8]]
    gone = {person.id for person in group}

    def poisoned(found: Rows) -> Rows:
        mine = torch.tensor([q.person in gone for q in found.questions])[:, None]
        assert mine.any()
        return Rows(found.questions, {SITE: torch.where(mine, torch.full((), 1e3), found.read[SITE])})

    def play(found: Lottery) -> pd.DataFrame:
        return lottery.play(found, group, DECISION, CURVED, reading=(0,), rule="5 nearest")

    changed = replace(
        opened, retain=poisoned(opened.retain), calibration={"people": poisoned(opened.calibration["people"])}
    )
    assert play(opened).equals(play(changed))


def played(people: list[Person], shares: dict[int, float]) -> dict[int, pd.DataFrame]:
    """One set with a share of opened picture prompts for each person; names always open."""
    found = []
    for number, share in shares.items():
        for modality in ("vqa", "qa"):
            for question in range(4):
                yes = modality == "qa" or question < 4 * share
                found.append({"person": people[number].id, "modality": modality, "task": "cloze", "subset": "test",
                              "gate": yes, "quadratic": yes, "detector": True})  # fmt: skip
    found.append({**found[0], "subset": "retain", "person": "x", "gate": False})
    return {3: pd.DataFrame(found)}


def test_sets_and_people_by_hand(people: list[Person]) -> None:
    tables = played(people, {0: 0.5, 1: 1.0})
    (row,) = lottery.by_set(tables).to_dict("records")
    assert (row["set"], row["people"], row["gate_test"], row["gate_vqa"], row["gate_qa"]) == (3, 2, 14 / 16, 0.75, 1)
    assert row["quadratic_vqa"] == 0.75, "each rival has its own columns"
    assert row["gate_retain"] == 0 and row["detector_test"] == 1 and row["gate_celebrity"] != row["gate_celebrity"]
    overview = lottery.overview(pd.DataFrame([row, row | {"gate_vqa": 0.95}])).set_index(["method", "asked"])
    pictures = overview.loc["gate", "forgotten people, pictures"]
    assert pictures["mean"] == pytest.approx(0.85) and pictures["sd"] == pytest.approx(0.2 / 2**0.5)
    assert (pictures["least"], pictures["most"], pictures["enough"]) == (0.75, 0.95, 0.5)
    twin = replace(people[1], id="twin", name=f"{people[1].name.split()[0]} Nobody")
    table = lottery.by_person(tables, [people[0], people[1], twin])
    assert table["person"].tolist() == [people[0].id, people[1].id], "the hardest first, nobody who was not drawn"
    hard, easy = table.to_dict("records")
    assert (hard["opened"], hard["opened_vqa"], hard["opened_qa"]) == (0.75, 0.5, 1.0)
    assert easy["look_alike"] == 10 and easy["first_name"] == 1 and easy["last_name"] == 0
    assert hard["look_alike"] == 10 - people[0].genotype.distance(people[1].genotype)


def test_reasons_are_correlated_where_they_vary() -> None:
    alike = random.Random(0).sample(range(10), 10)
    table = pd.DataFrame({
        "opened_vqa": [1 - value / 10 for value in alike], "opened_qa": [1.0] * 10, "look_alike": alike,
        "first_name": [0, 1] * 5, "last_name": [0] * 10,
    })  # fmt: skip
    faces, first, last = lottery.explained(table).to_dict("records")
    assert faces["correlation"] == pytest.approx(-1) and faces["p_value"] < 1e-6
    assert pd.isna(first["correlation"]) and pd.isna(last["correlation"]), "all names open: nothing to explain"
