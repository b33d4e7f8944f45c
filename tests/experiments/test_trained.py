"""Choosing the setting of a trained baseline: every point of its grid is tried, scored and judged for collapse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eraser_lib.baselines.npo import NPO
from eraser_lib.evaluate.summary import METHODS
from eraser_lib.experiments import trained
from eraser_lib.experiments.sets import general_questions
from eraser_lib.experiments.study import Study
from eraser_lib.study import matrix
from eraser_lib.study.preset import load
from eraser_lib.tables import METHOD_NAMES

SCORES = {  # (beta, rate): score, gibberish on dev rows, gibberish on kept rows
    (0.1, 1e-4): (0.5, 0.0, 0.0), (0.1, 1e-2): (0.9, 0.5, 0.0),
    (0.5, 1e-4): (0.7, 0.01, 0.02), (0.5, 1e-2): (0.8, 0.0, 0.3),
}  # fmt: skip


@dataclass
class Dev:
    """Answers with the scores of what was trained last."""

    study: Any
    fit: Any

    def score(self, *, loaded: tuple[float, float]) -> dict[str, float]:
        score, gibberish, kept = SCORES[loaded]
        return {"score": score, "gibberish": gibberish, "kept_gibberish": kept}


def test_the_best_setting_and_the_best_that_has_not_collapsed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def unlearn(_: object, forget: list[Any], retain: object, objective: NPO, config: Any) -> SimpleNamespace:
        seen.append(len(forget))
        return SimpleNamespace(loaded=(objective.beta, config.lr), seconds=1.0)

    monkeypatch.setattr(trained, "unlearn", unlearn)
    study = SimpleNamespace(vanilla=None, seed=0, sizes=SimpleNamespace(train=4))
    dev = Dev(study, {"forget": general_questions(10, "fit"), "retain": []})
    table = trained.tune(dev, [NPO(0.1), NPO(0.5)], [1e-4, 1e-2])  # type: ignore[arg-type]
    assert seen == [4] * 4
    assert table["score"].tolist() == [0.9, 0.8, 0.7, 0.5]
    assert table["collapsed"].tolist() == [True, True, False, False]
    assert trained.choice(table) == {"objective": 0, "lr": 1e-2}
    assert trained.choice(table, fluent=True) == {"objective": 1, "lr": 1e-4}
    assert trained.choice(table[table["collapsed"]], fluent=True) is None
    assert table["edge"].all()


def test_the_best_setting_runs_from_no_effect_to_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings at the middle rates; then the best of them, and no other, at the rates beside."""
    rates = [1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]

    def unlearn(_: object, __: object, ___: object, objective: NPO, config: Any) -> SimpleNamespace:
        return SimpleNamespace(loaded=(objective.beta, config.lr), seconds=1.0)

    def score(*, loaded: tuple[float, float]) -> dict[str, float]:
        return {"score": loaded[0] + (loaded[1] == 1e-2), "gibberish": 0.0, "kept_gibberish": 0.0}

    monkeypatch.setattr(trained, "unlearn", unlearn)
    study = SimpleNamespace(vanilla=None, seed=0, sizes=SimpleNamespace(train=4))
    dev: Any = SimpleNamespace(study=study, fit={"forget": general_questions(10, "fit"), "retain": []}, score=score)
    table = trained.tune(dev, [NPO(0.1), NPO(0.5), NPO(0.2)], rates)
    assert sorted(table[table["objective"] == 1]["lr"]) == rates
    for other in (0, 2):
        assert sorted(table[table["objective"] == other]["lr"]) == rates[2:5]
    assert trained.choice(table) == {"objective": 1, "lr": 1e-2}
    assert table["edge"].tolist() == [lr in (1e-5, 1e-2) for lr in table["lr"]]


def test_an_unknown_method_is_named() -> None:
    assert trained.objectives("npo")[0].name == "npo"
    assert {objective.name for grid in trained.OBJECTIVES.values() for objective in grid} == set(trained.OBJECTIVES)
    with pytest.raises(ValueError, match="'npq'; trained baselines are ga, ga_diff"):
        trained.objectives("npq")


def test_the_matrix_runs_every_trained_method_and_tables_name_it() -> None:
    assert set(matrix.TRAINED) | {"ga_diff"} == set(trained.OBJECTIVES)
    assert set(trained.OBJECTIVES) | {"detector", "leace", "manu"} <= set(METHODS) & set(METHOD_NAMES)
    preset = load("tiny-full")
    assert set(preset.trained) == set(trained.OBJECTIVES)
    taken = {pattern.split("/")[-2] for pattern in load("tiny").from_reference if pattern.startswith("logs/")}
    assert taken == {*matrix.TRAINED, "detector", "leace", "manu"}, "tiny shows what only tiny-full runs"


def test_one_choice_serves_every_split(tmp_path: Path) -> None:
    five, ten = (Study(preset="tiny", model="llava", split=split, out=tmp_path) for split in (5, 10))
    with pytest.raises(FileNotFoundError, match="run notebook 08_tune for llava and npo first"):
        trained.read_choice(ten, "npo")
    five.note("tuning-npo", {"choice": {"best": {"objective": 1, "lr": 0.001}}})
    assert trained.read_choice(ten, "npo") == {"objective": 1, "lr": 0.001}
    assert five.figure("x").parent != ten.figure("x").parent, "a split does not overwrite another's figures"
