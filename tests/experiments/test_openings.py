"""What is kept of the ablations of a gate gives their rates again, and intervals that depend on who was asked."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from eraser_lib.bench.records import Question
from eraser_lib.experiments import ablate, ablate_width, curved, gates, openings
from eraser_lib.experiments.methods import Decision
from eraser_lib.experiments.sets import general_questions
from eraser_lib.threshold import calibrate
from tests.experiments.test_ablate import PEOPLE, streams

DECISION = Decision((0, 1), "person:ridge_bias")


@pytest.fixture
def recorder() -> openings.Recorder:
    g = torch.Generator().manual_seed(0)
    counts = {"test": 80, "retain": 150, "celebrity": 50}

    def rows(count: int, people: int) -> list[Question]:
        made = enumerate(general_questions(count, "fit"))
        return [replace(q, id=f"{i}", person=f"p{i % people}") for i, q in made]

    read = {
        "fit": {"forget": streams(64, g, known=True), "retain": streams(200, g, known=False)},
        "calibrate": {"people": streams(300, g, known=False)},
        "test": {name: streams(count, g, known=name == "test") for name, count in counts.items()},
    }
    asked = {name: rows(count, 10) for name, count in counts.items()}
    return openings.Recorder(read, {"forget": rows(64, PEOPLE), "retain": rows(200, 20)}, asked=asked)


def agree(found: pd.DataFrame, table: pd.DataFrame) -> None:
    """The rates are those of the ablation, inside their intervals."""
    assert len(found) == len(table)
    for name in ("opened", "retain_opened", "celebrity_opened", "auc"):
        assert found[name].tolist() == pytest.approx(table[name].tolist(), abs=1e-6), name
        for low, high in ((found[f"{name}_low"], found[name]), (found[name], found[f"{name}_high"])):
            assert (low <= high + 1e-9).all()


def test_rows_give_the_rates_of_the_ablation(recorder: openings.Recorder) -> None:
    table = ablate.fewer_rows(recorder, DECISION, shares=(0.1, 1.0))
    kept = recorder.recorded()
    assert len(kept) == 4 * (80 + 150 + 50)
    one = kept[(kept["fewer"] == "retain") & (kept["share"] == 0.1) & (kept["subset"] == "celebrity")]
    assert one["id"].tolist() == [question.id for question in recorder.asked["celebrity"]]
    found = openings.rates(kept, ["fewer", "share", "rows"])
    assert (found["n_people"] == 10).all()
    agree(found, table)


def test_widths_are_those_of_the_ablation_with_the_mean_over_projections(recorder: openings.Recorder) -> None:
    chosen = {"widths": (4,), "people": (7, 20)}
    table = ablate_width.width_table(recorder, DECISION, **chosen, seeds=2)
    recorder.found.clear()
    kept = openings.record_widths(recorder, DECISION, **chosen, seeds=2)
    by = ["solver", "width", "people"]
    found = openings.rates(kept, by, repeat="seed").set_index(by)
    wanted = table.groupby(by)[["opened", "retain_opened", "celebrity_opened", "auc"]].mean().reindex(found.index)
    pd.testing.assert_frame_equal(found[wanted.columns], wanted, rtol=0, atol=1e-6)
    whole = found.xs(12, level="width")
    assert whole["auc_low"].notna().all() and found.xs(4, level="width")["auc_low"].isna().all()


def test_an_interval_is_over_people() -> None:
    """The same share opened: of everybody a half, or of half of the people all."""
    rows = pd.DataFrame({
        "setting": ["a"] * 80 + ["b"] * 80, "person": [f"p{i % 10}" for i in range(80)] * 2,
        "opened": [i // 10 % 2 == 0 for i in range(80)] + [i % 2 == 0 for i in range(80)],
    }).assign(gate_value=0.0)  # fmt: skip
    rows = pd.concat([rows.assign(subset=name) for name in ("test", *openings.OTHERS)], ignore_index=True)
    spread, gathered = openings.rates(rows, ["setting"]).to_dict("records")
    assert spread["opened"] == gathered["opened"] == 0.5
    assert spread["opened_low"] == spread["opened_high"] == 0.5
    assert gathered["opened_low"] < 0.3 and gathered["opened_high"] > 0.7


def test_settings_and_gate_values_do_not_get_in_each_others_way(recorder: openings.Recorder) -> None:
    table = ablate.solver_options(recorder, 0)
    found = openings.rates(recorder.recorded(), ["solver", "option", "value"])
    assert found["value"].tolist() == table["value"].tolist()
    agree(found, table)


def test_curves_are_those_of_the_quadratic_gate(recorder: openings.Recorder) -> None:
    table = curved.tested(recorder.read, (0, 1), (0, 4), alpha=recorder.alpha)
    rows = openings.record_curves(recorder, (0, 1), (0, 4))
    found = openings.rates(rows, ["curves"], others=("retain",))
    wanted = table.rename(columns={name: openings.named(name) for name in recorder.asked})
    pd.testing.assert_frame_equal(found[wanted.columns], wanted, rtol=0, atol=1e-6)


def test_what_a_gate_says_to_everybody_is_kept(recorder: openings.Recorder) -> None:
    gate = gates.fit_joined(DECISION.solver, recorder.read["fit"], recorder.rows, DECISION.layers)
    others = [replace(q, id=f"c{i}") for i, q in enumerate(general_questions(300, "calibrate"))]
    asked = {"calibrate": {"people": others}, "test": recorder.asked}
    kept = openings.gate_rows(gate, DECISION.layers, recorder.read, asked)
    threshold = calibrate_by(kept[kept["role"] == "calibrate"], recorder.alpha)
    shares = (kept["gate_value"] > threshold).groupby(kept["group"]).mean()
    wanted = recorder.judge(gate, DECISION.layers)
    assert shares["test"] == wanted["opened"] and shares["retain"] == wanted["retain_opened"]


def calibrate_by(rows: pd.DataFrame, alpha: float) -> float:
    groups = {str(group): torch.tensor(own["gate_value"].to_numpy()) for group, own in rows.groupby("group")}
    return calibrate(groups, alpha).value
