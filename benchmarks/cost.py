"""``python -m benchmarks.cost``: measure, and write ``results/cost.csv`` with the manifest ``results/cost.json``.

Two CPU cores:       python -m benchmarks.cost --model tiny-llava --model tiny-qwen
... and the width of 7B, two blocks of it:
                     python -m benchmarks.cost --model llava-hf/llava-1.5-7b-hf --model Qwen/Qwen2.5-VL-7B-Instruct \\
                         --blocks 2 --width 128 --batch 1 --steps 8 --rows 0
One GPU, 7B shapes:  python -m benchmarks.cost --device cuda --model llava-hf/llava-1.5-7b-hf \\
                         --model Qwen/Qwen2.5-VL-7B-Instruct
... in about a quarter of an hour (an estimate), every setting and library but no fits:
                     python -m benchmarks.cost --device cuda --model llava-hf/llava-1.5-7b-hf \\
                         --model Qwen/Qwen2.5-VL-7B-Instruct --part speed --rounds 10 --steps 8 --batch 32
                     ... and the same with --batch 1
Only what the published form costs to fit (gates in parallel and in turn, PGD):
                     python -m benchmarks.cost --model tiny-llava --model tiny-qwen --part published

Nothing else should run meanwhile. Rows of the same machine and model are replaced, others are kept; with ``--part``
only those of the phases, blocks and batches that were measured.
"""

from __future__ import annotations

import argparse
import functools
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import fitting, pictures, profile, rivals, shapes, timing
from benchmarks.memory import LiveBytes
from benchmarks.tables import replace_rows
from eraser_lib import find_decoder
from eraser_lib.experiments.methods import artifact_bytes
from eraser_lib.experiments.study import Sizes
from eraser_lib.study.manifest import device_name, provenance, version
from eraser_lib.study.paths import read_json, root, write_json

COLUMNS = [
    "machine", "model", "shape", "method", "layers", "batch", "phase", "value", "unit", "reference", "ratio",
]  # fmt: skip
SETTING = ["phase", "layers", "batch"]
"""What is measured together."""
PARTS = ("artifacts", "memory", "speed", "fit", "published", "growth", "profile")
TABLE, MANIFEST = root() / "results" / "cost.csv", root() / "results" / "cost.json"
TRAFFIC = (0, 1, 5, 50)
"""Shares of prompts about forgotten people, per cent, at which the mean cost is given."""
REQUESTS = (10, 20)
"""People to forget, each with a gate and a direction of their own, whose storage is told beside that of one."""
SIZES = Sizes()
"""Pictures and steps of PGD are those of the study."""


def prompts(model: Any, batch: int, width: int) -> dict[str, Any]:
    """Random text prompts, all of the same length: what pads or looks at pictures stays outside the ratio."""
    ids = torch.randint(20, 200, (batch, width), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids).to(model.device)}


def placed(model: Any, inputs: dict[str, Any], *, first: int = 0) -> dict[str, Any]:
    """Inputs with the positions of their tokens, the first of which is `first`, as `generate` passes them: repeng knows
    padding by them. Qwen2.5-VL counts in four ways, which agree on text."""
    batch, count = inputs["input_ids"].shape
    positions = torch.arange(first, first + count, device=model.device).expand(batch, -1)
    ways = 4 if model.config.model_type == "qwen2_5_vl" else 0
    return {**inputs, "position_ids": positions.expand(ways, -1, -1) if ways else positions}


def prefill(call: Any, inputs: dict[str, Any]) -> Any:
    """One forward pass over the prompts, with a cache, as `generate` begins. `call`: the model, or a way through it."""
    return call(**inputs, use_cache=True, logits_to_keep=1)


def caller(model: Any, opened: Any) -> Any:
    """What is to be called while a rival is `opened`: the model itself, or the library that it goes through."""
    return opened.call if isinstance(opened, rivals.Through) else model


def timed(
    model: Any, inputs: dict[str, Any], attach: Callable[[], AbstractContextManager[Any]], *, steps: int
) -> tuple[float, float]:
    """Seconds of one prefill, and of one decoding step after it, the mean over `steps`; attaching is not counted.

    No decoding (NaN) where a library is called in the place of the model.
    """
    with attach() as opened:
        call = caller(model, opened)
        out: Any = None

        def begin() -> None:
            nonlocal out
            out = prefill(call, inputs)

        first = timing.seconds(begin, model.device)
        if call is not model:
            return first, float("nan")
        go_on = decoding(model, inputs, out, steps)
        return first, timing.seconds(go_on, model.device) / steps


