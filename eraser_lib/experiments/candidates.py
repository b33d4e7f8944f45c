"""The grids of the selection, in one place: what is tried on the dev people before anything is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from eraser_lib.experiments.methods import Push
from eraser_lib.experiments.study import Study


def pushes(count: int) -> list[Push]:
    """Directions, blocks, scopes and strengths for a model of `count` blocks; the last ones push a single block, an
    early one and the last two, to show what depth does."""
    early, most = tuple(range(count // 2)), tuple(range(count - 1))
    return [
        Push(direction, layers, strength, scope)
        for direction in ("instruction", "multimodal", "text")
        for layers in (early, most)
        for scope in ("prompt", "prompt+generation")
        for strength in (0.5, 1.0, 2.0)
    ] + [
        Push("instruction", (layer,), strength, "prompt")
        for layer in (count // 6, count - 2, count - 1)
        for strength in (1.0, 4.0)
    ]


STRENGTHS_CONSTANT: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
STRENGTHS_PUBLISHED: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)

T = TypeVar("T")


def thin(grid: Sequence[T], study: Study) -> list[T]:
    """The whole grid, or its two ends where the preset only tries the pipeline."""
    return list(grid) if study.strict else [grid[0], grid[-1]]
