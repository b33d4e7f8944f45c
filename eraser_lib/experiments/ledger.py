"""What each method costs and how it is undone, from the notes and the files of a run: the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
from safetensors import safe_open

from eraser_lib.artifact import TENSORS
from eraser_lib.experiments import overheads, pace, searches
from eraser_lib.experiments.contest import LATER, STEERED, note, read
from eraser_lib.experiments.study import Study

OLD = "load the old weights"
ASKED = ("prompt", "prompt_oracle")
"""Nothing is fitted for them: the model is asked in another way."""
UNDO = {
    "prompt": "drop the instruction", "prompt_oracle": "drop the instruction",
    "detector": "remove the detector", "constant": "detach", "leace": "detach", "mllmeraser_published": "detach",
    "mllmeraser": "detach; one request: drop its vectors", "mllmeraser_quadratic": "detach",
}  # fmt: skip
"""How a method is undone; those that are not named changed the weights, and the old ones must be kept."""
CALIBRATED = ("mllmeraser", "mllmeraser_quadratic", "detector")
"""Those whose threshold is set by further prompts."""
READ = (*CALIBRATED, "mllmeraser_published", "leace")
"""Those that are fitted on what the model's blocks say; others read for themselves, or know no forget set."""
BATCH = 32
"""Prompts in a batch whose passes are timed for the ledger."""
WEIGHTS = "weights"
"""What is read again to undo a training, in `timing.undo_seconds`."""


def ledger(study: Study, undo: Callable[[Study], Mapping[str, float]] | None = None) -> pd.DataFrame:
    """What each method costs, from the notes and the files of the run; one row per method.

    Columns: `method`; `reading_seconds` (of the forward passes that read what a gate, LEACE or a detector is fitted on,
    and what sets its threshold; others pass within their fit); `fit_seconds` (of one fit on one core, the mean, with
    the least and the most as `_low` and `_high` where there are several); `search_seconds` (of choosing its settings on
    the dev people: of trainings their steps and looks, of others once more what `searches.PARTS` names);
    `trained_parameters`; `peak_memory_bytes` (of the process that fits it, with vanilla and the rows and activations
    that it needs, for trained methods with their copy and the optimiser; where a direction is added the larger of that
    and of making directions; for prompting of the model that answers); `stored_bytes` (what a deployment adds to the
    vanilla model: for a trained method its changed weights in half precision, for retain-only the whole model that
    stands in vanilla's place); `answer_ratio` of `overheads.passes`; `undo`, and `undo_seconds` of
    `timing.undo_seconds`: as 27_pace noted them, else measured now by `undo`. Missing where nothing was measured.

    All but bytes, parameters and what retraining took is of `pace`, `searches` and `overheads`, of one run at 5 %.
    Where 27_pace did not run: seconds and memory of the jobs that fitted, searched and trained, and reading at the time
    of a prompt in the batch of 32 that 06_erase measured. At larger shares likewise, but for trainings, whose steps are
    counted at the pace of 5 %: so there seconds of different machines may stand side by side.
    """
    rows = [
        _row(method, **{"peak_memory_bytes": _peak(study, method), "search_seconds": _searched(study, method), **costs})
        for method, costs in _costs(study)
    ]
    undone = note(study, pace.NOTE).get("undone") or (undo(study) if undo else {})
    for row in rows:
        row["reading_seconds"] = _reading(study, row["method"])
        row |= _paced(study, row["method"])
        row["undo_seconds"] = undone.get(WEIGHTS if row["undo"] == OLD else row["method"])
    return pd.DataFrame(rows).sort_values("stored_bytes", kind="stable", ignore_index=True)


def _paced(study: Study, method: str) -> dict[str, Any]:
    """What 27_pace found of a method: fit, search, memory and answers, as far as it did."""
    search, memory = searches.seconds(study, method), _watched(study, method)
    found = _spread(pace.fits(study, method)["seconds"]) | overheads.answering(study, method)
    found |= {} if search is None else {"search_seconds": search}
    return found | ({} if memory is None else {"peak_memory_bytes": memory})


def _watched(study: Study, method: str) -> int | None:
    """Largest memory of the process while a method is fitted, in bytes, as 27_pace saw it; see `ledger`."""
    noted = note(study, pace.NOTE)
    if not noted:  # trainings are timed at 5 % for all shares, but watched for that one alone
        return None
    seen = [*pace.fits(study, method)["peak_memory_bytes"], *pace.rounds(study, method).get("peak_memory_bytes", [])]
    if method in ASKED:
        seen.append(noted.get("answering_bytes"))
    if method in READ:
        seen.append(noted.get("reading", {}).get("peak_memory_bytes"))
    if method in (*STEERED, *LATER):
        seen.append(searches.direction_memory(study))
    known = [int(one) for one in seen if one is not None and not pd.isna(one)]
    return max(known, default=None)


def _spread(seconds: pd.Series) -> dict[str, float]:
    """Of fits: their mean, and the least and the most where there are several; nothing where there are none."""
    if seconds.empty:
        return {}
    mean = {"fit_seconds": float(seconds.mean())}
    ends = {"fit_seconds_low": float(seconds.min()), "fit_seconds_high": float(seconds.max())}
    return mean | ends if len(seconds) > 1 else mean


