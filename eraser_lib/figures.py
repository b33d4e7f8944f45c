"""The figures of the study, from arrays and data frames. Needs no torch; activations come as numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

from eraser_lib.evaluate.separation import auc_interval, centroid_distance, roc_curve, silhouette
from eraser_lib.plotting import (
    INK,
    METHOD_COLOURS,
    MUTED,
    PALETTE,
    SUBSET_COLOURS,
    canvas,
    label_ends,
    save_figure,
    to_json,
)
from eraser_lib.tables import METHOD_NAMES, MODEL_NAMES, direction

__all__ = [
    "activation_pca", "auc_by_layer", "comparison_dots", "cosine_heatmap", "eigen_spectrum",
    "gate_distributions", "image_strip", "pca_numbers", "portrait_sheet", "reentry_curve", "roc_by_layer",
    "roc_numbers", "save_figure", "strength_curve", "to_json", "training_curves",
]  # fmt: skip

Points = Mapping[str, NDArray[np.float64]]
"""Group name -> activations of shape `(n, d)`."""


def pca_numbers(before: Mapping[int, Points], after: Mapping[int, Points]) -> pd.DataFrame:
    """The quantitative companion of `activation_pca`: how far apart two groups lie per layer.

    Args:
        before, after: layer -> two groups of activations, unsteered and steered.

    Returns:
        One row per layer and state: `layer, state, explained_1, explained_2, centroid_distance, silhouette`.
        The distance is in radii of the groups, both measures are in the full space; explained variance is
        that of the first two components of the unsteered activations.
    """
    rows = []
    for layer, groups in before.items():
        _, _, explained = _plane(groups)
        for state, points in (("before", groups), ("after", after[layer])):
            first, second = points.values()
            rows.append(
                [layer, state, *explained, centroid_distance(first, second), silhouette(first, second)],
            )
    names = ["layer", "state", "explained_1", "explained_2", "centroid_distance", "silhouette"]
    return pd.DataFrame(rows, columns=names)


def activation_pca(before: Mapping[int, Points], after: Mapping[int, Points]) -> Figure:
    """Activations of forget and retain prompts before (top) and after (bottom) steering, a column per layer.

    Both rows use the plane of the two first components of the unsteered activations: a shift shows as one.

    Args:
        before, after: layer -> group (`forget`, `retain`) -> activations of shape `(n, d)`.
    """
    found_rows = pca_numbers(before, after).to_dict("records")
    numbers = {(row["layer"], row["state"]): row for row in found_rows}
    with canvas(2, len(before), size=(2.6 * len(before) + 0.8, 5.6)) as (figure, axes):
        for column, layer in enumerate(before):
            mean, basis, explained = _plane(before[layer])
            for row, (state, points) in enumerate((("before", before[layer]), ("after", after[layer]))):
                panel: Axes = axes[row, column]
                for group, values in points.items():
                    flat = (values - mean) @ basis.T  # (n, 2)
                    colour = SUBSET_COLOURS.get(group, INK)
                    panel.scatter(flat[:, 0], flat[:, 1], s=14, alpha=0.65, color=colour, linewidths=0)
                    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
                    x, y = flat.mean(axis=0).tolist()
                    panel.annotate(group, (x, y), color=colour, fontsize=9, weight="bold", ha="center", bbox=box)
                found = numbers[layer, state]
                panel.set_title(f"layer {layer}, {state}")
                panel.set_xlabel(
                    f"PC1 ({explained[0]:.0%})\ndistance {found['centroid_distance']:.1f}, "
                    f"silhouette {found['silhouette']:.2f}",
                    fontsize=8.5,
                )
                panel.set_ylabel(f"PC2 ({explained[1]:.0%})", fontsize=8.5)
                panel.tick_params(labelbottom=False, labelleft=False, length=0)
        _same_limits(axes)
    return figure


def gate_distributions(rows: pd.DataFrame, *, threshold: float | None = None, title: str = "") -> Figure:
    """Gate values of each subset as points over their middle half, with the share above the threshold.

    Args:
        rows: columns `subset, gate_value`, as in a log.
        threshold: where the gate opens; drawn and counted when given.
        title: title of the figure.
    """
    subsets = [name for name in SUBSET_COLOURS if name in set(rows["subset"])]
    with canvas(size=(7.5, 0.62 * len(subsets) + 1.3)) as (figure, axes):
        panel: Axes = axes[0, 0]
        scatter = np.random.default_rng(0)
        for height, subset in enumerate(reversed(subsets)):
            values = rows.loc[rows["subset"] == subset, "gate_value"].dropna().to_numpy(float)
            colour = SUBSET_COLOURS[subset]
            panel.scatter(
                values,
                height + scatter.uniform(-0.27, 0.27, values.size),
                s=7,
                alpha=0.35,
                color=colour,
                linewidths=0,
            )
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            panel.plot([low, high], [height, height], color=colour, linewidth=6, alpha=0.6, solid_capstyle="butt")
            panel.plot([middle, middle], [height - 0.3, height + 0.3], color=INK, linewidth=1.5)
            share = "" if threshold is None else f"  {np.mean(values > threshold):.1%} open"
            panel.annotate(
                f"n = {values.size}{share}", (1.0, height), xycoords=("axes fraction", "data"), xytext=(6, 0),
                textcoords="offset points", va="center", fontsize=9, color=colour,
            )  # fmt: skip
        if threshold is not None and math.isfinite(threshold):
            panel.axvline(threshold, color=INK, linestyle="--", linewidth=1.2)
            panel.annotate(
                "threshold", (threshold, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
                textcoords="offset points", va="top", fontsize=8.5, color=MUTED,
            )  # fmt: skip
        panel.set_yticks(range(len(subsets)), list(reversed(subsets)))
        panel.grid(axis="y", visible=False)
        panel.set_xlabel("gate value at the last prompt token")
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
    """
    with canvas(size=(6.4, 3.6)) as (figure, axes):
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


