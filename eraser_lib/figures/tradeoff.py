"""Forgetting against keeping, every method in one picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eraser_lib.plotting import INK, METHOD_COLOURS, PAPER_WHITE, canvas
from eraser_lib.tables import METHOD_NAMES, MODEL_NAMES, REFERENCES


def tradeoff(
    points: pd.DataFrame, curves: Mapping[str, Mapping[str, pd.DataFrame]], speaking: pd.DataFrame | None = None
) -> Figure:
    """A panel per model: answer probability on retained people across, on forgotten people upwards; best is low right.

    Args:
        points: columns `model, method, gone, kept` and their `_low`, `_high`: marks, numbered as in the legend.
        curves: model -> method -> columns `gone, kept`, in the order of the dial: thin lines, on the dev people.
        speaking: columns as of `points`: hollow marks, for methods whose best babbles, of their best that speaks.
    """
    hollow = points.iloc[:0] if speaking is None else speaking
    models = list(dict.fromkeys(points["model"]))
    methods = [name for name in METHOD_NAMES if name in set(points["method"])]
    with canvas(1, len(models), size=(4.6 * len(models) + 2.4, 4.8), sharex=True, sharey=True) as (figure, axes):
        for panel, model in zip(axes[0], models, strict=True):
            for method, line in curves.get(model, {}).items():
                if len(line) > 1:
                    panel.plot(line["kept"], line["gone"], color=METHOD_COLOURS.get(method, INK), linewidth=1.0,
                               alpha=0.45, zorder=1)  # fmt: skip
            for row in (*_of(points, model), *_of(hollow, model)):
                colour = METHOD_COLOURS.get(row.method, INK)
                filled = row.form != "speaking"
                panel.plot([row.kept_low, row.kept_high], [row.gone] * 2, color=colour, linewidth=1.2, alpha=0.6)
                panel.plot([row.kept] * 2, [row.gone_low, row.gone_high], color=colour, linewidth=1.2, alpha=0.6)
                shape = "s" if row.method in REFERENCES else "o"
                panel.plot(row.kept, row.gone, shape, color=colour, markersize=13, zorder=3,
                           markerfacecolor=colour if filled else PAPER_WHITE)  # fmt: skip
                panel.annotate(str(methods.index(row.method) + 1), (row.kept, row.gone), ha="center", va="center",
                               color="white" if filled else colour, fontsize=7.5, weight="bold", zorder=4)  # fmt: skip
            panel.set_xlim(-0.04, 1.04)
            panel.set_ylim(-0.04, 1.04)
            panel.set_title(MODEL_NAMES.get(model, model))
            panel.set_xlabel("probability of right answers, retained people")
        axes[0, 0].set_ylabel("the same, forgotten people")
        handles = [
            Line2D([], [], marker="s" if name in REFERENCES else "o", linestyle="", markersize=8,
                   color=METHOD_COLOURS.get(name, INK)) for name in methods
        ]  # fmt: skip
        labels = [f"{number} {METHOD_NAMES[name]}" for number, name in enumerate(methods, 1)]
        figure.legend(handles, labels, loc="outside right center", fontsize=8.5)
    return figure


def _of(points: pd.DataFrame, model: str) -> Iterator[Any]:
    rows = points[points["model"] == model] if len(points) else points
    return rows.assign(form=rows.get("form", "best")).itertuples()
