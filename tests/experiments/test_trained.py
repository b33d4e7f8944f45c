"""Choosing the setting of a trained baseline: every point of its grid is tried, scored and judged for collapse."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from eraser_lib.baselines.low_rank import LowRank
from eraser_lib.baselines.npo import NPO
from eraser_lib.baselines.rmu import RMU
from eraser_lib.evaluate.summary import METHODS
from eraser_lib.experiments import collapse, trained
from eraser_lib.experiments.sets import general_questions
from eraser_lib.experiments.study import Study
from eraser_lib.study import kept, matrix
from eraser_lib.study.preset import load
from eraser_lib.tables import METHOD_NAMES

Scores = dict[tuple[float, float, int], float]
"""(beta, rate, steps) -> score; what is not named scores 0."""


def searched(monkeypatch: pytest.MonkeyPatch, scores: Scores, **options: Any) -> tuple[pd.DataFrame, list[Any]]:
    """The table of a search over betas .1, .5 and .2, and the trainings that it took, with their last step."""
    taken: list[Any] = []

    def unlearn(_: object, forget: list[Any], __: object, objective: NPO, config: Any, *, watch: Any) -> None:
        assert len(forget) == 4
        for step in range(1, config.steps + 1):
            if watch(step, (objective.beta, config.lr, step)):
                break
        taken.append((objective.beta, config.lr, step))

    def score(*, loaded: tuple[float, float, int]) -> dict[str, float]:
        babble = 0.5 if loaded[0] == 0.5 and loaded[2] == 4 else 0.0
        return {"score": scores.get(loaded, 0.0), "gibberish": babble, "kept_gibberish": 0.0}

    monkeypatch.setattr(trained, "unlearn", unlearn)
    study = SimpleNamespace(vanilla=None, seed=0, sizes=SimpleNamespace(train=4))
    dev: Any = SimpleNamespace(study=study, fit={"forget": general_questions(10, "fit"), "retain": []}, score=score)
    table = trained.tune(dev, [NPO(0.1), NPO(0.5), NPO(0.2)], stops=(2, 4), **options)
    return table, taken


def test_the_search_goes_by_coordinates_and_on_while_the_edge_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {(0.1, 1e-3, 2): 0.5, (0.5, 1e-3, 2): 0.6, (0.5, 3e-3, 4): 0.8, (0.5, 1e-2, 2): 0.7}
    table, taken = searched(monkeypatch, scores)
    assert {(beta, rate) for beta, rate, _ in taken} == {
        (0.1, 1e-4), (0.1, 3e-4), (0.1, 1e-3), (0.5, 1e-3), (0.2, 1e-3),  # the rest at the rate that served the first
        (0.5, 3e-4), (0.5, 3e-3), (0.5, 1e-2),  # around the best, then beside the better one
    }  # fmt: skip
    assert trained.choice(table) == {"settings": str(NPO(0.5)), "lr": 3e-3, "steps": 4}
    fluent = trained.choice(table, fluent=True)
    assert fluent == {"settings": str(NPO(0.5)), "lr": 1e-2, "steps": 2}, "four steps babble"
    assert trained.choice(table[table["collapsed"]], fluent=True) is None
    assert table["score"].is_monotonic_decreasing


def test_a_search_that_was_stopped_goes_on_after_its_last_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scores = {(0.1, 1e-3, 2): 0.5, (0.5, 1e-3, 2): 0.6, (0.5, 3e-3, 4): 0.8, (0.5, 1e-2, 2): 0.7}
    whole, once = searched(monkeypatch, scores)
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "kept"))
    with monkeypatch.context() as short:
        short.setattr(trained, "judged", stopping(after=7))
        with pytest.raises(KeyboardInterrupt):
            searched(short, scores)
    table, taken = searched(monkeypatch, scores)
    assert len(once) - 4 < len(taken) < len(once), "three trainings were whole when it was stopped"
    timed = ["seconds"]
    pd.testing.assert_frame_equal(table.drop(columns=timed), whole.drop(columns=timed))
    assert searched(monkeypatch, scores)[1] == []


def stopping(*, after: int) -> Any:
    """`trained.judged`, until so many scores were judged."""
    left = iter(range(after))

    def judged(score: dict[str, float]) -> dict[str, Any]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return collapse.judged(score)

    return judged


def test_a_training_ends_where_it_only_does_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {(0.1, 3e-4, 2): 0.6, (0.1, 3e-4, 4): 0.5, (0.1, 1e-4, 2): 0.3, (0.1, 1e-4, 4): 0.4}
    monkeypatch.setattr(trained, "DROP", 0.05)
    table, taken = searched(monkeypatch, scores)
    rows = table[(table["settings"] == str(NPO(0.1))) & (table["lr"] == 3e-4)].set_index("steps")["score"]
    assert rows.to_dict() == {2: 0.6, 4: 0.5}, "a stop is scored before it ends the training"
    assert (0.1, 1e-4, 4) in taken
    longer, taken = searched(monkeypatch, {(0.1, 3e-4, 1): 0.6}, start=(3e-4,), rates=(3e-4,))
    assert len(taken) == 3 and set(longer["steps"]) == {2, 4}


def test_the_search_leaves_its_grid_while_the_edge_of_a_ladder_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = [NPO(beta) for beta in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)]
    scores = {(0.1, 3e-4, 2): 0.5, (0.5, 3e-4, 2): 0.6, (1.0, 3e-4, 4): 0.7, (2.0, 3e-4, 2): 0.1}
    table, taken = searched(monkeypatch, scores, ladder=[ladder])
    tried = {(beta, rate) for beta, rate, _ in taken}
    assert (1.0, 3e-4) in tried and (2.0, 3e-4) in tried, "on past the grid, and past the next best"
    assert not {0.05, 4.0} & {beta for beta, _ in tried}, "neither the worse side nor past a worse one"
    assert {(1.0, 1e-4), (1.0, 1e-3)} <= tried, "rates around the new best"
    assert trained.choice(table) == {"settings": str(NPO(1.0)), "lr": 3e-4, "steps": 4}


def test_a_weight_may_be_followed_at_each_rate_that_the_search_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = [NPO(beta) for beta in (0.05, 0.1, 0.2, 0.5, 1.0)]
    scores = {(0.1, 1e-3, 2): 0.5, (0.2, 1e-3, 2): 0.6, (0.1, 3e-4, 2): 0.3, (0.2, 3e-4, 2): 0.4, (0.5, 3e-4, 4): 0.9}
    options = {"ladder": [ladder], "start": (3e-4, 1e-3), "rates": (1e-4, 3e-4, 1e-3)}
    table, taken = searched(monkeypatch, scores, **options)
    assert trained.choice(table) == {"settings": str(NPO(0.2)), "lr": 1e-3, "steps": 2}
    assert (0.5, 3e-4) not in {(beta, rate) for beta, rate, _ in taken}, "0.2 was better at 1e-3"
    monkeypatch.setattr(trained, "AT_EVERY_RATE", ("npo",))
    table, taken = searched(monkeypatch, scores, **options)
    assert trained.choice(table) == {"settings": str(NPO(0.5)), "lr": 3e-4, "steps": 4}, "poor at 1e-3 alone"
    tried = [(beta, rate) for beta, rate, _ in taken]
    assert {(0.2, 3e-4), (1.0, 3e-4), (0.5, 1e-4)} < set(tried), "along the line at its rate, and all around the best"
    assert (0.05, 1e-3) not in tried and len(set(tried)) == len(tried), "not past what is worse, and nothing twice"


def test_every_ladder_passes_through_its_grid_and_settings_find_their_objective() -> None:
    for method, lines in trained.LADDERS.items():
        grid = trained.objectives(method)
        through = [line for line in lines if grid[0] in line]
        for line in through:
            inside = [place for place, rung in enumerate(line) if rung in grid]
            assert inside == list(range(inside[0], inside[-1] + 1))
            (varies,) = (f.name for f in fields(line[0]) if len({getattr(rung, f.name) for rung in line}) > 1)
            room = inside[0] > 0 or getattr(line[0], varies) == 0
            assert room and inside[-1] < len(line) - 1, "there is room on either side, or nothing below"
            assert len({str(rung) for rung in line}) == len(line)
        assert through and all(trained.objective(method, str(rung)) == rung for line in lines for rung in line)
        assert all(trained.objective(method, str(one)) == one for one in grid)
    with pytest.raises(ValueError, match=r"npo has no setting NPO\(beta=7\); it has NPO\(beta=0.1"):
        trained.objective("npo", "NPO(beta=7)")


def test_a_method_of_several_weights_can_leave_its_grid_along_each() -> None:
    first = trained.objectives("rmu")[0]
    beside = {
        rung
        for line in trained.ladder("rmu")
        for rung in line
        if first in line and abs(line.index(rung) - line.index(first)) == 1
    }
    assert beside == {
        RMU(0.35, 8.0, 1.0), RMU(0.65, 8.0, 1.0), RMU(0.5, 2.0, 1.0), RMU(0.5, 32.0, 1.0),
        RMU(0.5, 8.0, 0.1), RMU(0.5, 8.0, 10.0),
    }  # fmt: skip


def test_lora_wraps_the_grid_and_the_ladder_and_refuses_methods_that_pick_weights() -> None:
    grid = trained.objectives("npo", lora=4)
    assert grid[0] == LowRank(NPO(0.1), 4) and len(grid) == len(trained.objectives("npo"))
    assert set(grid) <= {rung for line in trained.ladder("npo", lora=4) for rung in line}
    assert trained.objective("npo", str(grid[1]), lora=4) == grid[1]
    with pytest.raises(ValueError, match="has no setting LowRank"):
        trained.objective("npo", str(grid[1]))
    with pytest.raises(ValueError, match="rmu chooses single weights to train, so it has no form with LoRA"):
        trained.objectives("rmu", lora=4)


def test_an_unknown_method_is_named() -> None:
    assert trained.objectives("npo")[0].name == "npo"
    assert {objective.name for grid in trained.OBJECTIVES.values() for objective in grid} == set(trained.OBJECTIVES)
    with pytest.raises(ValueError, match="'npq'; trained baselines are ga, ga_diff"):
        trained.objectives("npq")


def test_the_matrix_runs_every_trained_method_and_tables_name_it() -> None:
    assert set(matrix.TRAINED) == set(trained.OBJECTIVES)
    assert set(trained.OBJECTIVES) | {"detector", "leace", "manu"} <= set(METHODS) & set(METHOD_NAMES)
    preset = load("tiny-full")
    assert set(preset.trained) == set(trained.OBJECTIVES)
    taken = {tuple(pattern.split("/")[2:-1]) for pattern in load("tiny").from_reference if pattern.startswith("logs/")}
    methods = {("*", method) for method in (*matrix.TRAINED, "detector", "leace", "manu", "mllmeraser_quadratic")}
    assert taken == methods | {("1[05]", "*")}, "tiny shows what only tiny-full runs"


def test_one_choice_serves_every_split(tmp_path: Path) -> None:
    five, ten = (Study(preset="tiny", model="llava", split=split, out=tmp_path) for split in (5, 10))
    with pytest.raises(FileNotFoundError, match="run notebook 08_tune for llava and npo first"):
        trained.read_choice(ten, "npo")
    five.note("tuning-npo", {"choice": {"best": {"settings": "NPO(beta=0.5)", "lr": 0.001, "steps": 40}}})
    assert trained.read_choice(ten, "npo") == {"settings": "NPO(beta=0.5)", "lr": 0.001, "steps": 40}
    assert five.figure("x").parent != ten.figure("x").parent, "a split does not overwrite another's figures"
