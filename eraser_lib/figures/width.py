"""A gate over the width of the stream, by how many people must be left alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from eraser_lib.plotting import PALETTE, canvas, label_ends

TITLES = {"decision": "the gate of the study", "hard": "one hard null space"}


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
            panel.set_xscale("log", base=2)
            panel.set_xticks(sorted(set(table["width"])), [str(width) for width in sorted(set(table["width"]))])
            panel.set_xlabel("dimensions of the stream")
            panel.set_title(TITLES[solver])
            label_ends(panel, ends, gap=0.09)
        axes[0, 0].set_ylabel({"auc": "AUC"}.get(column, column))
    return figure
