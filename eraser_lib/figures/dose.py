"""How strong a push, and how strong an attack behind the direction."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from eraser_lib.plotting import INK, METHOD_COLOURS, PALETTE, canvas, label_ends
from eraser_lib.tables import METHOD_NAMES

PANELS = {
    "gone": "right answers, forgotten", "refused": "whole refusals, forgotten", "kept": "right answers, retained",
}  # fmt: skip
AXES = {"radius": "radius, 255ths", "steps": "steps", "step": "step, 255ths"}


def strength_curves(table: pd.DataFrame) -> Figure:
    """What each form leaves, refuses and keeps at multiples of its own strength, evenly spaced from none at the left.

    Args:
        table: columns `method, times` and the keys of `PANELS`, of `experiments.dose.by_strength`.
    """
    times = sorted(table["times"].unique())
    with canvas(1, len(PANELS), size=(9.6, 3.4), sharey=True) as (figure, axes):
        for panel, (column, title) in zip(axes[0], PANELS.items(), strict=True):
            for method, own in table.groupby("method", sort=False):
                line = own.set_index("times")[column].reindex(times)
                colour, name = METHOD_COLOURS.get(str(method), INK), METHOD_NAMES.get(str(method), str(method))
                panel.plot(range(len(times)), line, color=colour, marker="o", markersize=4, label=name)
            if 1.0 in times:
                panel.axvline(times.index(1.0), color=INK, linestyle=":", linewidth=1)
            panel.set_xticks(range(len(times)), [f"{value:g}" for value in times])
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("times its own strength")
            panel.set_title(title)
        axes[0, 0].legend(fontsize=8)
    return figure


def attack_curves(table: pd.DataFrame) -> Figure:
    """The loss that an attack leaves and what its direction refuses, over radius, number and size of steps.

    Args:
        table: of `experiments.dose.by_attack`.
    """
    with canvas(2, len(AXES), size=(9.6, 5.4), sharey="row") as (figure, axes):
        for column, (name, label) in enumerate(AXES.items()):
            own = table[table["varied"] == name].sort_values(name)
            values = sorted(own[name].unique())
            one = own.drop_duplicates(name)
            above, below = axes[0, column], axes[1, column]
            for colour, (line, text) in zip(
                (PALETTE[0], PALETTE[2]), (("loss", "loss"), ("answered", "answered")), strict=True
            ):
                above.plot(range(len(one)), one[line], color=colour, marker="o", markersize=4, label=text)
            ends = []
            for colour, (strength, part) in zip(PALETTE, own.groupby("strength"), strict=False):
                below.plot(range(len(part)), part["refused"], color=colour, marker="o", markersize=4)
                ends.append((len(part) - 1.0, float(part["refused"].iloc[-1]), f"{strength:g}", colour))
            label_ends(below, ends, gap=0.09)
            below.set_ylim(-0.03, 1.03)
            for panel in (above, below):
                panel.set_xticks(range(len(values)), [f"{value:g}" for value in values])
            below.set_xlabel(label)
            above.set_title(name)
        axes[0, 0].set_ylabel("nats a token; share answered")
        axes[1, 0].set_ylabel("whole refusals, by strength")
        axes[0, 0].legend(fontsize=8)
    return figure
