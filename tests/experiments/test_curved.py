"""The quadratic gate of the study: where it reads, how many curves it takes, and what it opens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from eraser_lib import HookSite
from eraser_lib.baselines.detector import RULES
from eraser_lib.experiments import curved
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.figures.curved import opened_by_curves
from eraser_lib.threshold import calibrate

WIDTH = 6
LAYERS = (1, 2)


def streams(seed: int, count: int, *, narrow: bool) -> Activations:
    """Rows at three blocks; forgotten ones lie as others do, but fifty times as narrowly in one direction of each."""
    g = torch.Generator().manual_seed(seed)
    found = {HookSite(layer): torch.randn(count, WIDTH, generator=g) for layer in range(3)}
    for rows in found.values():
        rows[:, 0] *= 0.02 if narrow else 1.0
    return found


@pytest.fixture
def read() -> dict[str, dict[str, Activations]]:
    sides = {"forget": (300, True), "retain": (600, False)}
    return {
        "fit": {name: streams(n, count, narrow=narrow) for n, (name, (count, narrow)) in enumerate(sides.items())},
        "calibrate": {"retain": streams(5, 400, narrow=False), "celebrity": streams(6, 400, narrow=False)},
        "test": {"test": streams(7, 200, narrow=True), "retain": streams(8, 200, narrow=False),
                 "same_photo": streams(9, 0, narrow=False)},
    }  # fmt: skip


def test_it_reads_where_two_gaussians_serve_best() -> None:
    rows: list[dict[str, Any]] = [
        {"rule": "5 nearest", "layers": [3]},
        {"rule": "Gaussian", "layers": []},
        {"rule": "Gaussian", "layers": [2, 3]},
        {"rule": "Gaussian", "layers": [1]},
    ]
    assert curved.reading(rows) == (2, 3)
    with pytest.raises(ValueError, match="run it again with all its rules"):
        curved.reading(rows[:2])


def test_numbers_of_curves_end_with_all() -> None:
    assert curved.counts(6) == [0, 1, 2, 4, 6] and curved.counts(8) == [0, 1, 2, 4, 8] and curved.counts(1) == [0, 1]


def test_the_fewest_that_open_almost_as_much() -> None:
    table = pd.DataFrame({"curves": [0, 1, 2, 4], "opened": [0.2, 0.96, 0.955, 0.965]})
    assert curved.fewest(table) == 1
    assert curved.fewest(table.assign(opened=[0.2, 0.9, 0.99, 0.98])) == 2


def test_curves_open_what_no_line_does_and_all_of_them_are_the_detector(read) -> None:  # type: ignore[no-untyped-def]
    table = curved.tested(read, LAYERS, [0, 2, 12], alpha=0.05).set_index("curves")
    assert "same_photo" not in table, "nothing was asked about it"
    assert table.loc[0, "test"] < 0.3 < 0.6 < table.loc[2, "test"]
    assert table["retain"].max() < 0.15 and table.loc[2, "auc"] > 0.9
    seen = {name: join(rows, LAYERS) for name, rows in read["fit"].items()}
    detector = RULES["Gaussian"](seen["forget"], seen["retain"])
    bound = calibrate({name: detector(join(rows, LAYERS)) for name, rows in read["calibrate"].items()}, 0.05).value
    own = detector(join(read["test"]["test"], LAYERS)) > bound
    assert table.loc[12, "test"] == pytest.approx(float(own.double().mean()))


def test_practice_is_averaged_over_the_groups(read) -> None:  # type: ignore[no-untyped-def]
    groups = [
        SimpleNamespace(fit=read["fit"], unseen=read["test"]["test"]),
        SimpleNamespace(fit=read["fit"], unseen=streams(11, 100, narrow=False)),
    ]
    dev: Any = SimpleNamespace(
        rehearsals=groups, activations={"calibrate": read["calibrate"], "select": {"kept": read["test"]["retain"]}}
    )
    table = curved.practised(dev, LAYERS, [2, 0], alpha=0.05).set_index("curves")
    assert table.index.tolist() == [0, 2]
    (easy,) = curved.tested(read, LAYERS, [2], alpha=0.05)["test"]
    assert table.loc[2, "opened_least"] < 0.2 < table.loc[2, "opened"] < easy
    chart = opened_by_curves(table.reset_index(), curved.tested(read, LAYERS, [0, 2], alpha=0.05), 2)
    assert [panel.get_title(loc="left") for panel in chart.axes] == ["chosen by", "found afterwards"]
