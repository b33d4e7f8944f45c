"""The look of all figures, and how a figure is saved together with the numbers behind it. Needs no torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAPER_WHITE = "#fdfcf9"
INK = "#26282b"
MUTED = "#6d7278"
GRID = "#e2dfd8"
PALETTE: tuple[str, ...] = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b07c00",
    "#3f8fc4",
    "#7a5195",
    "#5a5a5a",
)
"""Colours told apart with any common colour blindness (after Okabe and Ito), dark enough for text."""
SUBSET_COLOURS: dict[str, str] = {
    "forget": "#d55e00", "test": "#b07c00", "retain": "#0072b2", "celebrity": "#009e73", "dev": "#cc79a7",
    "stranger": "#7a5195", "benign": "#3f8fc4", "forbidden": "#8c2d04", "general": "#5a5a5a",
    "same_photo": "#2f6f4f",
}  # fmt: skip
METHOD_COLOURS: dict[str, str] = {
    "vanilla": "#5a5a5a", "retain_only": "#26282b", "prompt": "#7a5195", "prompt_oracle": "#7a5195",
    "detector": "#2f6f4f", "constant": "#b07c00", "leace": "#8c6d1f", "ga": "#00785a", "ga_diff": "#009e73",
    "kl_min": "#2f6f4f", "npo": "#0072b2", "idk": "#005a8c", "undial": "#7a5195", "rmu": "#9c3f6b",
    "mmunlearner": "#cc79a7", "manu": "#8c2d04",
    "mllmeraser_published": "#3f8fc4", "mllmeraser": "#d55e00",
    "mllmeraser_quadratic": "#a33b00",
}  # fmt: skip

STYLE: Any = {
    "figure.facecolor": PAPER_WHITE, "savefig.facecolor": PAPER_WHITE, "axes.facecolor": PAPER_WHITE,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.8, "axes.axisbelow": True, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "font.size": 10,
    "font.family": "DejaVu Sans", "lines.linewidth": 2.0, "legend.frameon": False, "figure.dpi": 110,
    "figure.constrained_layout.use": True, "svg.hashsalt": "eraser_lib",
}  # fmt: skip
"""An opaque light ground with dark ink: the same figure is readable in print and on a dark page."""


@contextmanager
def canvas(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float], **options: Any
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure in the common style and its axes as an array of shape `(rows, columns)`.

    The figure is closed for pyplot afterwards, so that a notebook shows it once, as the value of its cell.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
        try:
            yield figure, axes
            figure.canvas.draw()  # lay out while the style holds
        finally:
            plt.close(figure)


def save_figure(figure: Figure, path: Path, data: Mapping[str, Any]) -> list[Path]:
    """Write `<path>.png`, `<path>.svg` and `<path>.json` with the numbers behind the figure.

    Equal figures give equal bytes: no dates and no software names are written.

    Args:
        figure: what to save.
        path: target without a suffix; folders are made.
        data: numbers, texts, arrays and data frames; floats are rounded to 6 significant digits.

    Returns:
        The three paths.

    Raises:
        TypeError: `data` holds something that has no JSON form.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    targets = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg", "json")]
    text = json.dumps(to_json(data), indent=1, sort_keys=True, allow_nan=False) + "\n"
    temporary = [target.with_name(f".{target.name}.{os.getpid()}.tmp") for target in targets]
    with plt.rc_context(STYLE):
        figure.savefig(temporary[0], format="png", dpi=160, metadata={"Software": None})
        figure.savefig(temporary[1], format="svg", metadata={"Date": None, "Creator": None})
    temporary[2].write_text(text)
    for source, target in zip(temporary, targets, strict=True):
        os.replace(source, target)
    return targets


def to_json(value: Any) -> Any:
    """A JSON form of numbers, texts, arrays, data frames and containers; NaN and infinities become null.

    Raises:
        TypeError: the value has none.
    """
    if isinstance(value, pd.DataFrame):
        return [to_json(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic | pd.Series):
        return to_json(value.tolist())
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Sequence | set | frozenset):
        return [to_json(item) for item in value]
    raise TypeError(f"the data of a figure must be plain numbers, texts or tables; found a {type(value).__name__}")


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, gap: float = 0.055) -> None:
    """Write labels at the right ends of lines, pushed apart so that they do not overlap.

    Args:
        axes: axes whose limits are final.
        ends: x, y, text and colour of each label, in data coordinates.
        gap: least distance of two labels as a share of the height of the axes.
    """

    def height(y: float) -> float:
        return float(axes.transAxes.inverted().transform(axes.transData.transform((0.0, y)))[1])

    ordered = sorted(ends, key=lambda end: end[1])
    places: list[float] = []
    for _, y, _, _ in ordered:
        places.append(max(height(y), places[-1] + gap if places else -math.inf))
    limit = max(1.0, max((height(y) for _, y, _, _ in ordered), default=1.0))
    for index in reversed(range(len(places))):  # what went over the top comes down again
        places[index], limit = min(places[index], limit), min(places[index], limit) - gap
    for (x, _, text, colour), at in zip(ordered, places, strict=True):
        axes.annotate(
            text, (x, at), xycoords=("data", "axes fraction"), xytext=(6, 0), textcoords="offset points",
            va="center", color=colour, fontsize=9, annotation_clip=False,
        )  # fmt: skip
