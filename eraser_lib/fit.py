"""From activations to an eraser: fit the gates, join them with a direction, merge requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from .artifact import FIELDS
from .direction import Direction
from .eraser import Eraser, Mode, Scope
from .gate import Gate, hard_gate, ridge_gate, rms_normalise, stack
from .moments import Moments
from .quadratic import gaussian_gate
from .sites import HookSite, in_order


def fit_eraser(
    forget: Mapping[HookSite, Tensor | Moments],
    retain: Mapping[HookSite, Tensor | Moments],
    direction: Direction,
    *,
    mode: Mode = "two_pass",
    solver: Literal["ridge", "hard", "gaussian"] = "ridge",
    threshold: float | None = None,
    rms: bool = False,
    strength: float = 1.0,
    scope: Scope = "prompt",
    metadata: Mapping[str, Any] | None = None,
    **solver_options: Any,
) -> Eraser:
    """Fit the gates at the sites of `forget` and combine them with a direction.

    `forget`, `retain`: activations `(N, d)` at the last prompt token per gate site, or their `Moments` (of
    RMS-normalised activations where `rms` is set); the hard solver needs the forget activations themselves, and
    `gaussian`, the quadratic gate, those of both sides.
    `direction`: the steered sites. `threshold`: needed by mode `two_pass`, which takes exactly one gate site; start
    from `inf` and set it by calibration with `eraser.with_threshold`. `solver_options`: `beta, gamma, bias` for
    `ridge_gate`, `energy, keep, gamma, centred, bias` for `hard_gate`, or `curves` for `gaussian_gate`. Mode `constant`
    fits no gate and takes empty mappings. `ValueError` for different sites, an unknown solver, or moments that the
    solver cannot use.
    """
    if in_order(forget) != in_order(retain):
        raise ValueError("`forget` and `retain` must hold activations of the same hook sites.")
    gates: dict[HookSite, Gate] = {}
    for site in in_order(forget):
        known, kept = (
            rms_normalise(rows.to(torch.float64)) if rms and isinstance(rows, Tensor) else rows
            for rows in (forget[site], retain[site])
        )
        gate = replace(_solve(solver, known, kept, **solver_options), rms=rms)
        if threshold is None and mode == "two_pass":
            threshold = float("inf")
        gates[site] = gate if threshold is None else gate.with_threshold(threshold)
    options = {"solver": solver, "solver_options": dict(solver_options), "position": direction.position}
    return Eraser(
        directions={site: direction[site][None] for site in direction.sites},
        gates=gates,
        strength=strength,
        mode=mode,
        scope=scope,
        metadata={**options, **(metadata or {})},
    )


def _solve(solver: str, known: Tensor | Moments, kept: Tensor | Moments, **options: Any) -> Gate:
    """One gate of forget and retain activations or moments; errors as of `fit_eraser`."""
    if solver == "gaussian":
        if not isinstance(known, Tensor) or not isinstance(kept, Tensor):
            raise ValueError("The gaussian solver needs the activations of both sides; Moments of them are not enough.")
        return gaussian_gate(known, kept, **options)
    others = Moments.of(kept) if isinstance(kept, Tensor) else kept
    rows = known.to(torch.float64) if isinstance(known, Tensor) else known
    if solver == "ridge":
        return ridge_gate(rows, others, **options)
    if solver != "hard":
        raise ValueError(f"solver is {solver!r}; it must be ridge, hard or gaussian.")
    if not isinstance(rows, Tensor):
        raise ValueError("The hard solver needs the forget activations; Moments of them fit a ridge gate only.")
    return hard_gate(rows, others, **options)


MADE_FOR = ("config_hash", "model_id", "model_revision")
"""Metadata that says which model an eraser belongs to."""


def combine(erasers: list[Eraser]) -> Eraser:
    """Several requests with the same sites and settings as one eraser of higher rank.

    Each request keeps its threshold, and a prompt is steered when any of them opens: `k` thresholds that were
    calibrated to `alpha` each keep `k * alpha` together. Calibrate the combined gate again for `alpha`.

    Raises:
        ValueError: no eraser; or they differ in hook sites, in settings, or in the model that they were made for.
    """
    if not erasers:
        raise ValueError("combine() needs at least one eraser.")
    first = erasers[0]
    if any(set(e.directions) != set(first.directions) or set(e.gates) != set(first.gates) for e in erasers):
        raise ValueError("Erasers can be combined when they read and steer the same hook sites.")
    for name in FIELDS:
        values = {getattr(e, name) for e in erasers}
        if len(values) > 1:
            raise ValueError(
                f"Erasers can be combined when their settings agree; {name} is {sorted(map(str, values))}."
            )
    made_for = {key: {e.metadata[key] for e in erasers if e.metadata.get(key)} for key in MADE_FOR}
    if len(made_for["config_hash"]) > 1:
        raise ValueError("Erasers can be combined when they were made for models of one configuration.")
    later = [e.decode_directions for e in erasers]
    if any((value is None) != (later[0] is None) for value in later):
        raise ValueError("Either all or none of the erasers must have decode_directions.")
    merged = {s: torch.cat([e.directions[s] for e in erasers]) for s in first.directions}
    decode = {s: torch.cat([v[s] for v in later if v is not None]) for s in later[0]} if later[0] is not None else None
    gates = {s: stack([e.gates[s] for e in erasers]) for s in first.gates}
    requests = [dict(e.metadata) for e in erasers]
    shared = {k: v for k, v in first.metadata.items() if all(r.get(k) == v for r in requests)}
    # what is known of one of them protects all: an eraser that was never saved does not know its model
    shared |= {key: next(iter(values)) for key, values in made_for.items() if len(values) == 1}
    return first.with_(
        directions=merged, decode_directions=decode, gates=gates, metadata={**shared, "requests": requests}
    )