def decoding(model: Any, inputs: dict[str, Any], out: Any, steps: int) -> Callable[[], None]:
    """Steps of one token after the prefill that gave `out`; what does not depend on the model is made before."""
    token = out.logits[:, -1].argmax(dim=-1, keepdim=True)
    width, ones = inputs["input_ids"].shape[1], inputs["attention_mask"]
    ahead = []
    for number in range(steps):
        ones = torch.cat([ones, torch.ones_like(token)], dim=1)
        ahead.append(placed(model, {"input_ids": token, "attention_mask": ones}, first=width + number))

    def go_on() -> None:
        for step in ahead:
            model(**step, past_key_values=out.past_key_values, use_cache=True)

    return go_on


PASSES: dict[str, profile.Make] = {
    "prefill": lambda model, inputs: functools.partial(prefill, model, inputs),
    "decode": lambda model, inputs: decoding(model, inputs, prefill(model, inputs), steps=1),
}
"""What a profile looks into."""


def alike(model: Any, found: dict[str, rivals.Attach], inputs: dict[str, Any]) -> dict[str, rivals.Attach]:
    """Leave out whoever does not compute what the bare hook does, and say so.

    Two methods agree where they differ by no more than a tenth of what the vectors change.
    """

    def logits(name: str) -> torch.Tensor:
        with found[name]() as opened:
            return prefill(caller(model, opened), inputs).logits.float()

    wanted = logits("bare hook")
    effect = (wanted - logits("unsteered")).abs().mean()
    kept = dict(found)
    for name in set(rivals.ALIKE) & set(found):
        try:
            error = (logits(name) - wanted).abs().mean()
        except Exception as problem:  # a library that cannot run this model is a finding, not a crash
            print(f"  left out: {name}, which fails: {type(problem).__name__}: {problem}", flush=True)
            del kept[name]
            continue
        if error > 0.1 * effect:
            print(f"  left out: {name}, which computes something else ({error:.1e} of {effect:.1e})", flush=True)
            del kept[name]
    return kept


