"""Ablations of the gate: thinning spreads over people, and each table says what it should on streams made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eraser_lib.experiments import ablate, ablate_layers
from eraser_lib.experiments.ablate import Bench
from eraser_lib.experiments.activations import Activations
from eraser_lib.experiments.methods import Decision
from eraser_lib.experiments.sets import general_questions
from eraser_lib.figures import ablation
from eraser_lib.figures.layers import squares
from eraser_lib.sites import HookSite

WIDTH, PEOPLE = 12, 2


def streams(count: int, g: torch.Generator, *, known: bool) -> Activations:
    """Two blocks: forgotten people lie along axis 10 in the first one and along axis 11 in the second; the other of the
    two axes varies for everybody and tells nothing."""
    found = {}
    for layer in (0, 1):
        rows = torch.zeros(count, WIDTH)
        rows[:, :6] = torch.randn(count, 6, generator=g) + 1
        rows += 0.05 * torch.randn(count, WIDTH, generator=g)
        rows[:, 11 - layer] = 3 * torch.randn(count, generator=g)
        if known:
            rows[:, 10 + layer] += 3
        found[HookSite(layer, "output")] = rows
    return found


@pytest.fixture(scope="module")
def bench() -> Bench:
    g = torch.Generator().manual_seed(0)
    forget = [replace(q, person=f"p{i % PEOPLE}") for i, q in enumerate(general_questions(64, "fit"))]
    retain = [replace(q, person=f"r{i % 20}") for i, q in enumerate(general_questions(200, "fit"))]
    sets = {"test": 80, "retain": 150, "celebrity": 50}
    read = {
        "fit": {"forget": streams(64, g, known=True), "retain": streams(200, g, known=False)},
        "calibrate": {"people": streams(300, g, known=False)},
        "test": {name: streams(count, g, known=name == "test") for name, count in sets.items()},
    }
    return Bench(read, {"forget": forget, "retain": retain})


def test_thinning_takes_from_everybody(bench: Bench) -> None:
    rows = bench.rows["forget"]
    for share, each in ((0.25, 8), (1 / 64, 2)):
        stay = ablate.thinned(rows, share)
        kept = [row.person for row, stays in zip(rows, stay.tolist(), strict=True) if stays]
        assert {person: kept.count(person) for person in set(kept)} == pytest.approx({"p0": each, "p1": each}, abs=2)
    assert ablate.thinned(rows, 1.0).all()


def test_fewer_rows(bench: Bench) -> None:
    table = ablate.fewer_rows(bench, Decision((1,), "person:ridge_bias"), shares=(0.1, 1.0))
    assert table[["fewer", "share"]].to_numpy().tolist() == [
        ["forget", 0.1], ["forget", 1.0], ["retain", 0.1], ["retain", 1.0]
    ]  # fmt: skip
    assert table["rows"].tolist()[1::2] == [64, 200]
    whole = table[table["share"] == 1.0]
    assert (whole["opened"] > 0.95).all() and (whole["auc"] > 0.99).all() and (whole["retain_opened"] < 0.05).all()
    assert whole.iloc[0].drop(["fewer", "rows"]).equals(whole.iloc[1].drop(["fewer", "rows"])), "both are the whole fit"
    assert len(ablation.rows_curve(table).axes) == 2


def test_solver_options_and_what_leaves_nothing(bench: Bench) -> None:
    table = ablate.solver_options(bench, 0)
    assert set(table["solver"]) == {"published", "hard", "ridge"}
    ridge = table[(table["solver"] == "ridge") & (table["option"] == "beta")]
    assert ridge["value"].tolist() == list(ablate.BETA) and (ridge["auc"] > 0.99).all()
    assert len(ablation.option_curves(table).axes) == 4


def test_a_gate_read_one_block_off_sees_nothing(bench: Bench) -> None:
    table = ablate.site_shift(bench, "person:ridge_bias").set_index(["fitted", "read"])
    assert len(table) == 4
    for layer in (0, 1):
        assert table.loc[(layer, layer), "auc"] > 0.99
        assert table.loc[(layer, 1 - layer), "auc"] < 0.7


def test_stretches_are_blocks_in_a_row() -> None:
    assert ablate_layers.stretches(3) == [(0,), (0, 1), (0, 1, 2), (1,), (1, 2), (2,)]
    assert ablate_layers.stretches(3, 2) == [(0,), (0, 1), (1,), (1, 2), (2,)]
    deep = ablate_layers.stretches(32)
    assert len(deep) == 8 * 9 // 2 and (0, 4, 9) in deep and max(deep, key=len)[-1] == 31, "of those looked at"


def test_a_gate_is_fitted_and_read_at_each_stretch(bench: Bench) -> None:
    decision = Decision((1,), "person:ridge_bias")
    table = ablate_layers.read_at(bench, decision, ablate_layers.stretches(2)).set_index(["first", "last"])
    assert table.index.tolist() == [(0, 0), (0, 1), (1, 1)]
    own = ablate.fewer_rows(bench, decision, shares=(1.0,)).iloc[0]
    for column in ("auc", "opened", "retain_opened"):
        assert table.loc[(1, 1), column] == own[column], "the gate of the study is one of them"
    assert table.loc[(0, 1), "auc"] >= table[["auc"]].loc[[(0, 0), (1, 1)], "auc"].min()
    chart = squares({"a: ": table.reset_index(), "b: ": table.reset_index()}, {"auc": "AUC"})
    upper, lower = chart.axes
    assert upper.get_title(loc="left") == "a: AUC" and lower.get_title(loc="left") == "b: AUC"
    cells = [text.get_text() for text in upper.texts]
    assert cells == [f"{table.loc[at, 'auc']:.2f}" for at in ((0, 0), (0, 1), (1, 1))], "no last before first"
