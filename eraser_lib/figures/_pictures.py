"""Sheets of images."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from eraser_lib.plotting import canvas


def image_strip(pairs: Sequence[tuple[Image.Image, Image.Image, str]], *, gain: float = 8.0) -> Figure:
    """Clean image, perturbed image and their difference, a row per image.

    Args:
        pairs: clean image, perturbed image of the same size, and a caption, which is wrapped.
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
            row[0].set_ylabel(textwrap.fill(caption, 30), fontsize=9)
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


def _bare(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)
