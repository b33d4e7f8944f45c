"""Constant steering: the push of our eraser without its gate, on every prompt. What does the gate buy?

Its strength is chosen by itself, or it would stand here with one that only forgotten people have to bear. Source: the
ungated steering vectors of Turner et al. (2023) and Rimsky et al. (2024), on the direction that the eraser has chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eraser_lib.direction import Direction
from eraser_lib.eraser import Eraser
from eraser_lib.sites import HookSite

if TYPE_CHECKING:
    from eraser_lib.experiments.methods import Push


def constant(
    push: Push, directions: Mapping[str, Direction], answer: Direction | None = None, **metadata: Any
) -> Eraser:
    """The ungated ablation: every prompt is pushed."""
    sites = [HookSite(layer, "output") for layer in push.layers]
    use_answer = answer is not None and push.scope == "prompt+generation"
    return Eraser(
        directions={site: directions[push.direction][site].float()[None] for site in sites},
        strength=push.strength, mode="constant", scope=push.scope,  # type: ignore[arg-type]
        decode_strength=push.decode_strength,
        decode_directions={site: answer[site].float()[None] for site in sites} if use_answer and answer else None,
        metadata={"push": push.describe(), **metadata},
    )  # fmt: skip
