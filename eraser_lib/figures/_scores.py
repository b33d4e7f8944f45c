"""Scores of methods, and how they move with training, strength and the length of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eraser_lib.plotting import INK, METHOD_COLOURS, MUTED, PALETTE, canvas, label_ends
from eraser_lib.tables import METHOD_NAMES, MODEL_NAMES, direction

NAMES = {"answer_prob": "probability of the right answer", "fact_recall": "exact-fact recall"}


def comparison_dots(
    summary: pd.DataFrame, metric: str, *, subsets: Sequence[str] = ("forget", "test", "retain", "celebrity")
) -> Figure:
    """One metric of all methods with intervals: a panel per model and subset, a mark per modality and task.

    Args:
        summary: tidy rows; of a method with several seeds the row over `all` of them is drawn.
        metric: name of the metric.
        subsets: panels from left to right.
    """
    rows = summary[(summary["metric"] == metric) & summary["subset"].isin(subsets)]
    rows = rows.dropna(subset=["value"])  # what is not applicable is not drawn
    pooled = rows[rows["seed"].astype(str) == "all"]
    rows = pd.concat([rows[~rows["method"].isin(pooled["method"])], pooled])
    models = list(dict.fromkeys(rows["model"]))
    methods = [name for name in METHOD_NAMES if name in set(rows["method"])]
    kinds = list(rows[["modality", "task"]].drop_duplicates().itertuples(index=False, name=None))
    marks = dict(zip(kinds, "osD^vP", strict=False))
    size = (2.6 * len(subsets) + 2.2, (0.42 * len(methods) + 1.0) * len(models) + 0.7)
    arrows = {"up": "higher is better", "down": "lower is better", "none": ""}
    with canvas(len(models), len(subsets), size=size, sharex=True, sharey=True) as (figure, axes):
        for row, model in zip(axes, models, strict=True):
            for panel, subset in zip(row, subsets, strict=True):
                cell = rows[(rows["model"] == model) & (rows["subset"] == subset)]
                for found in cell.itertuples():
                    kind = (found.modality, found.task)
                    shift = 0.5 * (kinds.index(kind) + 0.5) / len(kinds) - 0.25
                    y = len(methods) - 1 - methods.index(found.method) - shift
                    colour = METHOD_COLOURS.get(found.method, INK)
                    panel.plot([found.ci_low, found.ci_high], [y, y], color=colour, linewidth=1.6, alpha=0.7)
                    panel.plot(found.value, y, marks[kind], color=colour, markersize=5)
                arrow = arrows[direction(subset, metric)]
                panel.set_title(f"{MODEL_NAMES.get(model, model)}, {subset}\n{arrow}", fontsize=9.5)
            row[0].set_yticks(range(len(methods)), [METHOD_NAMES[name] for name in reversed(methods)])
        handles = [Line2D([], [], marker=marks[kind], linestyle="", color=MUTED) for kind in kinds]
        figure.legend(handles, [" ".join(kind) for kind in kinds], loc="outside lower center",
        ncols=len(kinds),
                      fontsize=8.5)  # fmt: skip
        figure.suptitle(NAMES.get(metric, metric.replace("_", " ")), x=0.01, ha="left", fontsize=11, weight="bold")
    return figure


def training_curves(history: pd.DataFrame, *, ylabel: str = "loss") -> Figure:
    """Curves of a training, with the stages of its curriculum marked.

    Args:
        history: columns `step, series, value`, and `stage` where the training has several.
        ylabel: label of the vertical axis.
    """
    with canvas(size=(8.0, 3.6)) as (figure, axes):
        panel: Axes = axes[0, 0]
        ends = []
        for colour, (series, group) in zip(PALETTE, history.groupby("series", sort=False), strict=False):
            panel.plot(group["step"], group["value"], color=colour)
            ends.append((float(history["step"].max()), float(group["value"].iloc[-1]), str(series), colour))
        if "stage" in history:
            for stage, group in history.groupby("stage", sort=False):
                start = float(group["step"].min())
                panel.axvline(start, color=MUTED, linewidth=0.8, linestyle=":")
                panel.annotate(str(stage), (start, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -3),
                               textcoords="offset points", va="top", fontsize=8.5, color=MUTED)  # fmt: skip
        panel.set_xlabel("step")
        panel.set_ylabel(ylabel)
        label_ends(panel, ends, gap=0.07)
    return figure


def strength_curve(points: pd.DataFrame, *, chosen: float | None = None) -> Figure:
    """How scores move with the strength of steering.

    Args:
        points: columns `strength, series, value, ci_low, ci_high`.
        chosen: the strength that was chosen on the dev people; drawn when given.
    """
    with canvas(size=(7.2, 3.8)) as (figure, axes):
        panel: Axes = axes[0, 0]
        ends = []
        for colour, (series, group) in zip(PALETTE, points.groupby("series", sort=False), strict=False):
            group = group.sort_values("strength")
            panel.fill_between(
                group["strength"], group["ci_low"], group["ci_high"], color=colour, alpha=0.15, linewidth=0
            )
            panel.plot(group["strength"], group["value"], color=colour, marker="o", markersize=4)
            last = group.iloc[-1]
            ends.append((float(last["strength"]), float(last["value"]), str(series), colour))
        if chosen is not None:
            panel.axvline(chosen, color=INK, linestyle="--", linewidth=1.2)
            panel.annotate("chosen", (chosen, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
                           textcoords="offset points", va="top", fontsize=8.5, color=MUTED)  # fmt: skip
        panel.set_xlabel("strength")
        panel.set_ylabel("share")
        label_ends(panel, ends, gap=0.07)
    return figure


def reentry_curve(positions: Mapping[str, Sequence[float | None]], *, longest: int | None = None) -> Figure:
    """Share of answers that hold the forgotten fact by the n-th word: a fact that comes back late rises late.

    Args:
        positions: method -> words before the fact in each answer (`fact_word` of the log), missing if never
            said.
        longest: last word shown; the default is the latest fact.
    """
    arrays = {
        name: pd.to_numeric(pd.Series(list(values)), errors="coerce").to_numpy(float)
        for name, values in positions.items()
    }
    latest = max((np.nanmax(array) for array in arrays.values() if np.isfinite(array).any()), default=0)
    words = np.arange(1, (longest or int(latest) + 2) + 1)
    with canvas(size=(6.8, 3.8)) as (figure, axes):
        panel: Axes = axes[0, 0]
        ends = []
        for number, (name, array) in enumerate(arrays.items()):
            colour = METHOD_COLOURS.get(name, PALETTE[number % len(PALETTE)])
            share = np.array([np.mean(array < word) for word in words])  # comparing with NaN is False: never said
            panel.plot(words, share, color=colour, drawstyle="steps-mid")
            ends.append(
                (
                    float(words[-1]),
                    float(share[-1]),
                    f"{METHOD_NAMES.get(name, name)} (n = {array.size})",
                    colour,
                )
            )
        panel.set_ylim(-0.03, 1.03)
        panel.set_xlabel("words of the answer")
        panel.set_ylabel("answers that hold the fact")
        label_ends(panel, ends, gap=0.07)
    return figure