def _row(method: str, **costs: Any) -> dict[str, Any]:
    names = ("search_seconds", "reading_seconds", "fit_seconds", "fit_seconds_low", "fit_seconds_high",
             "trained_parameters", "peak_memory_bytes", "stored_bytes", "answer_ratio")  # fmt: skip
    empty = dict.fromkeys(names)
    return {"method": method, **empty, **costs, "undo": UNDO.get(method, OLD)}


def _searched(study: Study, method: str) -> float | None:
    """Seconds that choosing a method's settings takes; those of a training once, at 5 %. See `ledger`."""
    rounds, looks = pace.rounds(study, method), pace.looks(study, method)
    if not rounds.empty and not looks.empty:
        return float(pace.search(rounds, looks).mean())
    gate = [f"{study.model}-{study.split}-{job}" for job in ("03_direction", "04_gate", "06_select")]
    curved = [*gate, f"{study.model}-{study.split}-18_quadratic"]
    jobs = {"mllmeraser": gate, **dict.fromkeys(LATER, curved)}.get(method, [f"{study.model}-all-08_tune_{method}"])
    found = [read(study.out / "manifests" / f"{job}.json").get("seconds") for job in jobs]
    seconds = [float(one) for one in found if one is not None]
    return sum(seconds) if len(seconds) == len(jobs) else None  # a part of them is no price


def _peak(study: Study, method: str) -> int | None:
    """Largest memory of the job that fits a method, from its manifest."""
    closed = dict.fromkeys(("detector", "leace", "manu"), "09_closed")
    steered = dict.fromkeys(STEERED, "06_erase") | dict.fromkeys(LATER, "18_quadratic")
    asked = dict.fromkeys(ASKED, "06_baselines")
    job = f"{study.model}-{study.split}-{(closed | steered | asked).get(method, f'08_{method}')}"
    found: int | None = read(study.out / "manifests" / f"{job}.json").get("peak_memory_bytes")
    return found


def _retrained(study: Study) -> dict[str, Any] | None:
    """What the retain-only model cost, from its record: the stages after the base that it shares with vanilla.

    None where there is no such model, or somebody else trained it. Seconds only where a core took them.
    """
    folder = study.branch(f"retain_only_{study.split}")
    weights, record = folder / "model.safetensors", read(folder / "training.json")
    if not weights.exists() or "curve" not in record:
        return None
    stages = {line["stage"]: line for line in record["curve"] if "seconds_per_step" in line}
    own = [line for stage, line in stages.items() if stage.startswith(folder.name)]  # the last line of each
    seconds = sum((line["step"] + 1) * line["seconds_per_step"] for line in own)
    on_core = record.get("device", "cpu") == "cpu"
    with safe_open(weights, framework="pt") as tensors:
        trained = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    stored = weights.stat().st_size
    return {"fit_seconds": seconds if on_core else None, "stored_bytes": stored, "trained_parameters": trained}


def _reading(study: Study, method: str) -> float | None:
    """Of the passes that a method is fitted and calibrated on; without 27_pace, of its fit at the time of 06_erase."""
    if method not in READ:
        return None
    if timed := note(study, pace.NOTE).get("reading"):
        return float(timed["seconds"] + (timed["calibration_seconds"] if method in CALIBRATED else 0))
    cost = note(study, "cost")
    fitted = cost.get("gate_fit", {})
    plain = [row for row in cost.get("rows", ()) if (row["method"], row["batch"]) == ("unsteered", BATCH)]
    if not plain or "retain" not in fitted:
        return None
    return float((fitted["forget"] + fitted["retain"]) * plain[0]["prefill_seconds"] / BATCH)


def _costs(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    noted = {"mllmeraser": note(study, "cost").get("gate_fit", {}).get("seconds"), "constant": 0.0}
    if retrained := _retrained(study):
        yield "retain_only", retrained
    for method in ASKED:
        if study.log_path(method).exists():
            yield method, {"fit_seconds": 0.0, "stored_bytes": 0, "trained_parameters": 0}
    for method in STEERED:
        file = study.artifact(method) / TENSORS
        if file.exists():
            stored = file.stat().st_size
            yield method, {"fit_seconds": noted.get(method), "stored_bytes": stored, "trained_parameters": 0}
    for method in LATER:
        if costs := note(study, "quadratic_erased"):
            stored = (study.artifact(method) / TENSORS).stat().st_size
            yield method, {"fit_seconds": costs["seconds"], "stored_bytes": stored, "trained_parameters": 0}
    for path in sorted(study.figure("x").parent.glob(f"cost_*-{study.split}.json")):
        method = path.stem.removeprefix("cost_").removesuffix(f"-{study.split}")
        runs = pd.DataFrame(read(path)["rows"])
        trained = int(runs["trained_parameters"].iloc[0])
        rounds = pace.rounds(study, method)
        seconds = runs["seconds"] if rounds.empty else pace.training(rounds, int(runs["steps"].iloc[0]))
        yield method, {**_spread(seconds), "trained_parameters": trained, "stored_bytes": 2 * trained}
    closed = note(study, "closed").get("costs", {})
    for method, costs in closed.items():
        stored = costs.get("bytes")
        if method == "manu":  # which neurons are cut: one index each
            stored = 4 * costs["neurons"]
        # three methods share a process, and note their own parts of it
        own = {name: costs[name] for name in ("peak_memory_bytes", "search_seconds") if costs.get(name) is not None}
        yield method, {"fit_seconds": costs["seconds"], "stored_bytes": stored, "trained_parameters": 0, **own}
