"""Builds every method of the comparison from what was chosen on the dev forget set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from eraser_lib import Direction, Eraser, HookSite
from eraser_lib.baselines.constant import constant
from eraser_lib.baselines.prompting import prompt_instruction
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.gates import fit_gate, gate_values, moments_of
from eraser_lib.gate import Gate
from eraser_lib.threshold import Calibration, calibrate

__all__ = [
    "STRENGTHS", "Decision", "Push", "artifact_bytes", "constant", "corrected", "prompt_instruction", "published",
]  # fmt: skip

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Grid of strengths: from no effect to collapse."""


@dataclass(frozen=True)
class Push:
    """What is added, and where: the half of an eraser that decides what an opened prompt answers."""

    direction: str
    """`instruction`, `multimodal`, `text`, ..."""
    layers: tuple[int, ...]
    """Blocks whose outputs are steered."""
    strength: float
    scope: str = "prompt"
    decode_strength: float = 1.0

    def describe(self) -> dict[str, Any]:
        """Plain values, for metadata and tables."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """How a prompt is recognised: where the gate reads, how it was fitted, how often it may err."""

    layers: tuple[int, ...]
    """Blocks whose outputs are read, joined; the last one decides."""
    solver: str
    """Full name of a solver, see `gates.fit_solver`."""
    alpha: float = 0.01

    def describe(self) -> dict[str, Any]:
        """Plain values, for metadata and tables."""
        return asdict(self)


def corrected(
    push: Push, decision: Decision, gate: Gate, calibration: Mapping[str, Activations],
    directions: dict[str, Direction], answer: Direction | None = None, **metadata: Any,
) -> tuple[Eraser, Calibration]:  # fmt: skip
    """The corrected form: decide late by a conformal threshold, steer early.

    `gate`: fitted on the joined streams of the decision's layers, see `gates.fit_joined`; `calibration`: activations
    by group. Returns the eraser and its calibration.
    """
    values = {group: gate_values(gate, join(rows, decision.layers)) for group, rows in calibration.items()}
    threshold = calibrate(values, decision.alpha)
    read = [HookSite(layer, "output") for layer in decision.layers]
    rank = gate.rank
    sites = [HookSite(layer, "output") for layer in push.layers]
    vectors = {site: directions[push.direction][site].float()[None].repeat(rank, 1) for site in sites}
    decode = None
    if answer is not None and push.scope == "prompt+generation":
        decode = {site: answer[site].float()[None].repeat(rank, 1) for site in sites}
    eraser = Eraser(
        directions=vectors,
        gates=dict(zip(read, gate.with_threshold(threshold.value).split(len(read)), strict=True)),
        strength=push.strength, mode="two_pass", scope=push.scope,  # type: ignore[arg-type]
        decode_strength=push.decode_strength, decode_directions=decode,
        metadata={"push": push.describe(), "decision": decision.describe(), **metadata},
    )  # fmt: skip
    return eraser, threshold


def published(
    forget: Activations, retain: Activations, direction: Direction, strength: float, **metadata: Any
) -> Eraser:
    """What the authors' code does: gates and directions taken at the input of block i, applied at its output, for
    every block but the first; added to all prompt positions of a prefill, without a threshold.

    `forget`, `retain`, `direction`: at the output of every block (the input of block i is the output of block
    i - 1).
    """
    gates, vectors = {}, {}
    for layer in range(1, len(forget)):
        read, site = HookSite(layer - 1, "output"), HookSite(layer, "output")
        gates[site] = fit_gate("published", forget[read], moments_of(retain[read]))
        vectors[site] = direction[read].float()[None]
    return Eraser(directions=vectors, gates=gates, strength=strength, mode="published", metadata=metadata)


def artifact_bytes(eraser: Eraser) -> int:
    """Bytes of the vectors that are stored."""
    return int(eraser.inspect()["bytes"])
