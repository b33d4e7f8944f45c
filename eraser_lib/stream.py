"""Read moments of activations batch by batch, within a stated budget of memory: what a 7B model needs.

A gate is fitted on moments, which do not grow with the number of prompts. What does grow is their size, `d x d` per
site: at `d = 4096` 67 MB in float32, and 2.1 GB for all 32 blocks. Where that is more than the budget, the prompts are
read several times, each time for as many sites as fit and no further than the last of them. The budget is one of
moments: an update, as large as the moments of one reading, and a forward pass come on top.

Fewer prompts than the stream is wide are smaller as activations `(N, d)`, and these can be read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from .hooks import run_capture
from .moments import Moments
from .sites import HookSite, find_decoder, in_order

Reading = HookSite | tuple[HookSite, ...]
"""A hook site, or several whose streams are joined."""
Inputs = Mapping[str, Any]


def moment_bytes(size: int, dtype: torch.dtype = torch.float32) -> int:
    """Memory of the moments of one stream of width `size`."""
    return (size * size + size) * dtype.itemsize


def sweeps(
    readings: Sequence[Reading], size: int, *, budget: int | None, dtype: torch.dtype = torch.float32
) -> list[list[Reading]]:
    """Which readings are made together, so that their moments stay within the budget.

    Args:
        readings: what is read.
        size: width `d` of one stream.
        budget: bytes for moments; `None` for no limit.
        dtype: of the moments.

    Returns:
        Groups of readings, shallow ones first: an early group needs only the beginning of a forward pass.

    Raises:
        ValueError: a single reading is larger than the budget.
    """
    ordered = sorted(readings, key=lambda reading: _sites(reading)[-1].depth)
    groups: list[list[Reading]] = []
    left = 0
    for reading in ordered:
        needed = moment_bytes(size * len(_sites(reading)), dtype)
        if budget is not None and needed > budget:
            raise ValueError(
                f"The moments of {'+'.join(map(str, _sites(reading)))} take {needed:,} bytes, more than the budget of "
                f"{budget:,}. Raise the budget, or read fewer sites together."
            )
        if not groups or (budget is not None and needed > left):
            groups.append([])
            left = budget or 0
        groups[-1].append(reading)
        left -= needed
    return groups


@torch.no_grad()
def stream_moments(
    model: nn.Module,
    batches: Callable[[], Iterable[Inputs]],
    readings: Sequence[Reading],
    *,
    budget: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> dict[Reading, Moments]:
    """Moments of the residual stream at the last prompt token. No activation outlives its batch.

    Args:
        model: a transformers model, see `find_decoder`.
        batches: a function that gives the model inputs anew, batch by batch; it is called once a sweep.
        readings: sites, or tuples of sites whose streams are joined.
        budget: bytes for moments at a time, see `sweeps`; an update takes those of one reading on top.
        dtype: of the moments; float32 is enough, the solvers go on in float64.
        device: where they are added up; by default that of each (last) site.

    Returns:
        Moments by reading. Where there are several sweeps, those of a finished one are moved to the CPU: the budget is
        the device's.

    Raises:
        ValueError: a reading larger than the budget, or no batches.
    """
    decoder = find_decoder(model)
    groups = sweeps(readings, decoder.hidden_size, budget=budget, dtype=dtype)
    found: dict[Reading, Moments] = {}
    for group in groups:
        moments = {
            reading: Moments(
                decoder.hidden_size * len(_sites(reading)), dtype=dtype,
                device=device if device is not None else decoder.device(_sites(reading)[-1]),
            )
            for reading in group
        }  # fmt: skip
        needed = in_order(site for reading in group for site in _sites(reading))
        for inputs in batches():
            streams = run_capture(model, inputs, needed)
            for reading, into in moments.items():
                into.update(torch.cat([streams[site].to(into.sum.device) for site in _sites(reading)], dim=-1))
            del streams
        if any(into.count == 0 for into in moments.values()):
            raise ValueError("batches() gave nothing. Pass a function that starts anew each time it is called.")
        if len(groups) > 1:
            for into in moments.values():
                into.sum, into.second = into.sum.cpu(), into.second.cpu()
        found |= moments
    return {reading: found[reading] for reading in readings}


@torch.no_grad()
def stream_means(model: nn.Module, batches: Iterable[Inputs], sites: Sequence[HookSite]) -> dict[HookSite, Tensor]:
    """Mean residual stream at the last prompt token, `(1, d)` in float64 per site: what `contrast` needs, without the
    `d x d` of `Moments`. `ValueError` for no batches."""
    totals: dict[HookSite, Tensor] = {}
    count = 0
    for inputs in batches:
        streams = run_capture(model, inputs, sites)
        for site, stream in streams.items():
            part = stream.double().sum(dim=0).cpu()
            totals[site] = totals[site] + part if site in totals else part
        count += next(iter(streams.values())).shape[0]
    if not count:
        raise ValueError("There are no batches to take a mean of.")
    return {site: (totals[site] / count)[None] for site in in_order(sites)}


def ahead(make: Callable[[Any], Any], items: Iterable[Any], *, workers: int = 2) -> Iterator[Any]:
    """`map(make, items)`, in order, with the next `workers` results prepared meanwhile in threads.

    For decoding pictures and tokenising while the model computes: `ahead(loaded.encode, chunks)`. At most `workers`
    results wait at a time. An error of `make` is raised where its result would have come.
    """
    waiting: list[Future[Any]] = []
    remaining = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        waiting += [pool.submit(make, item) for item in islice(remaining, workers)]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting += [pool.submit(make, item) for item in islice(remaining, 1)]
                yield result
        finally:
            for job in waiting:
                job.cancel()


def _sites(reading: Reading) -> tuple[HookSite, ...]:
    return (reading,) if isinstance(reading, HookSite) else in_order(reading)
