"""A gate over the width of the stream, by how many people must be left alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eraser_lib.plotting import PALETTE, canvas, label_ends
from eraser_lib.tables import MODEL_NAMES

TITLES = {"decision": "the gate of the study", "gaussian": "two Gaussians", "hard": "one hard null space"}
LABELS = {"auc": "AUC", "opened": "share opened"}


def width_curves(table: pd.DataFrame, column: str = "auc") -> Figure:
    """Mean over projections, with the least and the most of them as a band; one panel per solver.

    Args:
        table: columns `solver, width, people, seed` and `column`.
        column: what is shown.
    """
    solvers = [solver for solver in TITLES if solver in set(table["solver"])]
    with canvas(1, len(solvers), size=(4.2 * len(solvers), 3.4), sharex=True, sharey=True) as (figure, axes):
        for panel, solver in zip(axes[0], solvers, strict=True):
            ends = []
            own = table[table["solver"] == solver]
            for colour, (people, group) in zip(PALETTE, own.groupby("people"), strict=False):
                spread = group.groupby("width")[column].agg(["mean", "min", "max"])
                panel.plot(spread.index, spread["mean"], color=colour, marker="o", markersize=4)
                panel.fill_between(spread.index, spread["min"], spread["max"], color=colour, alpha=0.15, linewidth=0)
                ends.append((float(spread.index[-1]), float(spread["mean"].iloc[-1]), f"{people} people", colour))
            _widths(panel, table["width"])
            panel.set_title(TITLES[solver])
            label_ends(panel, ends, gap=0.09)
        axes[0, 0].set_ylabel(LABELS.get(column, column))
    return figure


def trained_widths(trained: pd.DataFrame, projected: pd.DataFrame, column: str = "auc") -> Figure:
    """Models trained with streams of several widths, over random projections of one of them; a row of panels per model.

    Both tables have the columns `model, solver, width, people` and `column`: `trained` one row per width, `projected`
    as many as there were projections, whose mean is a thin broken line. The solvers of `trained` are shown.
    """
    solvers = [solver for solver in TITLES if solver in set(trained["solver"])]
    models = list(dict.fromkeys(trained["model"]))
    size = (4.0 * len(solvers), 3.1 * len(models))
    with canvas(len(models), len(solvers), size=size, sharex=True, sharey=True) as (figure, axes):
        for line, model in zip(axes, models, strict=True):
            for panel, solver in zip(line, solvers, strict=True):
                ends = []
                own, thin = (
                    rows[(rows["model"] == model) & (rows["solver"] == solver)] for rows in (trained, projected)
                )
                for colour, (people, group) in zip(PALETTE, own.groupby("people"), strict=False):
                    group = group.sort_values("width")
                    panel.plot(group["width"], group[column], color=colour, marker="o", markersize=5)
                    means = thin[thin["people"] == people].groupby("width")[column].mean()
                    panel.plot(means.index, means, color=colour, linewidth=1, linestyle=(0, (3, 2)), alpha=0.8)
                    ends.append((float(group["width"].iloc[-1]), float(group[column].iloc[-1]), f"{people}", colour))
                _widths(panel, pd.concat([trained["width"], projected["width"]]))
                panel.set_title(f"{MODEL_NAMES[model]}: {TITLES[solver]}", fontsize=9.5)
                label_ends(panel, ends, gap=0.09)
            line[0].set_ylabel(LABELS.get(column, column))
    return figure


def _widths(panel: Axes, widths: pd.Series) -> None:
    ticks = sorted(set(widths))
    panel.set_xscale("log", base=2)
    panel.set_xticks(ticks, [str(width) for width in ticks])
    panel.set_xlabel("dimensions of the stream")