def eigen_spectrum(eigenvalues: Mapping[str, NDArray[np.float64]], *, share: float | None = None) -> Figure:
    """Eigenvalues of the retain activations' second moments, largest first, and the energy left in the rest.

    Args:
        eigenvalues: label (e.g. `layer 3`) -> eigenvalues in any order.
        share: energy rule; the dimensions beyond this share of the energy are the approximate null space.
    """
    shades = plt.get_cmap("cividis")(np.linspace(0.0, 0.75, len(eigenvalues)))
    with canvas(1, 2, size=(9.6, 3.8)) as (figure, axes):
        left, right = axes[0]
        for shade, (label, values) in zip(shades, eigenvalues.items(), strict=True):
            ordered = np.clip(np.sort(np.asarray(values, dtype=float))[::-1], 0.0, None)
            rank = np.arange(1, ordered.size + 1)
            rest = 1.0 - np.cumsum(ordered) / ordered.sum()
            left.plot(rank, np.where(ordered > 0, ordered, np.nan), color=shade, label=label)
            right.plot(rank, np.where(rest > 1e-12, rest, np.nan), color=shade, label=label)
        left.set_ylabel("eigenvalue")
        right.set_ylabel("energy in the dimensions beyond")
        if share is not None:
            right.axhline(1 - share, color=INK, linestyle="--", linewidth=1.2)
            right.annotate(f"energy rule {share:.3g}", (0.99, 1 - share), xycoords=("axes fraction", "data"),
                           ha="right", va="bottom", fontsize=8.5, color=MUTED)  # fmt: skip
        for panel in (left, right):
            panel.set_yscale("log")
            panel.set_xlabel("dimension, largest first")
        left.legend(fontsize=8, loc="upper right")
    return figure


