"""Seconds of a fit, beside the forward passes that it needs, and how they grow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks import timing
from eraser_lib import HookSite, Moments, find_decoder
from eraser_lib.gate import hard_gate, ridge_gate, ridge_gates
from eraser_lib.hooks import run_capture

BATCH = 32
HIDDEN = (256, 1024, 2048, 4096)
COUNTS = ((100, 1000), (1000, 1000), (100, 10000))
"""Forget and retain prompts."""
ROWS_EACH = 20
"""Forget prompts of a request, where each person makes one."""
ENOUGH = 2.0
"""Seconds from which one measurement of a solver is enough."""


def dense_fit(forget: Tensor, retain: Tensor, direction: Tensor, *, keep: float = 0.5, gamma: float = 1e-2) -> Tensor:
    """`W` `(d, d)` as AlphaSteer and the public code of MLLMEraser fit it: eigenvectors of the retain moment, a
    projector, and a ridge solution with a `d x d` inverse."""
    _, vectors = torch.linalg.eigh(retain.T @ retain)
    basis = vectors[:, : round(keep * retain.shape[1])]
    projector = basis @ basis.T
    rows = forget @ projector  # (N_f, d)
    target = direction.expand(len(rows), -1)
    inner = rows.T @ rows
    inner.diagonal().add_(gamma * inner.diagonal().mean())
    return target.T @ rows @ torch.linalg.pinv(inner) @ projector


def solvers(direction: Tensor) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """How a gate is fitted on activations `(N, d)` of forget and retain prompts, by name."""
    return {
        "eraser": lambda forget, retain: ridge_gate(forget, Moments.of(retain)),
        "eraser (requests)": lambda forget, retain: ridge_gates(forget.split(ROWS_EACH), Moments.of(retain)),
        "eraser (hard solver)": lambda forget, retain: hard_gate(forget, Moments.of(retain), energy=0.99),
        "dense": lambda forget, retain: dense_fit(forget.double(), retain.double(), direction.double()),
    }


def fit(model: Any, prompts: Callable[[int], dict[str, Tensor]], *, rows: int) -> Iterator[dict[str, Any]]:
    """Fit one gate at three quarters of the depth: forward passes that stop there, then each solver.

    The ratio is that of passes and solver together to the passes alone.
    """
    decoder = find_decoder(model)
    site = HookSite(3 * len(decoder.layers) // 4)
    few, many = rows // 10, rows
    batches = -(-(few + many) // BATCH)
    inputs = prompts(BATCH)
    found: list[Tensor] = []

    def passes() -> None:
        for _ in range(batches):
            found.append(run_capture(model, inputs, [site])[site])

    took = timing.seconds(passes, model.device)
    noise = torch.randn(few + many, decoder.hidden_size, device=model.device)
    forget, retain = noise[:few], noise[few:]
    shape = f"{few} forget, {many} retain prompts"
    shared = {"shape": shape, "layers": 1, "batch": BATCH, "phase": "fit", "unit": "s", "reference": "forward passes"}
    yield {**shared, "method": "forward passes", "value": took, "ratio": 1.0}
    for name, solve in solvers(noise[0]).items():
        seconds = _least(functools.partial(solve, forget, retain), model.device, 3)
        yield {**shared, "method": name, "value": seconds, "ratio": (took + seconds) / took}


def growth(device: str) -> list[dict[str, Any]]:
    """Seconds of each solver over hidden size and prompts, on activations that are at hand."""
    rows: list[dict[str, Any]] = []
    smallest: dict[str, float] = {}
    for size in HIDDEN:
        for few, many in COUNTS:
            generator = torch.Generator().manual_seed(0)
            values = torch.randn(few + many, size, generator=generator).to(device)
            for name, solve in solvers(values[0]).items():
                call = functools.partial(solve, values[:few], values[few:])
                seconds = _least(call, values.device, 2)
                smallest.setdefault(name, seconds)
                rows.append({
                    "shape": f"hidden size {size}, {few} forget, {many} retain prompts", "method": name, "layers": 1,
                    "batch": 0, "phase": "fit", "value": seconds, "unit": "s",
                    "reference": f"hidden size {HIDDEN[0]}, {COUNTS[0][0]} forget, {COUNTS[0][1]} retain prompts",
                    "ratio": seconds / smallest[name],
                })  # fmt: skip
    return rows


def _least(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """The least of some measurements, or the first where it takes long."""
    found = [timing.seconds(call, device)]
    while len(found) < repeats and found[0] < ENOUGH:
        found.append(timing.seconds(call, device))
    return min(found)
