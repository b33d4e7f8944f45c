"""When does a linear null space stop working? Fewer dimensions of the stream, more people who must be left alone.

The streams of the model at hand are seen through fewer dimensions, by random orthonormal projections: what a gate loses
is what linear algebra costs it, and not what a narrower model would fail to learn or learn otherwise (for models that
were trained with a narrower stream see `sizes`). The question is that of any null-space rule (MLLMEraser, arXiv
2510.04217): retained activations fill the stream, and the space that they leave shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from eraser_lib.experiments import curved, gates
from eraser_lib.experiments.ablate import Bench
from eraser_lib.experiments.activations import Activations
from eraser_lib.experiments.methods import Decision
from eraser_lib.moments import Moments
from eraser_lib.sites import HookSite

WIDTHS = (8, 16, 32, 64, 128)
PEOPLE = (7, 28, 110)
"""Retained people and celebrities in the fit."""
ENERGY = 0.99


def random_basis(size: int, width: int, *, seed: int) -> Tensor:
    """`width` random orthonormal directions `(size, width)`, float64. `ValueError` for more than `size`."""
    if not 1 <= width <= size:
        raise ValueError(f"width is {width}; a stream of {size} numbers has between 1 and {size} directions")
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, width, generator=generator, dtype=torch.float64)).Q


def seen_through(read: Activations, basis: Tensor) -> Activations:
    """Every stream `(N, size)` in the coordinates of a basis, `(N, width)`."""
    return {site: (values.double() @ basis).to(values.dtype) for site, values in read.items()}


def narrowed(bench: Bench, layers: Sequence[int], basis: Tensor | None, people: int) -> Bench:
    """The blocks that a gate reads through `basis`, with retain rows about the first `people` people alone.

    Rows about nobody stay: they are no person whom a gate could mistake. `None` leaves the streams as they are.
    """
    sites = [HookSite(layer, "output") for layer in layers]
    rows = bench.rows["retain"]
    first = set(list(dict.fromkeys(row.person for row in rows if row.person is not None))[:people])
    stay = torch.tensor([row.person is None or row.person in first for row in rows])
    read: dict[str, dict[str, Activations]] = {}
    for role, sets in bench.read.items():
        for name, found in sets.items():
            own = {site: found[site] for site in sites}
            if (role, name) == ("fit", "retain"):
                own = {site: values[stay] for site, values in own.items()}
            read.setdefault(role, {})[name] = own if basis is None else seen_through(own, basis)
    kept = [row for row, stays in zip(rows, stay.tolist(), strict=True) if stays]
    return Bench(read, {**bench.rows, "retain": kept}, bench.alpha)


def width_table(
    bench: Bench, decision: Decision, *, widths: Sequence[int] = WIDTHS, people: Sequence[int] = PEOPLE, seeds: int = 3
) -> pd.DataFrame:
    """The gate of the study, two Gaussians on its blocks, and the hard null space at its last block.

    Each over width and number of retained people.

    Columns: `solver` (`decision`, `gaussian` or `hard`), `width`, `people`, `seed` of the projection, `free` (see
    `free_dimensions`, at the last block), and those of `Bench.judge`. The full width has one seed, for nothing is
    drawn. The hard solver is missing where its projector leaves nothing.
    """
    size = bench.read["fit"]["retain"][HookSite(decision.layers[-1], "output")].shape[1]
    found: list[dict[str, Any]] = []
    for width in [*(width for width in widths if width < size), size]:
        for seed in range(seeds if width < size else 1):
            basis = None if width == size else random_basis(size, width, seed=seed)
            for count in people:
                small = narrowed(bench, decision.layers, basis, count)
                found += _judged(small, decision, {"width": width, "people": count, "seed": seed})
    return pd.DataFrame(found)


def _judged(bench: Bench, decision: Decision, about: dict[str, Any]) -> list[dict[str, Any]]:
    layers, last = tuple(decision.layers), (decision.layers[-1],)
    fit = bench.read["fit"]
    about = {**about, "free": free_dimensions(fit["retain"][HookSite(last[0], "output")])}
    found = curved.told_apart(fit, layers)
    gate = gates.fit_joined(decision.solver, fit, bench.rows, layers)
    rows = [
        bench.judge(gate, layers, solver="decision", **about),
        bench.judge(found.gate(len(found.origin)), layers, solver="gaussian", **about),
    ]
    try:
        gate = gates.fit_joined("hard", fit, bench.rows, last)
    except ValueError:  # nothing is left to read
        return rows
    return [*rows, bench.judge(gate, last, solver="hard", **about)]


def free_dimensions(retain: Tensor, energy: float = ENERGY) -> int:
    """Directions that the activations `(N, d)` hardly use: all but the fewest that hold `energy` of their variance."""
    shares = torch.linalg.eigvalsh(Moments.of(retain.double()).covariance).flip(0).clamp_min(0)
    needed = int((shares.cumsum(0) < energy * shares.sum()).sum()) + 1
    return retain.shape[1] - min(needed, retain.shape[1])
