"""Ablations of the push: what they measure, on a model that was never trained and on tables made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from eraser_lib.bench.records import Question
from eraser_lib.direction import Direction
from eraser_lib.experiments import ablate_layers, ablate_push, sets
from eraser_lib.experiments.activations import of_questions
from eraser_lib.experiments.methods import Push, published
from eraser_lib.experiments.outcomes import outcomes, over_people
from eraser_lib.experiments.study import Study
from eraser_lib.figures.push import OUTCOMES, outcome_curves
from eraser_lib.sites import every_layer

Rows = dict[str, list[Question]]


@pytest.fixture(scope="module")
def fit(study: Study) -> Rows:
    rows = sets.fit_sets(study.world, 5, forget=study.world.roles(5)["forget"], per_person=1)
    return {name: own[:: len(own) // 12] for name, own in rows.items()}


def test_gates_fitted_in_turn_differ_only_where_something_was_added_before(
    study: Study, fit: Rows, direction: Direction
) -> None:
    read = of_questions(study.vanilla, fit)
    for strength, alike in ((0.0, True), (4.0, False)):
        parallel = published(read["forget"], read["retain"], direction, strength)
        turn = ablate_push.sequential(study, fit, direction, strength)
        assert turn.sites == parallel.sites and turn.mode == "published"
        same = [torch.equal(turn.gates[s].weight, parallel.gates[s].weight) for s in turn.sites]
        assert same[0], "nothing is steered before the first gate"
        assert all(same) == alike
        assert all(torch.equal(turn.directions[s], parallel.directions[s]) for s in turn.sites)


def test_the_last_gate_is_read_on_the_steered_stream(study: Study, fit: Rows, direction: Direction) -> None:
    read = of_questions(study.vanilla, fit)
    still = published(read["forget"], read["retain"], direction, 0.0)
    last = still.sites[-1]
    plain = still.gates[last](read["forget"][direction.sites[-2]].double()).amax(dim=-1)
    assert torch.allclose(ablate_push.last_values(study, still, fit["forget"]), plain, atol=1e-4)
    moved = ablate_push.last_values(study, still.with_(strength=4.0), fit["forget"])
    assert not torch.allclose(moved, plain, atol=1e-2)


def test_every_direction_strength_and_task_has_a_row(
    study: Study, direction: Direction, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sets.test_sets(study.world, folder, 5, size=12)
    monkeypatch.setattr(Study, "fluency", lambda self: self.reference())
    push = Push("a", (0, 1), 1.0)
    answers = ablate_push.pushed(
        study, asked["test"], {"a": direction, "b": direction}, push, names=("a", "b"), strengths=(0.0, 8.0)
    )
    assert answers["id"].tolist() == 4 * [question.id for question in asked["test"]]
    table = over_people(answers, ["direction", "strength", "task"])
    tasks = {question.task for question in asked["test"]}
    assert len(table) == 2 * 2 * len(tasks)
    assert table.groupby(["direction", "strength"])["n"].sum().eq(len(asked["test"])).all()
    a, b = (table[table["direction"] == name].drop(columns="direction").reset_index(drop=True) for name in "ab")
    pd.testing.assert_frame_equal(a, b)
    assert (
        not a.loc[a["strength"] == 0, "answer_prob"]
        .reset_index(drop=True)
        .equals(a.loc[a["strength"] == 8, "answer_prob"].reset_index(drop=True))
    )
    four = {name: asked[name][:4] for name in ("test", "retain")}
    fit = sets.fit_sets(study.world, 5, forget=study.world.roles(5)["forget"], per_person=1)
    answers = ablate_push.fitting_order(study, fit, direction, four, (0.0,))
    assert answers["id"].tolist() == 2 * [question.id for asked in four.values() for question in asked]
    order = ablate_push.by_order(answers)
    own = answers[(answers["order"] == "parallel") & (answers["set"] == "test")]
    assert order.iloc[0]["test_prob"] == pytest.approx(own["answer_prob"].mean())
    assert order["order"].tolist() == ["parallel", "sequential"]
    assert order.iloc[0].drop("order").to_numpy(float) == pytest.approx(order.iloc[1].drop("order").to_numpy(float))


def test_a_push_at_a_stretch_is_that_push_at_its_blocks(
    study: Study, direction: Direction, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sets.test_sets(study.world, folder, 5, size=6)["test"]
    monkeypatch.setattr(Study, "fluency", lambda self: self.reference())
    push, blocks = Push("a", (0,), 1.0), ((0,), (0, 1), (1,))
    answers = ablate_layers.pushed_at(study, asked, {"a": direction}, push, blocks, strengths=(0.0, 8.0))
    found = over_people(answers, ["first", "last", "strength"])
    assert found[["first", "last", "strength"]].to_numpy().tolist() == [
        [0, 0, 0.0], [0, 0, 8.0], [0, 1, 0.0], [0, 1, 8.0], [1, 1, 0.0], [1, 1, 8.0],
    ]  # fmt: skip
    assert found["n"].eq(len(asked)).all()
    still, moved = (found.loc[found["strength"] == strength, "answer_prob"] for strength in (0.0, 8.0))
    assert still.nunique() == 1 and moved.nunique() == 3, "where it is pushed matters as soon as it is"
    whole = ablate_push.pushed(study, asked, {"a": direction}, Push("a", (0, 1), 1.0), names=("a",), strengths=(8.0,))
    assert found.iloc[3]["answer_prob"] == pytest.approx(whole["answer_prob"].mean())


def test_the_unknown_direction_tells_strangers_from_known_people(study: Study) -> None:
    found = ablate_push.unknown_direction(study, rows=1)
    assert found.sites == every_layer(study.vanilla.model)
    assert (found.norms > 0).all()


def test_what_an_answer_is_and_how_sure_a_share_of_them(study: Study, folder: Path) -> None:
    asked = sets.test_sets(study.world, folder, 5, size=12)["test"]
    cloze = next(question for question in asked if question.task == "cloze")
    said = {
        "id": "a", "person": "p", "modality": "qa", "task": "cloze", "output": f"It is {cloze.fact}.",
        "answer_prob": 0.5, "gibberish": False, "fluent": True,
    }  # fmt: skip
    log = pd.DataFrame([{**said, "refusal": refusal, "output": text} for refusal, text in
                        ((True, "I will not say."), (True, said["output"]), (False, "No idea."))])  # fmt: skip
    rows = outcomes(log, [cloze] * 3, at=2)
    assert rows["refused"].tolist() == [1, 0, 0], "a refusal that tells the fact is none"
    assert rows["recalled"].tolist() == [0, 1, 0] and rows["at"].eq(2).all()
    same = pd.concat([rows.assign(person=person) for person in "pqr"])
    other = pd.concat([rows.assign(person=name, refused=float(name == "p")) for name in "pqr"])
    for table, low, high in ((same, 1 / 3, 1 / 3), (other, 0, 1)):
        (share,) = over_people(table, ["at"], ["refused"]).to_dict("records")
        told = (share["n"], share["n_people"], share["refused"], share["refused_low"], share["refused_high"])
        assert told == pytest.approx((9, 3, 1 / 3, low, high)), "people are drawn, and not their questions"


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"direction": "a", "n": 10, "gibberish": 0.0, "recalled": 0.0, **columns})


def test_what_a_strength_per_task_could_gain() -> None:
    rows = table(
        task=["cloze", "cloze", "generation", "generation"], strength=[1.0, 2.0, 1.0, 2.0],
        refused=[0.5, 0.9, 0.8, 0.7], answer_prob=[0.1, 0.1, 0.2, 0.0],
    )  # fmt: skip
    found = ablate_push.one_or_many(rows, 2.3).set_index("task")
    assert found["strength"].eq(2.0).all(), "the nearest one that was tried"
    assert found["measure"].to_dict() == pytest.approx({"cloze": 0.8, "generation": 0.7})
    assert found["best_strength"].to_dict() == {"cloze": 2.0, "generation": 2.0}
    assert (found["best_measure"] >= found["measure"]).all()


def test_lines_weigh_tasks_by_their_questions() -> None:
    rows = table(task=["cloze", "generation"], strength=1.0, refused=[1.0, 0.0]).assign(n=[30, 10])
    chart = outcome_curves(rows, "direction")
    panel = chart.axes[0]
    assert panel.lines[0].get_ydata().tolist() == [0.75]  # type: ignore[union-attr]
    assert len(chart.axes) == len(OUTCOMES)
