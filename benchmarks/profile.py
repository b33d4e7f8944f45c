"""What holds a pass: seconds of each kind of operation under steering, and without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import rivals
from benchmarks.tables import replace_rows
from eraser_lib import find_decoder
from eraser_lib.study.manifest import git_state
from eraser_lib.study.paths import root

TABLE = root() / "results" / "cost_profile.csv"
COLUMNS = [
    "machine",
    "model",
    "phase",
    "method",
    "layers",
    "batch",
    "operation",
    "calls",
    "seconds",
    "more_calls",
    "more_seconds",
    "commit",
]
METHODS = (
    "unsteered", "eraser", "eraser (opened)", "eraser (one pass)", "eraser (published form)", "eraser (constant)",
    "bare hook", "steering-vectors", "dense, every token",
)  # fmt: skip
"""Whose passes are looked into, where they are installed."""
Make = Callable[[Any, dict[str, Any]], Callable[[], Any]]
"""From a model and its inputs, the pass that is looked into, with all made that comes before it."""
FEWEST = 2e-5
"""Seconds in a pass below which an operation is left out."""


def operations(
    model: Any, inputs: dict[str, Any], passes: Mapping[str, Make], *, layers: Sequence[int] = (), repeats: int = 1
) -> list[dict[str, Any]]:
    """One row per phase, method and operation: calls and seconds of a pass, and how many more they are than unsteered.

    Seconds are those of the kernels on a GPU, else of the operations themselves on the processor. The operation `all`
    is their sum. `passes`: by phase. `layers`: numbers of steered blocks; empty means one and all. Of one pass, the
    median of `repeats`.
    """
    device = model.device.type
    batch = int(inputs["input_ids"].shape[0])
    rows: list[dict[str, Any]] = []
    for count in layers or (1, len(find_decoder(model).layers)):
        found = rivals.rivals(model, count)
        methods = [name for name in METHODS if name in found]
        seen: dict[tuple[str, str], list[Took]] = {(phase, name): [] for phase in passes for name in methods}
        for _ in range(repeats):  # in turn, since a processor is faster in one minute than in the next
            for name in methods:
                with found[name]():
                    for phase, make in passes.items():
                        make(model, inputs)()
                        seen[phase, name].append(_took(make(model, inputs), device))
        for (phase, name), looks in seen.items():
            took, plain = _middle(looks), _middle(seen[phase, "unsteered"])
            for operation in dict.fromkeys((*took, *plain)):
                (calls, seconds), (before, without) = (side.get(operation, (0.0, 0.0)) for side in (took, plain))
                if max(seconds, without) >= FEWEST:
                    rows.append({
                        "phase": phase, "method": name, "layers": count, "batch": batch, "operation": operation,
                        "calls": calls, "seconds": seconds, "more_calls": calls - before,
                        "more_seconds": seconds - without,
                    })  # fmt: skip
    return rows


Took = Mapping[str, tuple[float, float]]
"""Operation -> calls and seconds of one pass."""


def _took(call: Callable[[], Any], device: str) -> Took:
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as seen:
        call()
        if on_gpu:
            torch.cuda.synchronize()
    found = {}
    for event in seen.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if microseconds and (event.key.startswith("aten::") or not on_gpu):
            found[event.key] = (float(event.count), 1e-6 * microseconds)
    return found


def _middle(passes: Sequence[Took]) -> Took:
    """Medians over passes, and the sum of all as the operation `all`."""
    found = {}
    for operation in dict.fromkeys(name for took in passes for name in took):
        calls, seconds = zip(*(took.get(operation, (0.0, 0.0)) for took in passes), strict=True)
        found[operation] = (median(calls), median(seconds))
    total = tuple(sum(numbers) for numbers in zip(*found.values(), strict=True))
    return {**found, "all": (total[0], total[1])}


def write(rows: list[dict[str, Any]]) -> None:
    """Replace the rows of these machines, models, phases and batches in `results/cost_profile.csv`.

    `commit`: of the code that was profiled; empty in rows that are older than the column.
    """
    new = pd.DataFrame(rows).assign(commit=git_state()["git_commit"])
    replace_rows(TABLE, new, keys=["machine", "model", "phase", "batch"], columns=COLUMNS, digits=5)