def speed(
    model: Any,
    *,
    batches: Sequence[int],
    layers: Sequence[int],
    width: int,
    count: int,
    steps: int,
    done: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Prefill and decoding of every method; `done` gets the rows of each setting at once.

    `layers` are numbers of steered blocks, no more than there are; empty means one, all, and eight.
    """
    depth = len(find_decoder(model).layers)
    wanted = layers or (1, depth, min(8, depth))  # the ends first, should the time run out
    for batch in batches:
        inputs = placed(model, prompts(model, batch, width))
        for blocks in dict.fromkeys(min(blocks, depth) for blocks in wanted):
            methods = alike(model, rivals.rivals(model, blocks), inputs)
            calls = {
                name: functools.partial(timed, model, inputs, attach, steps=steps) for name, attach in methods.items()
            }
            few = batch > 1
            times = timing.rounds(calls, max(5, count // 2) if few else count, warm=1 if few else 2)
            rows = []
            for column, phase in enumerate(("prefill", "decode")):
                own = {name: found[:, column] for name, found in times.items() if not np.isnan(found[:, column]).any()}
                shared = {"layers": blocks, "batch": batch, "phase": phase, "unit": "s"}
                rows += compare(own, {**shared, "shape": f"{width} tokens"})
                if phase == "prefill":
                    rows += traffic(own, {**shared, "width": width})
            done(rows)
            print(f"  {blocks} blocks, batch {batch}: {len(methods)} methods", flush=True)


def compare(times: dict[str, np.ndarray], shared: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per method against the unsteered model, our constant form against each library, and our gates against
    the dense forms."""
    pairs = [(name, "unsteered") for name in times]
    pairs += [("eraser (constant)", name) for name in rivals.ALIKE[1:] if name in times]
    pairs += [(name, dense) for dense in rivals.DENSE for name in rivals.GATED if {name, dense} <= times.keys()]
    return [
        {**shared, "method": name, "value": float(np.median(times[name])), "reference": other,
         **_ratio(timing.ratio(times[name], times[other]))}
        for name, other in pairs
    ]  # fmt: skip


def traffic(times: dict[str, np.ndarray], shared: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean cost of the two-pass form where a share of the prompts opens: one opened row repeats its whole batch."""
    batch, width = shared["batch"], shared["width"]
    rows = []
    for percent in TRAFFIC:
        repeated = 1 - (1 - percent / 100) ** batch
        mean = (1 - repeated) * times["eraser"] + repeated * times["eraser (opened)"]
        rows.append({
            **{key: value for key, value in shared.items() if key != "width"}, "method": "eraser",
            "shape": f"{width} tokens, {percent} % about forgotten people", "value": float(np.median(mean)),
            "reference": "unsteered", **_ratio(timing.ratio(mean, times["unsteered"])),
        })  # fmt: skip
    return rows


def memory(model: Any, *, batch: int, width: int) -> list[dict[str, Any]]:
    """Peak bytes of one prefill beside the weights, of every method at all blocks."""
    inputs = placed(model, prompts(model, batch, width))
    found = {}
    for name, attach in alike(model, rivals.rivals(model, len(find_decoder(model).layers)), inputs).items():
        gc.collect()
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            with attach() as opened:
                prefill(caller(model, opened), inputs)
            found[name] = torch.cuda.max_memory_allocated() - before
        else:
            with LiveBytes() as live, attach() as opened:
                prefill(caller(model, opened), inputs)
            found[name] = live.peak
    return [
        {"shape": f"{width} tokens", "method": name, "layers": len(find_decoder(model).layers), "batch": batch,
         "phase": "memory", "value": value, "unit": "bytes", "reference": "unsteered",
         "ratio": value / found["unsteered"]}
        for name, value in found.items()
    ]  # fmt: skip


def artifacts(model: Any) -> list[dict[str, Any]]:
    """Bytes that are stored, against one float32 matrix per steered block; of our gate also for many requests."""
    decoder = find_decoder(model)
    depth, size = len(decoder.layers), decoder.hidden_size
    rows = []
    for layers in sorted({1, min(8, depth), depth}):
        dense = 4 * size * size * layers
        stored = rivals.erasers(model, layers)
        stored |= {f"eraser ({count} requests)": rivals.requests(model, layers, count) for count in REQUESTS}
        for name, eraser in stored.items():
            value = artifact_bytes(eraser)
            rows.append({
                "shape": f"hidden size {size}", "method": name, "layers": layers, "batch": 0, "phase": "artifact",
                "value": value, "unit": "bytes", "reference": "dense", "ratio": value / dense,
            })  # fmt: skip
    return rows


def published(model: Any, name: str, *, width: int, rows: int) -> Iterator[dict[str, Any]]:
    """Rows of `fitting.published` for a model that `shapes.open_model` made of `name`, with PGD on random pictures."""
    about = pictures.shown(model, name, SIZES.pictures, width)
    # as in the study, or few enough for a GPU to keep what PGD needs of a pass through a 7B model
    at_once = 16 if name in shapes.TINY else 4
    yield from fitting.published(
        model, functools.partial(prompts, model, width=width),
        functools.partial(pictures.attack, model, about, steps=SIZES.pgd_steps, at_once=at_once),
        rows=rows, attacked=f"{SIZES.pictures} pictures, {SIZES.pgd_steps} steps",
    )  # fmt: skip


def _ratio(found: timing.Ratio) -> dict[str, float]:
    return {"ratio": found.value, "ratio_low": found.low, "ratio_high": found.high}


def machine(device: str) -> str:
    """The device in words, with the number of threads on a CPU."""
    name, threads = device_name(device), torch.get_num_threads()
    return name if device.startswith("cuda") else f"{name}, {threads} thread{'s' * (threads > 1)}"


def write(
    rows: list[dict[str, Any]], device: str, settings: dict[str, Any] | None = None, *, part: bool = False
) -> None:
    """Replace the rows of this machine and these models in the table, and the manifest of this machine.

    `settings`: arguments of the measurement, kept in the manifest. `part`: replace only rows of the phases, blocks and
    batches at hand; what the manifest said of the others stays, under `earlier`. Each entry says under `measured` which
    phases, blocks and batches of the table are its own, so that every row leads to the commit that measured it.
    """
    new = pd.DataFrame(rows)
    bounds = [column for column in ("ratio_low", "ratio_high") if column in new]
    keys = ["machine", "model", *(SETTING if part else [])]
    replace_rows(TABLE, new, keys=keys, columns=COLUMNS, digits=6)
    manifest = read_json(MANIFEST) if MANIFEST.exists() else {}
    peers = {name: version(name) for name in rivals.PEERS}
    for model, own in new.groupby("model"):
        about = manifest.setdefault(str(own["machine"].iloc[0]), {})
        before = about.get(str(model), {}) if part else {}
        intervals = (
            own.dropna(subset=bounds)[[*COLUMNS[2:7], "reference", *bounds]].to_dict("records") if bounds else []
        )
        again = own[SETTING].drop_duplicates().to_dict("records")
        kept = [row for row in before.get("intervals", []) if {key: row[key] for key in SETTING} not in again]
        entry = {
            **provenance(device), "threads": torch.get_num_threads(), "peers": peers, "settings": settings or {},
            "cuda": torch.version.cuda if device.startswith("cuda") else None, "intervals": [*kept, *intervals],
            "measured": again,
        }  # fmt: skip
        if before:
            said = {name: value for name, value in before.items() if name not in ("intervals", "earlier")}
            runs = [*before.get("earlier", []), said]
            for run in runs:
                run["measured"] = [setting for setting in run["measured"] if setting not in again]
            # one measurement writes several times, with all that it has so far: what it wrote before is gone by now
            entry["earlier"] = [run for run in runs if run["measured"]]
        about[str(model)] = entry
    write_json(MANIFEST, manifest)


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description="Measure what steering costs; see benchmarks/cost.py.")
    parser.add_argument("--model", action="append", choices=(*shapes.TINY, *shapes.REAL), required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=0, help="decoder blocks to keep of a real shape; 0 keeps all")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=31, help="rounds at batch 1; half as many at larger batches")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument(
        "--layers", type=int, nargs="+", default=(),
        help="numbers of steered blocks, more than there are mean all; default 1, all and 8",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=16, help="decoding steps that are timed together")
    parser.add_argument("--width", type=int, default=0, help="prompt tokens; default 48 (tiny) or 600")
    parser.add_argument("--rows", type=int, default=1000, help="retain prompts of the fit, 0: no fit")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="measure only these; default all")
    options = parser.parse_args(arguments)
    if min(options.layers, default=1) < 1:
        parser.error("--layers: at least one block")
    if absent := rivals.missing():
        print(
            f"Not installed, so not compared: {', '.join(absent)}. Rows of this machine and model are replaced without "
            "theirs; pip install --no-deps -r requirements-bench.txt brings them.",
            file=sys.stderr,
        )
    torch.set_num_threads(options.threads)
    settings = {key: value for key, value in vars(options).items() if key != "model"}
    parts, partly = set(options.part), len(options.part) < len(PARTS)
    for opened in options.model:
        print(opened, flush=True)
        model = shapes.open_model(opened, device=options.device, blocks=options.blocks)
        name = f"{opened}, {options.blocks} blocks" if options.blocks else opened
        about = {"machine": machine(options.device), "model": name}
        rows: list[dict[str, Any]] = []

        def keep(new: list[dict[str, Any]], rows: list[Any] = rows, about: dict[str, str] = about) -> None:
            rows += [{**about, **row} for row in new]
            write(rows, options.device, settings, part=partly)

        width = options.width or (48 if name in shapes.TINY else 600)
        if "artifacts" in parts:
            keep(artifacts(model))
        if "memory" in parts:
            keep(memory(model, batch=max(options.batch), width=width))
        if "profile" in parts:
            # on a CPU one pass differs from the next by more than what steering adds
            repeats = 1 if options.device.startswith("cuda") else options.rounds
            for batch in options.batch:
                profile.write([{**about, **row} for row in profile.operations(
                    model, placed(model, prompts(model, batch, width)), PASSES, layers=options.layers, repeats=repeats,
                )])  # fmt: skip
        if "speed" in parts:
            speed(
                model, batches=options.batch, layers=options.layers, width=width, count=options.rounds,
                steps=options.steps, done=keep,
            )  # fmt: skip
        if "fit" in parts and options.rows:
            for row in fitting.fit(model, functools.partial(prompts, model, width=width), rows=options.rows):
                keep([row])
        if "published" in parts and options.rows:
            for row in published(model, opened, width=width, rows=options.rows):
                keep([row])
        del model
        gc.collect()
    if "growth" in parts and options.rows:
        fixed = {"machine": machine(options.device), "model": "activations alone"}
        write([{**fixed, **row} for row in fitting.growth(options.device)], options.device, settings)
    print(f"{TABLE}: {len(pd.read_csv(TABLE))} rows")


if __name__ == "__main__":
    main()
