from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from eraser_lib import figures
from eraser_lib.evaluate.summary import summarise_rows
from tests.evaluate.synthetic import make_log

RNG = np.random.default_rng(0)


def activations(shift: float) -> dict[int, dict[str, np.ndarray]]:
    return {
        layer: {"forget": RNG.normal(size=(20, 8)) + shift * layer, "retain": RNG.normal(size=(30, 8))}
        for layer in range(3)
    }


def gate_rows() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"layer": layer, "solver": solver, "forget": person < 5, "value": RNG.normal(person < 5),
            "person": person}
            for layer in range(3)
            for solver in ("ridge", "null space")
            for person in range(15)
            for _ in range(3)
        ]
    )  # fmt: skip


def pca() -> Figure:
    return figures.activation_pca(activations(0.2), activations(1.5))


def gates() -> Figure:
    rows = pd.DataFrame({"subset": ["forget"] * 50 + ["retain"] * 80, "gate_value": RNG.normal(size=130)})
    return figures.gate_distributions(rows, threshold=0.5, title="layer 4")


def spectrum() -> Figure:
    values = {f"layer {layer}": RNG.random(64) ** 8 for layer in range(3)}
    return figures.eigen_spectrum(values, share=0.99)


def cosines() -> Figure:
    return figures.cosine_heatmap(pd.DataFrame(RNG.uniform(-1, 1, (3, 5)), index=["a, b", "a, c", "b, c"]))


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8), "RGB")


def dots() -> Figure:
    logs = [make_log(method) for method in ("vanilla", "ga_diff", "mllmeraser")]
    return figures.comparison_dots(summarise_rows(pd.concat(logs, ignore_index=True)), "answer_prob")


def training() -> Figure:
    history = [
        {"step": step, "series": series, "value": 1 / (step + 1),
        "stage": "letters" if step < 20 else "people"}
        for series in ("loss", "held out") for step in range(40)
    ]  # fmt: skip
    return figures.training_curves(pd.DataFrame(history))


def strength() -> Figure:
    points = [
        {"strength": x / 4, "series": s, "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}
        for s in ("dev refused", "retain right") for x in range(8) for v in [x / 8]
    ]  # fmt: skip
    return figures.strength_curve(pd.DataFrame(points), chosen=1.0)


def reentry() -> Figure:
    positions = {"vanilla": [3, 4, 3, None], "mllmeraser": [None, None, 7, float("nan")]}
    return figures.reentry_curve(positions)


DRAWINGS: dict[str, Callable[[], Figure]] = {
    "pca": pca,
    "gates": gates,
    "roc": lambda: figures.roc_by_layer(gate_rows()),
    "auc": lambda: figures.auc_by_layer(figures.roc_numbers(gate_rows())),
    "spectrum": spectrum,
    "cosines": cosines,
    "strip": lambda: figures.image_strip([(picture(0), picture(1), "a face")]),
    "sheet": lambda: figures.portrait_sheet([picture(0)] * 5, ["Anna"] * 5, columns=3),
    "dots": dots,
    "training": training,
    "strength": strength,
    "reentry": reentry,
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_draws_and_saves(name: str, tmp_path: Path) -> None:
    figure = DRAWINGS[name]()
    png, svg, data = figures.save_figure(figure, tmp_path / name, {"name": name, "values": np.arange(3.0)})
    with Image.open(png) as image:
        assert image.convert("RGBA").getpixel((0, 0))[3] == 255, "the ground must be opaque"
    assert "<svg" in svg.read_text()
    assert json.loads(data.read_text()) == {"name": name, "values": [0.0, 1.0, 2.0]}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png", ".svg"]


def test_saved_files_are_byte_stable(tmp_path: Path) -> None:
    first = figures.save_figure(strength(), tmp_path / "a", {})
    second = figures.save_figure(strength(), tmp_path / "b", {})
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_json_forms() -> None:
    frame = pd.DataFrame({"x": [1.23456789, np.nan], "y": ["a", "b"]})
    assert figures.to_json({"f": frame, 3: np.int64(4), "b": np.bool_(True)}) == {
        "f": [{"x": 1.23457, "y": "a"}, {"x": None, "y": "b"}], "3": 4, "b": True,
    }  # fmt: skip
    with pytest.raises(TypeError, match="found a object"):
        figures.to_json(object())


def test_pca_numbers_see_the_shift() -> None:
    numbers = figures.pca_numbers(activations(0.0), activations(3.0))
    last = numbers[numbers["layer"] == 2].set_index("state")
    assert last.loc["after", "centroid_distance"] > 5 * last.loc["before", "centroid_distance"]
    assert last.loc["after", "silhouette"] > 0.7 > last.loc["before", "silhouette"]
    assert last["explained_1"].between(0, 1).all()
