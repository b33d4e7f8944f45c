"""Choosing: gates are chosen on several forget sets, and nobody who is erased for practice stays in the retain set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from eraser_lib.bench.records import Question
from eraser_lib.bench.world import World
from eraser_lib.experiments import gates, selection, sets
from eraser_lib.experiments.methods import Push
from eraser_lib.experiments.sets import general_questions
from eraser_lib.sites import HookSite

WIDTH = 16
FIRST, SECOND = HookSite(0, "output"), HookSite(1, "output")


def streams(rows: Tensor, generator: torch.Generator, *, seen: int | None) -> dict[HookSite, Tensor]:
    """Two blocks: the direction `seen` carries the person in the second one only; `None` for retained rows."""
    first, second = rows.clone(), rows.clone()
    if seen is not None:
        second[:, seen] += 3
        # the first block shows a person of the dev set, and hides everybody else
        if seen == WIDTH - 1:
            first[:, seen] += 30
    noise = 0.01 * torch.randn(len(rows), WIDTH, generator=generator)
    return {FIRST: first + noise, SECOND: second + noise}


@pytest.fixture(scope="module")
def dev() -> Any:
    """Three rehearsals; the first block knows the dev people only, the second one knows all."""
    g = torch.Generator().manual_seed(0)

    def draw(n: int) -> Tensor:
        wide = torch.zeros(n, WIDTH)
        wide[:, :6] = torch.randn(n, 6, generator=g) + 2
        return wide

    retain = [replace(q, person=f"r{i % 20}", subset="retain") for i, q in enumerate(general_questions(200, "fit"))]
    kept = streams(draw(200), g, seen=None)
    rehearsals = []
    for person in (WIDTH - 1, WIDTH - 2, WIDTH - 3):
        rows = [replace(q, person=f"p{person}") for q in general_questions(24, "fit")]
        fit = {"forget": streams(draw(24), g, seen=person), "retain": kept}
        unseen = streams(draw(30), g, seen=person)
        rehearsals.append(selection.Rehearsal({"forget": rows, "retain": retain}, fit, unseen))
    groups = {"people": streams(draw(300), g, seen=None)}
    activations = {"calibrate": groups, "select": {"kept": streams(draw(60), g, seen=None)}}
    return SimpleNamespace(activations=activations, rehearsals=rehearsals)


def test_a_gate_must_open_for_all_groups_and_not_for_the_dev_people_alone(dev: Any) -> None:
    tried = gates.candidates(2)
    decision, table = selection.choose_decision(dev, tried)
    assert decision.layers == (1,)
    assert table.iloc[0]["opened"] > 0.95
    assert (table["forget_sets"] == 3).all()
    blind = table[table["layers"] == (0,)]
    assert blind["opened"].max() < 0.7, "the first block knows one group of three"
    assert (table["opened_least"] <= table["opened"]).all()
    alone = SimpleNamespace(activations=dev.activations, rehearsals=dev.rehearsals[:1])
    assert selection.choose_decision(alone, tried)[0].layers == (0,), "the dev people alone would have chosen otherwise"


def test_too_few_calibration_prompts_are_an_error_and_not_a_choice(dev: Any) -> None:
    few = {"people": {site: values[:98] for site, values in dev.activations["calibrate"]["people"].items()}}
    poor = SimpleNamespace(activations=dev.activations | {"calibrate": few}, rehearsals=dev.rehearsals)
    tried = [((1,), "person:ridge_bias")]
    with pytest.raises(ValueError, match=r"needs 99 calibration prompts in every group, and there are {'people': 98}"):
        selection.choose_decision(poor, tried)
    assert selection.choose_decision(poor, tried, strict=False)[1]["opened"].tolist() == [0.0]


def test_people_erased_for_practice_leave_the_retain_set(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: object, questions: dict[str, list[Question]]) -> dict[str, dict[HookSite, Tensor]]:
        return {name: {FIRST: torch.arange(len(rows)).float()[:, None]} for name, rows in questions.items()}

    monkeypatch.setattr(selection, "of_questions", read)
    study = SimpleNamespace(vanilla=None, world_folder=folder, sizes=SimpleNamespace(per_person=3, select=12))
    people = world.population.by_id(world.population.dev)
    fit = sets.fit_sets(world, 5, forget=people, per_person=3)
    like = selection.Rehearsal(fit, read(None, fit), {})
    group = sets.practice_people(world, 5)[0]
    made = selection.rehearse(study, group, like)  # type: ignore[arg-type]
    gone = {person.id for person in group}
    assert {row.person for row in made.rows["forget"]} == gone
    assert not any(row.person in gone and row.subset == "retain" for row in made.rows["retain"])
    assert any(row.person in gone and row.subset == "same_photo" for row in made.rows["retain"])
    assert any(row.person in gone for row in fit["retain"])
    places = [fit["retain"].index(row) for row in made.rows["retain"]]
    assert made.fit["retain"][FIRST][:, 0].tolist() == places
    assert len(made.unseen[FIRST]) == 12


class Answers:
    """A study whose answers depend on the push alone: `measures` by direction and strength."""

    def __init__(self, measures: dict[tuple[str, float], float]) -> None:
        self.measures = measures

    vanilla = None

    def quick(self, questions: list[Question], _: object, *, context: Any) -> pd.DataFrame:
        share = self.measures[context]
        return pd.DataFrame({
            "output": ["no"] * 4, "refusal": [True] * 4, "fluent": [n < 4 * share for n in range(4)],
            "answer_prob": [0.0] * 4, "gibberish": [False] * 4,
        })  # fmt: skip


def test_a_push_at_the_edge_of_its_own_grid_is_followed_by_a_stronger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid of another direction reaches further: that is no reason to stop."""
    measures = {("a", 1.0): 0.25, ("a", 2.0): 0.5, ("a", 4.0): 0.75, ("a", 8.0): 0.75, ("b", 4.0): 0.25}
    monkeypatch.setattr(selection, "constant", lambda push, *_: (push.direction, push.strength))
    questions = [SimpleNamespace(fact="cat")] * 4
    dev = SimpleNamespace(study=Answers(measures), directions={}, forget=questions, attach=lambda eraser: eraser)
    grid = [Push("b", (0,), 4.0, "prompt"), Push("a", (0,), 1.0, "prompt"), Push("a", (0,), 2.0, "prompt")]
    best, table = selection.choose_push(dev, grid)  # type: ignore[arg-type]
    assert (best.direction, best.strength) == ("a", 4.0)
    assert set(table["strength"]) == {1.0, 2.0, 4.0, 8.0}, "8 was tried, and gained nothing"
