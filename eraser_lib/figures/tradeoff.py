"""Forgetting against keeping, every method in one picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eraser_lib.plotting import INK, METHOD_COLOURS, PAPER_WHITE, canvas
from eraser_lib.tables import METHOD_NAMES, MODEL_NAMES, REFERENCES

CORNER = ((0.65, 1.01), (-0.02, 0.55))
"""Probabilities, kept and gone, of the lower panels."""


def tradeoff(
    points: pd.DataFrame, curves: Mapping[str, Mapping[str, pd.DataFrame]], speaking: pd.DataFrame | None = None
) -> Figure:
    """Answer probability on retained people across, on forgotten people upwards; best is low right.

    A column per model: above everything, below the corner where little is left and little is lost.

    Args:
        points: columns `model, method, gone, kept` and their `_low`, `_high`: marks, numbered as in the legend.
        curves: model -> method -> columns `gone, kept`, in the order of the dial: thin lines, on the dev people.
        speaking: columns as of `points`, and `form`: hollow marks, of methods that must go on speaking; diamonds where
            they were trained for as many passes as with fewer people.
    """
    hollow = points.iloc[:0] if speaking is None else speaking
    models = list(dict.fromkeys(points["model"]))
    methods = [name for name in METHOD_NAMES if name in set(points["method"])]
    size = (4.6 * len(models) + 2.4, 9.2)
    with canvas(2, len(models), size=size, sharex="row", sharey="row") as (figure, axes):
        for column, model in enumerate(models):
            rows = [*_of(points, model), *_of(hollow, model)]
            for panel, mark, (left, right), (bottom, top) in zip(
                axes[:, column], (13, 10), ((-0.04, 1.04), CORNER[0]), ((-0.04, 1.04), CORNER[1]), strict=True
            ):
                for method, line in curves.get(model, {}).items():
                    if len(line) > 1:
                        panel.plot(line["kept"], line["gone"], color=METHOD_COLOURS.get(method, INK), linewidth=1.0,
                                   alpha=0.45, zorder=1)  # fmt: skip
                for row in rows:
                    if left < row.kept < right and bottom < row.gone < top:
                        _mark(panel, row, methods.index(row.method) + 1, mark)
                panel.set_xlim(left, right)
                panel.set_ylim(bottom, top)
            axes[0, column].set_title(MODEL_NAMES.get(model, model))
            axes[1, column].set_title("the corner at the lower right", fontsize=9)
            axes[1, column].set_xlabel("probability of right answers, retained people")
        for panel in axes[:, 0]:
            panel.set_ylabel("probability of right answers, forgotten people")
        handles = [
            Line2D([], [], marker="s" if name in REFERENCES else "o", linestyle="", markersize=8,
                   color=METHOD_COLOURS.get(name, INK)) for name in methods
        ]  # fmt: skip
        labels = [f"{number} {METHOD_NAMES[name]}" for number, name in enumerate(methods, 1)]
        figure.legend(handles, labels, loc="outside right center", fontsize=8.5)
    return figure


def _mark(panel: Any, row: Any, number: int, size: float) -> None:
    """A numbered mark with its intervals; hollow in a form other than the method's best."""
    colour = METHOD_COLOURS.get(row.method, INK)
    filled = row.form == "best"
    panel.plot([row.kept_low, row.kept_high], [row.gone] * 2, color=colour, linewidth=1.2, alpha=0.6)
    panel.plot([row.kept] * 2, [row.gone_low, row.gone_high], color=colour, linewidth=1.2, alpha=0.6)
    shape = "s" if row.method in REFERENCES else "D" if row.form.endswith("passes") else "o"
    panel.plot(row.kept, row.gone, shape, color=colour, markersize=size, zorder=3,
               markerfacecolor=colour if filled else PAPER_WHITE)  # fmt: skip
    panel.annotate(str(number), (row.kept, row.gone), ha="center", va="center", color="white" if filled else colour,
                   fontsize=0.58 * size, weight="bold", zorder=4)  # fmt: skip


def _of(points: pd.DataFrame, model: str) -> Iterator[Any]:
    rows = points[points["model"] == model] if len(points) else points
    return rows.assign(form=rows.get("form", "best")).itertuples()
