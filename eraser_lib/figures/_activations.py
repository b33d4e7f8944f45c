"""What activations and directions look like: projections, spectra, cosines."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eraser_lib.evaluate.separation import centroid_distance, silhouette
from eraser_lib.plotting import INK, MUTED, SUBSET_COLOURS, canvas

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
        sns.heatmap(
            cosines.astype(float), vmin=-1, vmax=1, cmap="PuOr_r", annot=True, fmt=".2f", annot_kws={"fontsize": 9},
            cbar_kws={"label": "cosine", "shrink": 0.9}, ax=panel,
        )  # fmt: skip
        panel.tick_params(length=0, axis="both")
        panel.tick_params(axis="y", labelrotation=0)
        panel.set(xlabel="layer", ylabel="")
        panel.set_title(title)
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
