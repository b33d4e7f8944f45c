"""How well gates tell the prompts to forget from all others."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eraser_lib.evaluate.separation import auc_interval, roc_curve
from eraser_lib.plotting import INK, MUTED, PALETTE, SUBSET_COLOURS, canvas, label_ends


def gate_distributions(rows: pd.DataFrame, *, threshold: float | None = None, title: str = "") -> Figure:
    """Gate values of each subset by letter-value boxes, with the share above the threshold.

    The boxes halve the remaining tail at each step, for as long as the sample says where it ends; every prompt beyond
    is a point. Tails are what a threshold cuts.

    Args:
        rows: columns `subset, gate_value`, as in a log.
        threshold: where the gate opens; drawn and counted when given.
        title: title of the figure.
    """
    rows = rows.dropna(subset=["gate_value"])
    subsets = [name for name in SUBSET_COLOURS if name in set(rows["subset"])]
    with canvas(size=(7.5, 0.62 * len(subsets) + 1.3)) as (figure, axes):
        panel: Axes = axes[0, 0]
        sns.boxenplot(
            rows, x="gate_value", y="subset", order=subsets, hue="subset", palette=SUBSET_COLOURS, legend=False,
            k_depth="trustworthy", width=0.7, linewidth=0.6, line_kws={"color": INK, "linewidth": 1.5},
            flier_kws={"s": 10, "marker": "o"}, ax=panel,
        )  # fmt: skip
        for height, subset in enumerate(subsets):
            values = rows.loc[rows["subset"] == subset, "gate_value"].to_numpy(float)
            share = "" if threshold is None else f"  {np.mean(values > threshold):.1%} open"
            panel.annotate(
                f"n = {values.size}{share}", (1.0, height), xycoords=("axes fraction", "data"), xytext=(6, 0),
                textcoords="offset points", va="center", fontsize=9, color=SUBSET_COLOURS[subset],
            )  # fmt: skip
        if threshold is not None and math.isfinite(threshold):
            panel.axvline(threshold, color=INK, linestyle="--", linewidth=1.2)
            panel.annotate(
                "threshold", (threshold, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=8.5, color=MUTED,
            )  # fmt: skip
        panel.grid(axis="y", visible=False)
        panel.set(xlabel="gate value at the last prompt token", ylabel="")
        panel.set_title(title)
    return figure


def roc_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """AUC with its interval over people, per layer and solver.

    Args:
        rows: one row per prompt, layer and solver: columns `layer, solver, forget` (bool), `value`, `person`.

    Returns:
        Columns `layer, solver, auc, ci_low, ci_high, n_forget, n_other`.
    """
    found = []
    for (solver, layer), group in rows.groupby(["solver", "layer"], sort=True):
        own, other = group[group["forget"].astype(bool)], group[~group["forget"].astype(bool)]
        interval = auc_interval(
            own["value"].to_numpy(float),
            other["value"].to_numpy(float),
            own["person"].tolist(),
            other["person"].tolist(),
        )
        found.append([layer, solver, interval.value, interval.low, interval.high, len(own), len(other)])
    return pd.DataFrame(found, columns=["layer", "solver", "auc", "ci_low", "ci_high", "n_forget", "n_other"])


def roc_by_layer(rows: pd.DataFrame) -> Figure:
    """ROC curves of the gate, a panel per solver and a line per layer, with AUC and interval.

    Args:
        rows: see `roc_numbers`.
    """
    numbers = roc_numbers(rows).set_index(["solver", "layer"])
    solvers = sorted(rows["solver"].unique())
    layers = sorted(rows["layer"].unique())
    shades = plt.get_cmap("cividis")(np.linspace(0.0, 0.75, len(layers)))
    with canvas(1, len(solvers), size=(4.6 * len(solvers), 4.4), sharey=True) as (figure, axes):
        for panel, solver in zip(axes[0], solvers, strict=True):
            for shade, layer in zip(shades, layers, strict=True):
                group = rows[(rows["solver"] == solver) & (rows["layer"] == layer)]
                if group.empty:
                    continue
                own = group["forget"].astype(bool)
                curve = roc_curve(group.loc[own, "value"].to_numpy(float), group.loc[~own, "value"].to_numpy(float))
                row = numbers.loc[(solver, layer)]
                label = f"layer {layer}: {row['auc']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
                panel.plot(*curve, color=shade, label=label, drawstyle="steps-post")
            panel.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
            panel.set_title(str(solver))
            panel.set_xlabel("share of other prompts opened")
            panel.legend(loc="lower right", fontsize=8, title="AUC [95 %]", title_fontsize=8)
        axes[0, 0].set_ylabel("share of forget prompts opened")
    return figure


def auc_by_layer(numbers: pd.DataFrame) -> Figure:
    """AUC over layers, a line with its band per solver.

    Args:
        numbers: what `roc_numbers` returns.

    Raises:
        ValueError: more solvers than there are colours to tell them apart.
    """
    solvers = numbers["solver"].unique()
    if len(solvers) > len(PALETTE):
        raise ValueError(f"{len(solvers)} solvers, but {len(PALETTE)} lines can be told apart; pass fewer of them.")
    with canvas(size=(6.4, 4.2)) as (figure, axes):
        panel: Axes = axes[0, 0]
        ends = []
        for colour, (solver, group) in zip(PALETTE, numbers.groupby("solver"), strict=False):
            group = group.sort_values("layer")
            x = group["layer"].to_numpy(float)
            panel.fill_between(x, group["ci_low"], group["ci_high"], color=colour, alpha=0.18, linewidth=0)
            panel.plot(x, group["auc"], color=colour, marker="o", markersize=5)
            ends.append((float(x[-1]), float(group["auc"].iloc[-1]), str(solver), colour))
        panel.set_xticks(sorted(numbers["layer"].unique()))
        panel.set_xlabel("layer at which the gate is read")
        panel.set_ylabel("AUC, forget against others")
        panel.set_ylim(min(0.5, float(numbers["ci_low"].min())) - 0.02, 1.02)
        label_ends(panel, ends, gap=0.07)
    return figure