def cosine_heatmap(cosines: pd.DataFrame, *, title: str = "Cosine of directions") -> Figure:
    """Cosine between directions per layer, with the numbers in the cells.

    Args:
        cosines: pairs of directions in rows, layers in columns.
        title: title of the figure.
    """
    with canvas(size=(0.8 * cosines.shape[1] + 3.2, 0.6 * cosines.shape[0] + 1.4)) as (figure, axes):
        panel: Axes = axes[0, 0]
        image = panel.imshow(cosines.to_numpy(float), cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(cosines.to_numpy(float)):
            panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9,
                       color="white" if abs(value) > 0.6 else INK)  # fmt: skip
        panel.set_xticks(range(cosines.shape[1]), [str(name) for name in cosines.columns])
        panel.set_yticks(range(cosines.shape[0]), [str(name) for name in cosines.index])
        panel.set_xlabel("layer")
        panel.set_title(title)
        panel.grid(visible=False)
        figure.colorbar(image, ax=panel, shrink=0.9, label="cosine")
    return figure


def image_strip(pairs: Sequence[tuple[Image.Image, Image.Image, str]], *, gain: float = 8.0) -> Figure:
    """Clean image, perturbed image and their difference, a row per image.

    Args:
        pairs: clean image, perturbed image of the same size, and a caption.
        gain: factor of the difference, which is drawn around mid-grey.
    """
    with canvas(len(pairs), 3, size=(6.6, 2.25 * len(pairs) + 0.3)) as (figure, axes):
        for row, (clean, perturbed, caption) in zip(axes, pairs, strict=True):
            first, second = (np.asarray(image.convert("RGB"), dtype=float) / 255 for image in (clean, perturbed))
            change = second - first
            largest = np.abs(change).max() * 255
            shown = (first, second, np.clip(0.5 + gain * change, 0, 1))
            titles = ("clean", "perturbed", f"difference x {gain:g} (largest {largest:.0f}/255)")
            for panel, picture, title in zip(row, shown, titles, strict=True):
                panel.imshow(picture, interpolation="nearest")
                _bare(panel)
                panel.set_title(title, fontsize=9, weight="normal")
            row[0].set_ylabel(caption, fontsize=9)
    return figure


def portrait_sheet(images: Sequence[Image.Image], captions: Sequence[str], *, columns: int = 8) -> Figure:
    """A sheet of portraits with captions.

    Args:
        images, captions: pictures and what to write below them.
        columns: pictures per row.
    """
    rows = math.ceil(len(images) / columns)
    with canvas(rows, columns, size=(1.25 * columns, 1.5 * rows)) as (figure, axes):
        for panel in axes.flat:
            panel.axis("off")
        for panel, image, caption in zip(axes.flat, images, captions, strict=False):
            panel.axis("on")
            panel.imshow(np.asarray(image.convert("RGB")), interpolation="nearest")
            _bare(panel)
            panel.set_xlabel(caption, fontsize=7.5)
    return figure


def comparison_dots(
    summary: pd.DataFrame, metric: str, *, subsets: Sequence[str] = ("forget", "test", "retain", "celebrity")
) -> Figure:
    """One metric of all methods with intervals: a panel per model and subset, a mark per modality and task.

    Args:
        summary: tidy rows; one seed (or `all`) per method.
        metric: name of the metric.
        subsets: panels from left to right.
    """
    rows = summary[(summary["metric"] == metric) & summary["subset"].isin(subsets)]
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
        figure.suptitle(metric.replace("_", " "), x=0.01, ha="left", fontsize=11, weight="bold")
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


def _plane(groups: Points) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Mean, first two components (2, d), and their shares of the variance."""
    points = np.concatenate([np.asarray(values, dtype=float) for values in groups.values()])
    mean = points.mean(axis=0)
    _, singular, basis = np.linalg.svd(points - mean, full_matrices=False)
    # The sign of a component is arbitrary: make its largest entry positive, so that reruns look alike.
    signs = np.sign(basis[np.arange(2), np.abs(basis[:2]).argmax(axis=1)])
    energy = singular**2 / np.sum(singular**2)
    return mean, basis[:2] * signs[:, None], (float(energy[0]), float(energy[1]))


def _same_limits(axes: NDArray[np.object_]) -> None:
    """One scale for the panels of each column."""
    for column in axes.T:
        for get, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
            limits = np.array([getattr(panel, get)() for panel in column])
            for panel in column:
                getattr(panel, put)(limits[:, 0].min(), limits[:, 1].max())


def _bare(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)
