"""What is read or pushed from one block to another: a square of outcomes, first block down, last block across."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from eraser_lib.plotting import canvas


def squares(panels: Mapping[str, pd.DataFrame], values: Mapping[str, str]) -> Figure:
    """A row of panels for each table, a panel for each column of it; single blocks lie on the diagonal.

    Args:
        panels: what stands before the title -> table with columns `first`, `last` (blocks) and the keys of `values`, as
            shares between 0 and 1.
        values: column -> its title.
    """
    size = (3.4 * len(values) + 0.6, 3.1 * len(panels) + 0.3)
    with canvas(len(panels), len(values), size=size) as (figure, axes):
        for line, (name, table) in zip(axes, panels.items(), strict=True):
            for panel, (column, title) in zip(line, values.items(), strict=True):
                square = table.pivot(index="first", columns="last", values=column).astype(float)
                sns.heatmap(
                    square, vmin=0, vmax=1, cmap="cividis", annot=True, fmt=".2f", annot_kws={"fontsize": 8.5},
                    cbar=False, square=True, ax=panel,
                )  # fmt: skip
                panel.grid(visible=False)
                panel.tick_params(length=0, labelrotation=0)
                panel.set(xlabel="last block", ylabel="first block", title=f"{name}{title}")
    return figure
