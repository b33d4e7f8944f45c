"""Seconds of a fit, beside the forward passes that it needs, and how they grow."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks import timing
from eraser_lib import Eraser, HookSite, Moments, find_decoder
from eraser_lib.cli.workshop import WIDEST
from eraser_lib.experiments.gates import fit_gate
from eraser_lib.gate import Gate, hard_gate, ridge_gate, ridge_gates
from eraser_lib.hooks import run_capture

BATCH = 32
HIDDEN = (256, 1024, 2048, 4096)
COUNTS = ((100, 1000), (1000, 1000), (100, 10000))
"""Forget and retain prompts."""
ROWS_EACH = 20
"""Forget prompts of a request, where each person makes one."""
ENOUGH = 2.0
"""Seconds from which one measurement of a solver is enough."""
ROUNDS = 3
"""Measurements of the passes of a fit, of which the least counts."""
SMALL = 1e-3
"""Length of the vectors that gates add while others are fitted, so that nothing overflows through many blocks."""


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

    Then gates at 8 and at all blocks, those that end there and all: one for each block, and one on what all of them say
    together where that is no wider than the command line's (`WIDEST`). The ratio is that of passes and solver together
    to the passes alone, which keep what every one of these blocks says.
    """
    decoder = find_decoder(model)
    blocks = len(decoder.layers)
    few, many = rows // 10, rows
    inputs = prompts(BATCH)
    noise = torch.randn(few + many, decoder.hidden_size, device=model.device)
    forget, retain = noise[:few], noise[few:]
    shape = f"{few} forget, {many} retain prompts"
    reading: dict[int, Callable[[], None]] = {}
    for count in sorted({1, min(8, blocks), blocks}):
        stop = max(count, 3 * blocks // 4 + 1)
        sites = [HookSite(layer) for layer in range(stop - count, stop)]
        found: list[dict[HookSite, Tensor]] = []

        def passes(sites: list[HookSite] = sites, found: list[dict[HookSite, Tensor]] = found) -> None:
            found[:] = [run_capture(model, inputs, sites) for _ in range(-(-(few + many) // BATCH))]

        reading[count] = passes
        run_capture(model, inputs, sites)  # what the first pass of a process makes is no part of a fit
    # in turn, so that a machine which slows down does not make the later ones look slow
    rounds = [{count: timing.seconds(call, model.device) for count, call in reading.items()} for _ in range(ROUNDS)]
    for count in reading:
        took = min(each[count] for each in rounds)
        shared = {"shape": shape, "layers": count, "batch": BATCH, "phase": "fit", "unit": "s",
                  "reference": "forward passes"}  # fmt: skip
        yield {**shared, "method": "forward passes", "value": took, "ratio": 1.0}
        calls = {name: functools.partial(solve, forget, retain) for name, solve in solvers(noise[0]).items()}
        if count > 1:
            calls = {"eraser (a gate for each block)": functools.partial(_in_turn, calls["eraser"], count)}
            width = count * decoder.hidden_size
            if width <= WIDEST:
                wide = torch.randn(few + many, width, device=model.device)
                solve = solvers(wide[0])["eraser"]
                calls["eraser (a gate on all of them)"] = functools.partial(solve, wide[:few], wide[few:])
        for name, call in calls.items():
            seconds = _least(call, model.device, 3)
            yield {**shared, "method": name, "value": seconds, "ratio": (took + seconds) / took}


def _in_turn(call: Callable[[], Any], count: int) -> list[Any]:
    return [call() for _ in range(count)]


def published(
    model: Any, prompts: Callable[[int], dict[str, Tensor]], attack: Callable[[], Any], *, rows: int, attacked: str
) -> Iterator[dict[str, Any]]:
    """What the published form costs to fit: its gates in parallel or in turn, and the attack behind its direction.

    It has a gate at every block but the first. `forward passes` are those of a parallel fit, which stop at the last
    stream that is read. `eraser (published form)`, the solver of all gates, and `PGD` are added to them in the ratio;
    `eraser (sequential)` is compared with them as it is, since it makes passes of its own. `attack` is what is timed as
    PGD, and `attacked` says in words on what. Nothing where there is no second gate to come after a first.
    """
    decoder = find_decoder(model)
    sites = [HookSite(block) for block in range(len(decoder.layers) - 1)]
    if len(sites) < 2:
        return
    few, many = rows // 10, rows
    batches = in_batches(prompts(few + many))
    vectors = SMALL * torch.randn(len(sites), decoder.hidden_size, generator=torch.Generator().manual_seed(0))
    streams: dict[HookSite, Tensor] = {}
    run_capture(model, batches[0], sites)  # the first pass of a GPU takes longer
    took = _least(lambda: streams.update(read(model, batches, sites)), model.device, 3)
    calls = {
        "eraser (published form)": lambda: parallel(streams, few),
        "eraser (sequential)": lambda: sequential(model, batches, few, vectors),
        "PGD": attack,
    }
    shape = f"{few} forget, {many} retain prompts"
    shared = {"layers": len(sites), "batch": BATCH, "phase": "fit", "unit": "s", "reference": "forward passes"}
    yield {**shared, "shape": shape, "method": "forward passes", "value": took, "ratio": 1.0}
    for name, call in calls.items():
        seconds = _least(call, model.device, 3)
        whole = seconds if name == "eraser (sequential)" else took + seconds
        about = f"{shape}, {attacked}" if name == "PGD" else shape
        yield {**shared, "shape": about, "method": name, "value": seconds, "ratio": whole / took}


def in_batches(inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Model inputs of many prompts, `BATCH` at a time."""
    count = len(inputs["input_ids"])
    return [
        {key: value[start : start + BATCH] for key, value in inputs.items()} for start in range(0, count, BATCH)
    ]  # fmt: skip


def read(model: Any, batches: Sequence[dict[str, Tensor]], sites: Sequence[HookSite]) -> dict[HookSite, Tensor]:
    """Streams at the last prompt token of all prompts, `(N, d)` in float32 by site, steered under an eraser."""
    found = [run_capture(model, inputs, sites) for inputs in batches]
    return {site: torch.cat([streams[site] for streams in found]).float() for site in sites}


def parallel(streams: dict[HookSite, Tensor], few: int) -> dict[HookSite, Gate]:
    """Gates of the published form, all fitted on the unsteered model: each at the block after the one that is read.

    `streams`: activations `(N, d)`, of `few` forget prompts and then of retain prompts.
    """
    return {
        HookSite(site.layer + 1): fit_gate("published", rows[:few], Moments.of(rows[few:].double()))
        for site, rows in streams.items()
    }


def sequential(model: Any, batches: Sequence[dict[str, Tensor]], few: int, vectors: Tensor) -> Eraser:
    """The published form with gates fitted in turn, each on streams that those before it have already steered.

    That takes a sweep over the prompts for every gate, and all but the first run to the end, as passes do under an
    eraser. `batches`: inputs of `few` forget prompts and then of retain prompts; `vectors`: directions `(gates, d)`.
    """
    gates: dict[HookSite, Gate] = {}
    directions: dict[HookSite, Tensor] = {}
    for layer, vector in enumerate(vectors):
        context: AbstractContextManager[Any] = nullcontext()
        if gates:
            context = Eraser(directions=directions, gates=gates, mode="published").attach(model)
        with context:
            streams = read(model, batches, [HookSite(layer)])
        gates |= parallel(streams, few)
        directions[HookSite(layer + 1)] = vector[None]
    return Eraser(directions=directions, gates=gates, mode="published")


def growth(device: str) -> list[dict[str, Any]]:
    """Seconds of each solver over hidden size and prompts, on activations that are at hand.

    A solver that finds no solution at a size has no row there, which is said. The reference is the smallest size.
    """
    rows: list[dict[str, Any]] = []
    smallest: dict[str, float] = {}
    for size in HIDDEN:
        for few, many in COUNTS:
            generator = torch.Generator().manual_seed(0)
            values = torch.randn(few + many, size, generator=generator).to(device)
            for name, solve in solvers(values[0]).items():
                call = functools.partial(solve, values[:few], values[few:])
                try:
                    seconds = _least(call, values.device, 2)
                except torch.linalg.LinAlgError as problem:  # some decompositions do not converge on some processors
                    print(f"  left out: {name} at hidden size {size}, {few} and {many} prompts: {problem}", flush=True)
                    continue
                if (size, few, many) == (HIDDEN[0], *COUNTS[0]):
                    smallest[name] = seconds
                rows.append({
                    "shape": f"hidden size {size}, {few} forget, {many} retain prompts", "method": name, "layers": 1,
                    "batch": 0, "phase": "fit", "value": seconds, "unit": "s",
                    "reference": f"hidden size {HIDDEN[0]}, {COUNTS[0][0]} forget, {COUNTS[0][1]} retain prompts",
                    "ratio": seconds / smallest.get(name, math.nan),
                })  # fmt: skip
    return rows


def _least(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """The least of some measurements, or the first where it takes long."""
    found = [timing.seconds(call, device)]
    while len(found) < repeats and found[0] < ENOUGH:
        found.append(timing.seconds(call, device))
    return min(found)
