"""What gates open with more and more curves."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from eraser_lib.plotting import INK, SUBSET_COLOURS, canvas

PRACTICE = {
    "opened": ("erased for practice", SUBSET_COLOURS["test"]), "kept_opened": ("who stay", SUBSET_COLOURS["retain"]),
}  # fmt: skip
TEST = {
    "test": "forgotten", "retain": "retained", "celebrity": "celebrities", "same_photo": "colours on their pictures",
    "stranger": "strangers",
}  # fmt: skip


def opened_by_curves(practice: pd.DataFrame, test: pd.DataFrame, chosen: int) -> Figure:
    """Share of prompts that a calibrated gate opens over its number of curves, evenly spaced; the chosen one dotted.

    Args:
        practice: of `experiments.curved.practised`.
        test: of `experiments.curved.tested`, of the same numbers.
        chosen: number of curves of the gate that erases.
    """
    numbers = practice["curves"].tolist()
    with canvas(1, 2, size=(9.6, 3.6), sharey=True) as (figure, axes):
        left, right = axes[0]
        for column, (name, colour) in PRACTICE.items():
            left.plot(range(len(numbers)), practice[column], color=colour, marker="o", markersize=4, label=name)
        for column, name in TEST.items():
            if column in test:
                colour = SUBSET_COLOURS[column]
                right.plot(range(len(numbers)), test[column], color=colour, marker="o", markersize=4, label=name)
        for panel, title in ((left, "chosen by"), (right, "found afterwards")):
            panel.axvline(numbers.index(chosen), color=INK, linestyle=":", linewidth=1)
            panel.set_xticks(range(len(numbers)), [str(number) for number in numbers])
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("curves")
            panel.set_title(title)
            panel.legend(fontsize=8, loc="center right", frameon=True, framealpha=0.9, edgecolor="none")
        left.set_ylabel("share of prompts opened")
    return figure
