"""Representation misdirection (RMU): turn the residual stream of forget rows to noise, hold that of retained rows.

Objective: E_f mean_t |h_l - c u|^2 / d + alpha E_r mean_t |h_l - h0_l|^2 / d over all real tokens, h_l the output of
block l, u a fixed random unit vector and c a multiple of the mean norm of h_l under vanilla. Only the MLPs of blocks
l-2..l train. Means over d, so that alpha does not depend on the width. Source: arXiv 2403.03218.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from eraser_lib.baselines.training import Objective, Step, descend
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded
from eraser_lib.hooks import read
from eraser_lib.sites import HookSite, find_decoder


class _Enough(Exception):
    """Ends a forward pass at the block that was to be read, with its stream."""


def stream(loaded: Loaded, rows: Sequence[Question], site: HookSite) -> tuple[Tensor, Tensor]:
    """Residual stream of questions with their answers, `(B, T, d)`, with gradients, and the mask of real tokens."""
    found: list[Tensor] = []
    inputs = loaded.encode([row.prompt for row in rows], [row.answer for row in rows])
    inputs.pop("labels")

    def enough(values: Tensor) -> None:
        found.append(values)
        raise _Enough

    with read(loaded.model, {site: enough}), suppress(_Enough):
        loaded.model(**inputs, use_cache=False, logits_to_keep=1)
    return found[0], inputs["attention_mask"].bool()


def distance(values: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens and dimensions of the squared difference; `(B, T, d)`, target of any shape that fits."""
    return (values - target).square().mean(dim=-1)[mask].mean()


@dataclass(frozen=True)
class RMU(Objective):
    """Representation misdirection."""

    depth: float = 0.5
    """Where the block stands whose output is turned away, as a share of all blocks: the sixth, eleventh and sixteenth
    of 32, which the source tries, are 0.2, 0.35 and 0.5."""
    scale: float = 4.0
    """c, in mean norms of the stream."""
    alpha: float = 1.0
    """Weight of holding retained rows."""
    seed: int = 0
    """Of the random direction; the seed of a training is added, so that every training has a direction of its own."""
    name = "rmu"
    recomputes = False  # it trains three blocks: what the others do is not kept anyway

    def layer(self, model: Any) -> int:
        """The block, counted from 0. `ValueError` for a depth that is no share of the blocks."""
        if not 0 <= self.depth < 1:
            raise ValueError(f"RMU's depth is {self.depth}; it is a share of the blocks, from 0 to below 1")
        count = len(find_decoder(model).layers)
        return min(round(self.depth * count), count - 1)

    def parameters(self, model: Any) -> list[nn.Parameter]:
        """The MLPs of the block and of the two before it."""
        layer, blocks = self.layer(model), find_decoder(model).layers
        chosen: Any = blocks[max(0, layer - 2) : layer + 1]
        return [parameter for block in chosen for parameter in block.mlp.parameters()]

    def drawn(self, seed: int) -> RMU:
        """See `Objective.drawn`."""
        return replace(self, seed=self.seed + seed)

    def begin(self, model: Loaded, vanilla: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Step:
        """See `Objective.begin`."""
        site = HookSite(self.layer(model.model), "output")
        with torch.no_grad():
            values, mask = stream(vanilla, list(forget)[:32], site)
        noise = torch.randn(values.shape[-1], generator=torch.Generator().manual_seed(self.seed))
        length = self.scale * values[mask].norm(dim=-1).mean()
        target = (length * (noise / noise.norm()).to(values)).detach()

        def step(gone: Sequence[Question], kept: Sequence[Question]) -> dict[str, float]:
            with torch.no_grad():
                before, _ = stream(vanilla, kept, site)
            values, mask = stream(model, gone, site)
            away = distance(values, target, mask)
            now, mask = stream(model, kept, site)
            held = distance(now, before, mask)
            return descend(away + self.alpha * held, {"misdirection": away, "held": held})

        return step
