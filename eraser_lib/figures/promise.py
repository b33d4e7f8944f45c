"""Shares that open over draws of the calibration, beside what the promise says."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eraser_lib.plotting import PALETTE, canvas


def spreads(table: pd.DataFrame, theory: pd.DataFrame, alpha: float) -> Figure:
    """A histogram of the shares for each unit of the theory; dashed alpha, and the theory's band of two deviations.

    `table`: of `promise.redrawn`; `theory`: of `promise.against_theory`.
    """
    units = list(theory["unit"])
    with canvas(1, len(units), size=(4.6 * len(units), 3.0), sharex=True) as (figure, axes):
        for colour, panel, unit in zip(PALETTE, axes[0], units, strict=False):
            own = table[table["unit"] == unit]
            share = own["opened"] / own["asked"]
            expected = theory[theory["unit"] == unit].iloc[0]
            panel.hist(share, bins=np.linspace(0, max(0.25, float(share.max())), 26).tolist(), color=colour, alpha=0.8)
            panel.axvspan(
                max(0.0, expected["mean_if"] - 2 * expected["spread_if"]),
                expected["mean_if"] + 2 * expected["spread_if"], color="0.5", alpha=0.18, linewidth=0,
            )  # fmt: skip
            panel.axvline(alpha, color="0.25", linestyle=(0, (4, 3)), linewidth=1.2)
            panel.set(title=f"{unit} calibrate", xlabel=f"share of {unit} that opens")
        axes[0, 0].set_ylabel("draws")
    return figure
