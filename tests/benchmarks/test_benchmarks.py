"""What the cost table rests on: counted memory, paired ratios, rivals that compute what they are said to compute.

Nothing is timed here.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from benchmarks import cost, fitting, hours, pictures, profile, rivals, shapes, timing
from benchmarks.memory import LiveBytes
from eraser_lib import Direction, HookSite, Moments, find_decoder
from eraser_lib.bench.records import Prompt
from eraser_lib.experiments import ablate_push, directions
from eraser_lib.gate import hard_gate
from eraser_lib.sites import every_layer
from eraser_lib.study import checkpoints, matrix, paths, preset
from eraser_lib.study.paths import read_json, write_json

KIB = 1024
HERE = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=shapes.TINY)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tiny(name: str) -> Any:
    return shapes.open_model(name, device="cpu")


def test_memory_is_counted_from_birth_to_death() -> None:
    before = torch.zeros(256)
    with LiveBytes() as live:
        first = torch.ones(256)  # 1 KiB
        view = first[:100]  # shares it
        second = first * 2 + before  # one temporary beside it
        assert live.now == 2 * KIB
        del first
        assert live.now == 2 * KIB, "the view keeps the memory"
        del view
        second += 1
        assert live.now == KIB
    assert (live.peak, live.largest) == (3 * KIB, KIB)
    assert float(second.sum()) == 3 * 256


def test_ratios_are_paired_within_a_round() -> None:
    drift = np.linspace(1, 3, 21)  # the machine slows down: the ratio does not care
    found = timing.ratio(2 * drift, drift)
    assert (found.value, found.low, found.high) == (2, 2, 2)
    noisy = timing.ratio(drift[::-1].copy(), drift)
    assert noisy.low < noisy.value < noisy.high


def test_every_call_runs_once_a_round_in_changing_order() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) or (1.0, 2.0) for name in "abc"}
    times = timing.rounds(calls, 5)
    assert {name: found.tolist() for name, found in times.items()} == dict.fromkeys("abc", [[1.0, 2.0]] * 5)
    chunks = ["".join(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert len(chunks) == 7 and all(sorted(chunk) == ["a", "b", "c"] for chunk in chunks) and len(set(chunks)) > 1


def logits(model: torch.nn.Module, attach: rivals.Attach, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad(), attach() as opened:
        found: Tensor = cost.prefill(cost.caller(model, opened), inputs).logits
    return found


def test_a_library_that_is_not_installed_is_named_and_left_out(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"steering_vectors": object()}
    monkeypatch.setattr(rivals.importlib.util, "find_spec", found.get)
    assert rivals.missing() == ["repeng", "pyvene", "nnsight"]
    assert set(rivals.PEERS) & set(rivals.rivals(tiny, 2)) == {"steering-vectors"}


def test_rivals_do_what_they_are_called(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "SMALL", 0.5)
    inputs = cost.prompts(tiny, 2, 12)
    found = rivals.rivals(tiny, 2)
    values = {name: logits(tiny, attach, inputs) for name, attach in found.items() if name != "repeng"}
    assert torch.equal(values["unsteered"], values["unsteered (again)"])
    assert torch.equal(values["unsteered"], values["eraser"]), "a closed gate changes nothing"
    assert torch.allclose(values["eraser (constant)"], values["bare hook"], atol=1e-5)
    assert torch.allclose(values["eraser (opened)"], values["bare hook"], atol=1e-5)
    for name in ("eraser (constant)", "eraser (one pass)", "eraser (published form)", "dense, last token"):
        assert not torch.allclose(values["unsteered"], values[name], atol=1e-4), name
    assert torch.equal(values["unsteered"], logits(tiny, found["unsteered"], inputs)), "and nothing is left behind"


def test_positions_are_those_that_the_model_would_count(tiny: Any) -> None:
    """They are given for repeng, which knows padding by them, and to all methods alike."""
    inputs = cost.prompts(tiny, 2, 12)
    step = {"input_ids": inputs["input_ids"][:, :1], "attention_mask": torch.ones(2, 13, dtype=torch.long)}
    with torch.no_grad():
        told, counted = (cost.prefill(tiny, one) for one in (cost.placed(tiny, inputs), inputs))
        assert torch.equal(told.logits, counted.logits)
        after = [
            tiny(**one, past_key_values=found.past_key_values, use_cache=True).logits
            for one, found in ((cost.placed(tiny, step, first=12), told), (step, counted))
        ]
    assert torch.equal(*after)


def test_a_rival_that_computes_something_else_is_left_out(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rivals, "SMALL", 0.5)
    found = rivals.rivals(tiny, 2)
    found["steering-vectors"] = found["dense, every token"]
    with torch.no_grad():
        kept = cost.alike(tiny, found, cost.prompts(tiny, 1, 12))
    assert "steering-vectors" not in kept and "eraser (constant)" in kept
    assert "left out: steering-vectors, which computes something else" in capsys.readouterr().out


def test_a_library_that_is_called_in_the_place_of_the_model_is_timed_for_its_prefill(tiny: Any) -> None:
    seen: list[int] = []

    def through(**inputs: Any) -> Any:
        seen.append(inputs["input_ids"].shape[1])
        return tiny(**inputs)

    def attach() -> Any:
        return contextlib.nullcontext(rivals.Through(through))

    with torch.no_grad():
        first, step = cost.timed(tiny, cost.prompts(tiny, 1, 12), attach, steps=2)
    assert seen == [12] and first > 0 and np.isnan(step)
    with torch.no_grad():
        _, step = cost.timed(tiny, cost.prompts(tiny, 1, 12), contextlib.nullcontext, steps=2)
    assert step > 0


@pytest.mark.parametrize("peer", ["pyvene", "nnsight"])
def test_a_library_adds_what_a_bare_hook_adds(tiny: Any, peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(peer)
    monkeypatch.setattr(rivals, "SMALL", 0.5)
    inputs = cost.prompts(tiny, 2, 12)
    found = rivals.rivals(tiny, 2)
    assert torch.allclose(logits(tiny, found[peer], inputs), logits(tiny, found["bare hook"], inputs), atol=1e-5)
    assert not torch.allclose(logits(tiny, found["unsteered"], inputs), logits(tiny, found["bare hook"], inputs))


def test_the_dense_fit_is_the_gate_times_the_direction() -> None:
    """The peer's `d x d` solution is rank one: our gate's vector times the direction, for the same projector."""
    generator = torch.Generator().manual_seed(0)
    forget, retain = (torch.randn(n, 24, generator=generator, dtype=torch.float64) for n in (10, 200))
    direction = torch.randn(24, generator=generator, dtype=torch.float64)
    # the ridge is in units of the mean of 24 diagonal entries there, of 10 rows here
    dense = fitting.dense_fit(forget, retain, direction, keep=0.5, gamma=2.4e-3)
    gate = hard_gate(forget, Moments.of(retain), keep=0.5, gamma=1e-3, centred=False)
    assert torch.allclose(dense, torch.outer(direction, gate.weight[0]), rtol=1e-8, atol=1e-10)


def test_gates_in_turn_are_those_of_the_study(tiny: Any) -> None:
    """The same gates as the study's sequential fit, from the same prompts; only the first is also that of a parallel
    one."""
    few, rows = 4, fitting.BATCH
    batches = fitting.in_batches(cost.prompts(tiny, rows, 8))
    sites = every_layer(tiny)
    vectors = torch.randn(len(sites), find_decoder(tiny).hidden_size, generator=torch.Generator().manual_seed(1))

    def encode(prompts: list[Prompt]) -> dict[str, Tensor]:
        return {key: value[[int(prompt.text) for prompt in prompts]] for key, value in batches[0].items()}

    study: Any = SimpleNamespace(vanilla=SimpleNamespace(model=tiny, encode=encode))
    asked: list[Any] = [SimpleNamespace(prompt=Prompt(f"{row:02}")) for row in range(rows)]
    sets = {"forget": asked[:few], "retain": asked[few:]}
    with torch.no_grad():
        wanted = ablate_push.sequential(study, sets, Direction(sites, vectors), 1.0)
        found = fitting.sequential(tiny, batches, few, vectors[:-1])
        apart = fitting.parallel(fitting.read(tiny, batches, sites[:-1]), few)
    assert found.sites == wanted.sites == tuple(apart) == tuple(sites[1:])
    for site in found.sites:
        assert torch.equal(found.gates[site].weight, wanted.gates[site].weight), site
        assert torch.equal(found.directions[site], wanted.directions[site]), site
        assert torch.equal(found.gates[site].weight, apart[site].weight) == (site == HookSite(1)), site


def test_the_attack_that_is_timed_minimises_what_that_of_the_study_does(tiny: Any, name: str) -> None:
    about = pictures.shown(tiny, name, 2, 40)
    # the study's last label is the end of the turn, which it leaves out
    labels = about.inputs["labels"].clone()
    labels[:, -1] = -100
    loaded: Any = SimpleNamespace(
        model=tiny,
        pixel_inputs=about.ready,
        encode=lambda *_: {**about.inputs, "labels": about.inputs["labels"].clone()},
    )
    wanted = directions._answer_loss(loaded, [], [])
    found = pictures.answer_loss(tiny, {**about.inputs, "labels": labels}, about.ready)
    pixels = about.pixels.clone().requires_grad_()
    losses = found(pixels)
    assert losses.shape == (2,) and torch.equal(losses, wanted(about.pixels))
    (gradient,) = torch.autograd.grad(losses.sum(), pixels)
    assert gradient.abs().amax(dim=(1, 2, 3)).gt(0).all(), "every picture counts"


def test_the_attack_goes_through_the_model_once_a_step_and_leaves_it_as_it_was(tiny: Any, name: str) -> None:
    about = pictures.shown(tiny, name, 3, 40)
    seen: list[tuple[int, bool]] = []
    handle = tiny.register_forward_hook(lambda _, __, out: seen.append((len(out.logits), out.logits.requires_grad)))
    with handle, torch.no_grad():
        pictures.attack(tiny, about, steps=2, at_once=2)
    assert seen == [(2, True), (2, True), (2, False), (1, True), (1, True), (1, False)], (
        "the last one looks at the result"
    )
    assert all(parameter.requires_grad and parameter.grad is None for parameter in tiny.parameters())


def test_a_fit_is_timed_at_one_block_and_at_all(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, width = len(find_decoder(tiny).layers), find_decoder(tiny).hidden_size
    read: list[int] = []
    solved: list[int] = []
    ridge = fitting.ridge_gate

    def watched(forget: Tensor, about: Moments) -> Any:
        solved.append(forget.shape[1])
        return ridge(forget, about)

    def least(call: Any, *_: object) -> float:
        call()
        return 2.0

    monkeypatch.setattr(fitting, "run_capture", lambda model, inputs, sites: read.append(len(sites)))
    monkeypatch.setattr(fitting, "ridge_gate", watched)
    monkeypatch.setattr(fitting, "_least", least)
    monkeypatch.setattr(fitting.timing, "seconds", least)

    def several() -> dict[str, float]:
        rows = list(fitting.fit(tiny, lambda count: cost.prompts(tiny, count, 8), rows=100))
        one = {row["method"] for row in rows if row["layers"] == 1}
        assert one == {"forward passes", *fitting.solvers(torch.ones(2))}
        return {row["method"]: row["ratio"] for row in rows if row["layers"] == blocks}

    each, together = "eraser (a gate for each block)", "eraser (a gate on all of them)"
    assert several() == {"forward passes": 1, each: 2, together: 2}
    assert set(read) == {1, blocks} and len(read) == 2 * (1 + 3 * 4), "110 prompts are four batches, and one warms up"
    assert solved == [width, *blocks * [width], blocks * width]
    monkeypatch.setattr(fitting, "WIDEST", blocks * width - 1)
    assert several() == {"forward passes": 1, each: 2}


def test_fits_in_turn_and_attacks_are_compared_with_the_passes_of_a_parallel_fit(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, asked = iter((2.0, 0.5, 6.0, 4.0)), []

    def least(call: Any, *_: Any) -> float:
        asked.append(call())
        return next(seconds)

    monkeypatch.setattr(fitting, "_least", least)
    depth = len(find_decoder(tiny).layers)
    with torch.no_grad():
        rows = list(fitting.published(
            tiny, lambda count: cost.prompts(tiny, count, 8), lambda: "PGD", rows=40, attacked="3 pictures"
        ))  # fmt: skip
    assert [(row["method"], row["value"], row["ratio"]) for row in rows] == [
        ("forward passes", 2.0, 1.0), ("eraser (published form)", 0.5, 1.25),
        ("eraser (sequential)", 6.0, 3.0), ("PGD", 4.0, 3.0),
    ]  # fmt: skip
    assert {(row["phase"], row["layers"], row["batch"], row["reference"]) for row in rows} == {
        ("fit", depth - 1, fitting.BATCH, "forward passes")
    }
    assert [row["shape"] for row in rows] == [
        *["4 forget, 40 retain prompts"] * 3,
        "4 forget, 40 retain prompts, 3 pictures",
    ]
    assert len(asked[1]) == len(asked[2].gates) == depth - 1 and asked[3] == "PGD"


def test_a_solver_that_does_not_converge_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(forget: Tensor, retain: Tensor) -> None:
        if len(retain) > 4:
            raise torch.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(fitting, "HIDDEN", (3, 5))
    monkeypatch.setattr(fitting, "COUNTS", ((2, 4), (2, 8)))
    monkeypatch.setattr(fitting, "solvers", lambda _: {"dense": fails, "eraser": lambda forget, retain: None})
    rows = fitting.growth("cpu")
    assert [row["shape"] for row in rows if row["method"] == "dense"] == [
        f"hidden size {size}, 2 forget, 4 retain prompts" for size in (3, 5)
    ]
    assert len([row for row in rows if row["method"] == "eraser"]) == 4
    assert rows[0]["ratio"] == 1
    assert "dense at hidden size 5, 2 and 8 prompts: no convergence" in capsys.readouterr().out


def test_two_blocks_have_no_gates_in_turn() -> None:
    cut = shapes.open_model("llava-hf/llava-1.5-7b-hf", device="meta", blocks=2)
    assert not list(cost.published(cut, "llava-hf/llava-1.5-7b-hf", width=8, rows=10))


@pytest.mark.parametrize(
    ("real", "size", "width", "tokens"),
    [("llava-hf/llava-1.5-7b-hf", 336, 600, 576), ("Qwen/Qwen2.5-VL-7B-Instruct", 448, 600, 256),
     ("llava-hf/llava-1.5-13b-hf", 336, 48, 576)],
)  # fmt: skip
def test_pictures_of_a_real_shape_have_its_size_and_tokens(real: str, size: int, width: int, tokens: int) -> None:
    cut = shapes.open_model(real, device="meta", blocks=1)
    about = pictures.shown(SimpleNamespace(config=cut.config, device=torch.device("cpu")), real, 2, width)
    assert about.pixels.shape == (2, 3, size, size)
    assert about.inputs["input_ids"].shape == (2, max(width, tokens + pictures.TEXT))
    assert about.inputs["input_ids"].eq(cut.config.image_token_id).sum(1).tolist() == [tokens] * 2
    ready = about.ready(about.pixels)
    if "image_grid_thw" in ready:
        assert ready["image_grid_thw"].prod(1).tolist() == [4 * tokens] * 2, "four patches are one token"


def test_the_table_replaces_what_was_measured_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(cost, "TABLE", tmp_path / "cost.csv")
    monkeypatch.setattr(cost, "MANIFEST", tmp_path / "cost.json")
    write_json(tmp_path / "cost.json", {"gpu": {"a": {"device": "cuda"}}})

    def row(machine: str, model: str, value: float) -> dict[str, object]:
        times = {"unsteered": np.array([1.0, 1.1]), "eraser": np.array([value, value])}
        shared = {"layers": 1, "batch": 1, "phase": "prefill", "unit": "s", "shape": "8 tokens"}
        return {"machine": machine, "model": model, **cost.compare(times, shared)[1]}

    cost.write([row("cpu", "a", 2.0), row("cpu", "b", 3.0)], "cpu")
    cost.write([row("cpu", "a", 4.0)], "cpu")
    table = pd.read_csv(tmp_path / "cost.csv")
    assert list(table.columns) == cost.COLUMNS
    assert table.set_index("model")["value"].to_dict() == {"a": 4.0, "b": 3.0}
    manifest = pd.read_json(tmp_path / "cost.json", orient="index")
    assert set(manifest.index) == {"gpu", "cpu"}


def test_gates_are_compared_with_dense_forms_within_a_round() -> None:
    times = {
        "unsteered": np.array([1.0, 2.0, 4.0]), "eraser (published form)": np.array([1.5, 3.0, 6.0]),
        "dense, every token": np.array([3.0, 6.0, 12.0]), "unsteered (again)": np.array([1.1, 2.2, 4.4]),
    }  # fmt: skip
    rows = cost.compare(times, {"layers": 1, "batch": 1, "phase": "prefill", "unit": "s", "shape": "8 tokens"})
    against = {(row["method"], row["reference"]): row["ratio"] for row in rows}
    assert against["eraser (published form)", "dense, every token"] == pytest.approx(0.5)
    assert {other for name, other in against if name != "eraser (published form)"} == {"unsteered"}
    assert not [other for _, other in against if other == "dense, last token"], "it was not timed"


def test_a_part_replaces_its_own_settings_only(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(cost, "TABLE", tmp_path / "cost.csv")
    monkeypatch.setattr(cost, "MANIFEST", tmp_path / "cost.json")

    def row(layers: int, value: float) -> dict[str, object]:
        times = {"unsteered": np.array([1.0, 1.1]), "eraser": np.array([value, value])}
        shared = {"layers": layers, "batch": 1, "phase": "prefill", "unit": "s", "shape": "8 tokens"}
        return {"machine": "cpu", "model": "a", **cost.compare(times, shared)[1]}

    cost.write([row(1, 2.0), row(8, 3.0)], "cpu", {"rounds": 9})
    cost.write([row(8, 4.0)], "cpu", {"rounds": 5, "layers": ()}, part=True)
    cost.write([row(8, 5.0), row(32, 6.0)], "cpu", {"rounds": 5, "layers": ()}, part=True)
    table = pd.read_csv(tmp_path / "cost.csv")
    assert table.set_index("layers")["value"].to_dict() == {1: 2.0, 8: 5.0, 32: 6.0}
    entry = read_json(tmp_path / "cost.json")["cpu"]["a"]
    assert sorted((one["layers"], round(one["ratio_high"], 3)) for one in entry["intervals"]) == [
        (1, 2.0), (8, 5.0), (32, 6.0)
    ]  # fmt: skip
    assert entry["settings"] == {"rounds": 5, "layers": []}
    assert [one["settings"] for one in entry["earlier"]] == [{"rounds": 9}], "a measurement that writes twice is one"
    assert [one["layers"] for one in entry["measured"]] == [8, 32]
    assert [one["layers"] for one in entry["earlier"][0]["measured"]] == [1]
    cost.write([row(1, 7.0)], "cpu", {"rounds": 3}, part=True)
    entry = read_json(tmp_path / "cost.json")["cpu"]["a"]
    assert [one["settings"]["rounds"] for one in entry["earlier"]] == [5], "of the first run nothing is left"


def test_every_row_of_the_committed_table_leads_to_one_commit() -> None:
    table, manifest = pd.read_csv(cost.TABLE), read_json(cost.MANIFEST)
    for (machine, model), own in table.groupby(["machine", "model"]):
        entry = manifest[machine][model]
        told: list[tuple[Any, ...]] = []
        for run in (*entry.get("earlier", []), entry):
            assert len(run["git_commit"]) == 40 and run["measured"]
            told += [tuple(setting[key] for key in cost.SETTING) for setting in run["measured"]]
        assert len(told) == len(set(told)), (machine, model)
        assert set(told) == set(own[cost.SETTING].itertuples(index=False, name=None)), (machine, model)


def test_a_profile_says_what_steering_adds(tiny: Any, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(profile, "TABLE", tmp_path / "profile.csv")
    monkeypatch.setattr(profile, "FEWEST", 0.0)
    with torch.no_grad():
        inputs = cost.placed(tiny, cost.prompts(tiny, 2, 12))
        both = profile.operations(tiny, inputs, cost.PASSES, layers=(1,), repeats=1)
    assert {row["method"] for row in both} >= {"eraser (constant)", "eraser (opened)", "dense, every token"}
    steps = {row["method"]: row for row in both if row["phase"] == "decode" and row["operation"] == "all"}
    assert steps["eraser (opened)"]["more_calls"] == 0 == steps["eraser"]["more_calls"], "hooks rest while decoding"
    assert steps["bare hook"]["more_calls"] > 0
    rows = [row for row in both if row["phase"] == "prefill"]
    calls = {(row["method"], row["operation"]): row for row in rows}
    assert calls["unsteered", "aten::mm"]["more_calls"] == 0 or calls["unsteered", "aten::addmm"]["more_calls"] == 0
    total = calls["unsteered", "all"]
    assert total["seconds"] == pytest.approx(
        sum(row["seconds"] for row in rows if row["method"] == "unsteered" and row["operation"] != "all")
    )
    opened = calls["eraser (opened)", "all"]
    assert 1.5 * total["calls"] < opened["calls"] < 2.6 * total["calls"], "the batch runs again"
    assert 0 < calls["bare hook", "all"]["more_calls"] < 0.2 * total["calls"]
    profile.write([{"machine": "cpu", "model": "a", **row} for row in rows])
    profile.write([{"machine": "cpu", "model": "b", **row} for row in rows])
    profile.write([{"machine": "cpu", "model": "b", **row, "batch": 1} for row in rows])
    profile.write([{"machine": "cpu", "model": "b", **row, "batch": 1} for row in rows])
    table = pd.read_csv(tmp_path / "profile.csv")
    assert table.groupby(["model", "batch"]).size().to_dict() == dict.fromkeys(
        (("a", 2), ("b", 1), ("b", 2)), len(rows)
    )
    assert set(table["commit"].str.len()) == {40}


def test_traffic_counts_batches_that_are_repeated() -> None:
    times = {"unsteered": np.ones(4), "eraser": np.ones(4), "eraser (opened)": np.full(4, 2.0)}
    rows = cost.traffic(times, {"batch": 2, "width": 8, "layers": 1, "phase": "prefill", "unit": "s"})
    assert [round(row["ratio"], 4) for row in rows] == [1.0, 1.0199, 1.0975, 1.75]


def test_attached_vectors_count_in_memory_and_matrices_count_more(tiny: Any) -> None:
    with torch.no_grad():
        rows = {row["method"]: row["value"] for row in cost.memory(tiny, batch=1, width=8)}
    size = find_decoder(tiny).hidden_size
    assert rows["dense, every token"] - rows["unsteered"] >= 4 * size * size
    assert rows["eraser"] < rows["dense, every token"]


def test_hours_scale_with_prefills_people_and_shares() -> None:
    row = {"model": "tiny-llava", "method": "unsteered", "phase": "prefill", "batch": 32, "machine": "X, 2 threads"}
    large = {**row, "machine": hours.GPU, "shape": "600 tokens", "value": 0.96}
    prefills = [{**row, "value": 0.16}, *({**large, "model": name} for name in hours.LARGE.values())]
    # a step is a twentieth of a prefill on the processor, and a sixtieth on the GPU
    steps = [
        {**one, "phase": "decode", "value": one["value"] / (60 if one["machine"] == hours.GPU else 20)}
        for one in prefills
    ]
    costs = pd.DataFrame([*prefills, *steps])
    assert hours.unit_seconds(costs, "llava", "X") == pytest.approx(0.01), "two threads for 32 prompts"
    assert hours.large_unit_seconds(costs, "llava") == pytest.approx(0.96 / 32 / 600 * 666)
    jobs = matrix.jobs(preset.load("paper"))
    slower = {**row, "model": "tiny-llava", "machine": "Y, 1 thread", "value": 0.64}
    costs = pd.concat([costs, pd.DataFrame([slower, {**slower, "phase": "decode", "value": 0.032}])])
    timed = {"llava-5-08_npo": hours.Timed(36.0, "X"), "llava-all-08_tune_npo": hours.Timed(36.0, "X")}
    timed["llava-5-06_erase"] = hours.Timed(72.0, "Y")  # as many prefills as 36 s are worth on X
    one = 3600 * hours.PEOPLE * hours.large_unit_seconds(costs, "llava") / 3600
    found = {name: hours.job_hours(job, timed, costs) for name, job in jobs.items() if job.model == "llava"}
    assert found["llava-all-08_tune_npo"] == pytest.approx(one)
    assert found["llava-15-06_erase"] == pytest.approx(one), "as many questions at every share"
    assert found["llava-15-08_npo"] == pytest.approx(3 * one), "three times the steps"
    assert found["llava-5-08_rmu"] is None, "not timed, not guessed"
    steps = {name: hours.job_hours(job, timed, costs, "decode") for name, job in jobs.items() if job.model == "llava"}
    assert steps["llava-all-08_tune_npo"] == pytest.approx(one / 3 / 666 * 600), "no token of a step is charged twice"
    more = pd.DataFrame(
        [{**row, "model": "tiny-qwen", "value": 0.16, "phase": phase} for phase in ("prefill", "decode")]
    )
    whole = hours.table(timed, pd.concat([costs, more]), {"llava": 4.0, "qwen": 8.0}).set_index("row")
    assert whole.loc["08_npo", "llava_to"] == pytest.approx(6 * one, abs=0.06)
    assert whole.loc["08_npo", "llava_from"] == pytest.approx(2 * one / 666 * 600, abs=0.06)
    assert whole.loc["08_npo", "method"] == "NPO" and "MLLMEraser (as published)" in whole.loc["06_erase", "method"]
    assert np.isnan(whole.loc["08_rmu", "llava_to"])
    # 7000 questions, five times, at four prefills; then without 5 (three times), 10 and 15 % of the people
    once = 7000 * 5 * 4 * 0.96 / 32 / 600 * 666 / 3600
    assert whole.loc["fine_tuning (vanilla)", "llava_to"] == pytest.approx(once, abs=0.06)
    assert whole.loc["fine_tuning (vanilla)", "llava_from"] == pytest.approx(3 / 4 * once, abs=0.06)
    assert whole.loc["fine_tuning (retain-only)", "llava_to"] == pytest.approx(once * (3 * 0.95 + 0.9 + 0.85), abs=0.06)
    assert whole.loc["fine_tuning (vanilla)", "qwen_to"] == pytest.approx(2 * once * 597 / 666, abs=0.06)
    told, everything = whole.loc["all that was timed", "llava_to"], whole.loc["all", "llava_to"]
    assert told == pytest.approx(8 * one, abs=0.6), "a search, six times a training's steps, one erasing"
    assert everything == pytest.approx(told + 5.6 * once, abs=1.1)
    with pytest.raises(ValueError, match="no prefill of tiny-qwen on X"):
        hours.unit_seconds(costs, "qwen", "X")


def test_a_trained_row_is_worth_what_its_training_took(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"model": "tiny-llava", "method": "unsteered", "phase": "prefill", "batch": 32, "machine": "X, 2 threads"}
    costs = pd.DataFrame([{**row, "value": 0.16}])
    monkeypatch.setenv("ERASER_ROOT", str(tmp_path))
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "tiny.yml").write_text((HERE / "presets" / "tiny.yml").read_text())
    runs = [{"seconds": 32.0, "steps": 20}, {"seconds": 64.0, "steps": 40}]
    write_json(tmp_path / "results/tiny/figures/llava/cost_idk-5.json", {"rows": runs})
    # 1.6 s a step of 16 forget and 16 retain rows, at .01 s a prefill
    assert hours.trained_row_prefills(costs, "llava", "X") == pytest.approx(1.6 / 32 / 0.01)


def test_no_job_of_the_paper_is_expected_to_take_less_than_its_estimate() -> None:
    """A batch system ends a job that outlives the time that was asked for."""
    costs = pd.read_csv(paths.root() / "results" / "cost.csv")
    timed = hours.timed_jobs()
    rows = hours.trained_rows(timed, costs)
    found = {name: hours.job_hours(job, timed, costs) for name, job in matrix.jobs(preset.load("paper")).items()}
    told = {name: value for name, value in found.items() if value is not None}
    assert len(told) > 40
    expected = {name: job.minutes for name, job in matrix.jobs(preset.load("paper")).items()}
    assert {name: value for name, value in told.items() if 60 * value > expected[name]} == {}
    for one in checkpoints.fine_tunings(preset.load("paper")).values():
        value = hours.fine_tuning_hours(one, rows[one.model], costs)
        assert 0.1 < value < preset.load("paper").fine_tuning["minutes"] / 60


def test_the_committed_hours_are_those_of_the_committed_costs() -> None:
    """To a third or half an hour: rerun jobs take other seconds each time."""
    costs = pd.read_csv(paths.root() / "results" / "cost.csv")
    timed = hours.timed_jobs()
    now = hours.table(timed, costs, hours.trained_rows(timed, costs)).set_index("row")
    told = pd.read_csv(hours.TABLE).set_index("row")
    assert list(told.index) == list(now.index) and list(told.columns) == list(now.columns)
    assert told.pop("method").fillna("").equals(now.pop("method"))
    assert told.isna().equals(now.isna())
    assert ((told - now).abs() <= np.maximum(now / 3, 0.5)).where(now.notna(), True).all(axis=None)
    assert ((told - now).abs() <= now / 20).loc["all"].all()


def test_a_real_shape_can_be_cut_to_a_few_whole_blocks() -> None:
    whole, cut = (shapes.open_model("Qwen/Qwen2.5-VL-7B-Instruct", device="meta", blocks=blocks) for blocks in (0, 2))
    assert len(find_decoder(whole).layers) == 28 and len(find_decoder(cut).layers) == 2
    for (name, one), (other, two) in zip(
        find_decoder(whole).layers[1].named_parameters(), find_decoder(cut).layers[1].named_parameters(), strict=True
    ):
        assert (name, one.shape) == (other, two.shape)
    with pytest.raises(ValueError, match="tiny-llava is small enough"):
        shapes.open_model("tiny-llava", device="cpu", blocks=2)
