"""Paired timing: every method once a round, in a new order each round, and ratios within the round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Ratio:
    """A ratio of times with a 95 % interval."""

    value: float
    low: float
    high: float


def rounds(
    calls: Mapping[str, Callable[[], Sequence[float]]], count: int, *, warm: int = 2, seed: int = 0
) -> dict[str, np.ndarray]:
    """Seconds of every call in `count` rounds, `(count, phases)`; `warm` rounds before them are dropped.

    A call returns the seconds of its own phases, so that what it prepares does not count. The order is drawn anew each
    round: whoever runs after a large neighbour is not always the same one.
    """
    rng = random.Random(seed)
    times: dict[str, list[Sequence[float]]] = {name: [] for name in calls}
    for number in range(count + warm):
        order = list(calls)
        rng.shuffle(order)
        for name in order:
            seconds = calls[name]()
            if number >= warm:
                times[name].append(seconds)
    return {name: np.array(found) for name, found in times.items()}


def ratio(mine: np.ndarray, other: np.ndarray, *, draws: int = 2000, seed: int = 0) -> Ratio:
    """Median over rounds of `mine / other`, with a bootstrap interval over rounds."""
    paired = mine / other
    drawn = np.random.default_rng(seed).choice(paired, size=(draws, len(paired)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Ratio(float(np.median(paired)), float(low), float(high))


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Wall time of a call; a GPU is waited for before and after."""
    _wait(device)
    began = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
