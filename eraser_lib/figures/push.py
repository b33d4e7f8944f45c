"""What is added, and how strongly: outcomes over strength by direction and by task."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from eraser_lib.plotting import PALETTE, canvas, label_ends

OUTCOMES = {"refused": "whole refusal", "recalled": "fact in the answer", "gibberish": "gibberish"}


def outcome_curves(table: pd.DataFrame, by: str) -> Figure:
    """A panel per outcome, over strength on a logarithmic axis, with a line per value of a column.

    Args:
        table: columns `strength, n`, the one named by `by`, and the keys of `OUTCOMES` as shares; rows of the same line
            and strength are averaged by `n`.
        by: `direction` or `task`.
    """
    with canvas(1, len(OUTCOMES), size=(9.6, 3.3), sharey=True) as (figure, axes):
        for panel, (outcome, title) in zip(axes[0], OUTCOMES.items(), strict=True):
            ends = []
            for colour, (name, own) in zip(PALETTE, table.groupby(by, sort=False), strict=False):
                weighted = own.assign(total=own[outcome] * own["n"]).groupby("strength")[["total", "n"]].sum()
                line = weighted["total"] / weighted["n"]
                panel.plot(line.index, line, color=colour, marker="o", markersize=4)
                ends.append((float(line.index[-1]), float(line.iloc[-1]), str(name), colour))
            panel.set_xscale("log", base=2)
            panel.set_xticks(sorted(table["strength"].unique()))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("strength")
            panel.set_title(title)
            label_ends(panel, ends, gap=0.09)
    return figure
