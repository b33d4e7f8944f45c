"""Moments read batch by batch: the same numbers, a stated peak of memory, no work that is not needed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.memory import LiveBytes
from benchmarks.shapes import REAL, real_model
from eraser_lib import (
    HookSite,
    Moments,
    ahead,
    contrast,
    every_layer,
    find_decoder,
    fit_eraser,
    run_capture,
    stream_means,
    stream_moments,
)
from eraser_lib.stream import moment_bytes, sweeps
from tests.core.conftest import FAMILIES, WIDTH, make_model

HERE = Path(__file__).parents[2]
MIDDLE = HookSite(2)
JOINED = (HookSite(1), MIDDLE)


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param, torch.float32)


def inputs(count: int, *, rows: int = 2, width: int = 7) -> Iterator[dict[str, torch.Tensor]]:
    for number in range(count):
        ids = torch.randint(9, 60, (rows, width), generator=torch.Generator().manual_seed(number))
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def stacked(model: Any, count: int) -> dict[HookSite, torch.Tensor]:
    """All activations, kept."""
    sites = every_layer(model)
    parts = [run_capture(model, batch, sites) for batch in inputs(count)]
    return {site: torch.cat([part[site] for part in parts]) for site in sites}


@pytest.mark.parametrize("budget", [None, 6 * moment_bytes(WIDTH), moment_bytes(2 * WIDTH)])
def test_streamed_moments_are_those_of_all_activations(model: Any, budget: int | None) -> None:
    readings = [HookSite(3), JOINED, HookSite(0)]
    found = stream_moments(model, lambda: inputs(5), readings, budget=budget)
    kept = stacked(model, 5)
    assert list(found) == readings
    for reading, moments in found.items():
        joined = torch.cat([kept[site] for site in ((reading,) if isinstance(reading, HookSite) else reading)], dim=1)
        wanted = Moments.of(joined)
        assert moments.count == 10 and moments.second.dtype == torch.float32
        torch.testing.assert_close(moments.second.double(), wanted.second, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(moments.sum.double(), wanted.sum, rtol=1e-5, atol=1e-5)


def test_means_need_no_matrix(model: Any) -> None:
    kept = stacked(model, 3)
    with LiveBytes() as live:
        means = stream_means(model, inputs(3), every_layer(model))
    assert live.largest < moment_bytes(WIDTH) * 4, "no tensor as large as the moments of all blocks"
    for site, mean in means.items():
        torch.testing.assert_close(mean, kept[site].double().mean(dim=0, keepdim=True), rtol=1e-6, atol=1e-6)
    direction = contrast(means, {site: torch.zeros_like(mean) for site, mean in means.items()})
    assert direction.sites == every_layer(model)


def peak(model: Any, count: int, **options: Any) -> int:
    with LiveBytes() as live:
        stream_moments(model, lambda: inputs(count), every_layer(model), **options)
    return live.peak


def test_the_peak_of_memory_is_the_stated_one_and_does_not_grow_with_the_prompts(model: Any) -> None:
    """Counted: moments of all sites, the update of one, and a forward pass."""
    few, many = peak(model, 3), peak(model, 30)
    assert many == few
    with LiveBytes() as live:
        run_capture(model, next(inputs(1)), every_layer(model))
    sites = len(every_layer(model))
    assert sites * moment_bytes(WIDTH) <= few <= (sites + 2) * moment_bytes(WIDTH) + live.peak


def test_a_budget_is_kept_by_more_sweeps(model: Any) -> None:
    budget = 2 * moment_bytes(WIDTH)
    moments_alive: list[int] = []

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        moments_alive.append(0)
        yield from inputs(2)

    whole = stream_moments(model, lambda: inputs(2), every_layer(model))
    parts = stream_moments(model, batches, every_layer(model), budget=budget)
    assert len(moments_alive) == 2, "four blocks, two at a time"
    for site in whole:
        assert torch.equal(whole[site].second, parts[site].second)
    with pytest.raises(ValueError, match=r"moments of 1\.output\+2\.output take .* more than the budget"):
        stream_moments(model, batches, [JOINED], budget=budget)


@pytest.mark.parametrize("name", ["llava-hf/llava-1.5-7b-hf", "Qwen/Qwen2.5-VL-7B-Instruct"])
def test_a_device_holds_no_more_than_the_budget_one_update_and_a_pass(name: str) -> None:
    """Six blocks of the real width, on a device where tensors have sizes and no numbers. What a finished sweep found
    leaves it, or the moments of all blocks would meet there."""
    shape = replace(REAL[name], layers=6)
    each = moment_bytes(shape.hidden)
    with FakeTensorMode():
        model = real_model(shape, device="meta")
        batch = {"input_ids": torch.zeros(4, 9, dtype=torch.long, device="meta")}
        with LiveBytes("meta") as one_pass:
            run_capture(model, batch, every_layer(model))
        with LiveBytes("meta") as live:
            found = stream_moments(model, lambda: [batch] * 2, every_layer(model), budget=2 * each)
        with LiveBytes("meta") as without:
            stream_moments(model, lambda: [batch], every_layer(model))
    assert len(found) == 6 and {moments.second.device.type for moments in found.values()} == {"cpu"}
    assert one_pass.peak < each / 5
    assert 2 * each <= live.peak <= 2 * each + each + one_pass.peak
    assert without.peak >= 6 * each, "the budget is what kept it small"


def test_a_sweep_goes_no_deeper_than_it_must(model: Any) -> None:
    ran: list[int] = []
    blocks = find_decoder(model).layers
    handles = [b.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, b in enumerate(blocks)]
    try:
        stream_moments(model, lambda: inputs(1), every_layer(model), budget=2 * moment_bytes(WIDTH))
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0, 1, 0, 1, 2, 3]


def stream_shard(first: int, last: int, folder: str) -> None:
    """What one of several processes does: the moments of its batches, in a file for each family."""
    part = list(inputs(last))[first:]
    for family in FAMILIES:
        model = make_model(family, torch.float64)
        found = stream_moments(model, lambda: part, [MIDDLE], dtype=torch.float64)
        found[MIDDLE].save(Path(folder) / f"{family}-{first}")


def test_shards_of_several_processes_are_merged(tmp_path: Path) -> None:
    """Each in a process of its own, at the same time; together they are the moments of one batch of all prompts."""
    shards = ((0, 2), (2, 6))
    program = "from tests.core.test_stream import stream_shard as shard; shard({}, {}, {!r})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program.format(*shard, str(tmp_path))],
            cwd=HERE, stderr=subprocess.PIPE, text=True,
        )
        for shard in shards
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    batches = list(inputs(6))
    batch = {name: torch.cat([part[name] for part in batches]) for name in batches[0]}
    for family in FAMILIES:
        first, second = (Moments.load(tmp_path / f"{family}-{first}") for first, _ in shards)
        assert (first.count, second.count) == (4, 8) and first.second.dtype == torch.float64
        merged = first.merge(second)
        whole = Moments.of(run_capture(make_model(family, torch.float64), batch, [MIDDLE])[MIDDLE])
        assert merged.count == whole.count == 12
        for one, other in ((merged.sum, whole.sum), (merged.second, whole.second)):
            assert float((one - other).norm() / other.norm()) < 1e-12


def test_an_eraser_is_fitted_without_keeping_an_activation(model: Any) -> None:
    kept = stacked(model, 8)
    site, direction = HookSite(3), contrast({HookSite(0): torch.ones(1, WIDTH)}, {HookSite(0): torch.zeros(1, WIDTH)})
    forget, retain = kept[site][:6].double(), kept[site][6:].double()
    usual = fit_eraser({site: forget}, {site: retain}, direction)
    streamed = fit_eraser({site: Moments.of(forget)}, {site: Moments.of(retain)}, direction)
    torch.testing.assert_close(streamed.gates[site].weight, usual.gates[site].weight)
    with pytest.raises(ValueError, match="hard solver needs the forget activations"):
        fit_eraser({site: Moments.of(forget)}, {site: Moments.of(retain)}, direction, solver="hard", energy=0.9)


def test_no_batches_is_an_error(model: Any) -> None:
    used = iter(list(inputs(1)))
    with pytest.raises(ValueError, match="Pass a function that starts anew"):
        stream_moments(model, lambda: used, every_layer(model), budget=moment_bytes(WIDTH))
    with pytest.raises(ValueError, match="no batches"):
        stream_means(model, [], every_layer(model))


@pytest.mark.parametrize("name", ["llava-hf/llava-1.5-7b-hf", "Qwen/Qwen2.5-VL-7B-Instruct"])
def test_what_a_7b_model_needs(name: str) -> None:
    """The figures of the page on cost: one block 67 MB or less, all of them about 2 GB, in 3 sweeps of 1 GB."""
    model = real_model(REAL[name], device="meta")
    size, sites = REAL[name].hidden, every_layer(model)
    assert moment_bytes(size) <= 68e6
    assert 1.4e9 < len(sites) * moment_bytes(size) < 2.2e9
    assert len(sweeps(sites, size, budget=10**9)) <= 3
    assert sum(len(group) for group in sweeps(sites, size, budget=10**9)) == len(sites)


def test_what_is_prepared_ahead_comes_in_order_and_never_piles_up() -> None:
    made, lock = [], threading.Lock()

    def make(number: int) -> int:
        with lock:
            made.append(number)
        return number * number

    found = []
    for value in ahead(make, range(20), workers=3):
        found.append(value)
        assert len(made) <= len(found) + 3
    assert found == [number * number for number in range(20)]


def test_an_error_ahead_is_raised_where_its_result_was_due() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("picture 2 is broken")
        return number

    results = ahead(make, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="picture 2 is broken"):
        next(results)
