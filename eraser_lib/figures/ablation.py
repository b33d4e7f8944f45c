"""What the gate needs: rows, and the right amount of yielding."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from eraser_lib.plotting import PALETTE, SUBSET_COLOURS, canvas, label_ends


def rows_curve(table: pd.DataFrame) -> Figure:
    """Share of forgotten prompts opened by the number of rows of the fit: fewer forget rows, or fewer retained ones.

    Args:
        table: columns `fewer` (`forget`, `retain`), `rows`, `opened`, `auc`.
    """
    with canvas(1, 2, size=(8.4, 3.4), sharex=True) as (figure, axes):
        for panel, column, title in zip(axes[0], ("opened", "auc"), ("opened", "AUC"), strict=True):
            ends = []
            for fewer, group in table.groupby("fewer", sort=False):
                colour = SUBSET_COLOURS[str(fewer)]
                group = group.sort_values("rows")
                panel.plot(group["rows"], group[column], color=colour, marker="o", markersize=4)
                ends.append((float(group["rows"].iloc[-1]), float(group[column].iloc[-1]), str(fewer), colour))
            panel.set_xscale("log")
            panel.set_xlabel("rows of that kind in the fit")
            panel.set_title(title)
            panel.margins(y=0.08)
            label_ends(panel, ends, gap=0.09)
    return figure


def option_curves(table: pd.DataFrame) -> Figure:
    """AUC and share opened by the option of each solver, one panel per option.

    Args:
        table: columns `solver, option, value, auc, opened`.
    """
    pairs = list(table[["solver", "option"]].drop_duplicates().itertuples(index=False, name=None))
    with canvas(1, len(pairs), size=(2.6 * len(pairs) + 0.8, 3.2), sharey=True) as (figure, axes):
        for panel, (solver, option) in zip(axes[0], pairs, strict=True):
            own = table[(table["solver"] == solver) & (table["option"] == option)].sort_values("value")
            for colour, column in zip(PALETTE, ("auc", "opened"), strict=False):
                panel.plot(own["value"], own[column], color=colour, marker="o", markersize=4, label=column)
            if option in ("beta", "gamma"):
                panel.set_xscale("log")
            panel.set_ylim(-0.03, 1.03)
            panel.set_title(solver)
            panel.set_xlabel(option)
        axes[0, 0].legend(fontsize=8.5)
    return figure
