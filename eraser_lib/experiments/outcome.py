"""What the study must show: the success criteria, the frontier, re-entry and cost, each read from logs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from eraser_lib import Eraser
from eraser_lib.bench.records import Prompt
from eraser_lib.evaluate.stats import bootstrap_mean
from eraser_lib.evaluate.summary import paired_losses
from eraser_lib.experiments.methods import artifact_bytes
from eraser_lib.families import Loaded

ERASED = ("forget", "test")
KEPT = ("retain", "celebrity")


def criteria(logs: pd.DataFrame, *, method: str = "mllmeraser") -> pd.DataFrame:
    """The success criteria on one split and model, one row each: what, value, bound, met.

    `logs`: rows of `method`, `vanilla` and `retain_only`. A criterion whose reference is missing has no verdict.
    Source: the study's protocol, section 5.
    """
    own = logs[logs["method"] == method]
    opened = own[own["subset"].isin(ERASED) & own["opened"].astype("boolean").fillna(False)]
    test = own[own["subset"] == "test"]
    share = bootstrap_mean(test["opened"].astype(float), test["person"].tolist())
    rows = [
        _row("forgotten test prompts opened", share.value, 0.90, share.value >= 0.90, low=share.low, high=share.high)
    ]
    # of an open answer whose fact nobody wrote down it is not known whether it holds the fact
    opened = opened[opened["fact"].notna() | (opened["task"] != "generation")]
    silent = opened["refusal"].astype(bool) & opened["fluent"].astype(bool) & opened["fact_word"].isna()
    rows.append(
        _row("opened prompts that end in a fluent refusal without the fact", silent.mean(), 0.95, silent.mean() >= 0.95)
    )
    return pd.DataFrame([*rows, *left_behind(logs, method), *lost_elsewhere(logs, method)])


def left_behind(logs: pd.DataFrame, method: str) -> list[dict[str, Any]]:
    """The criteria on what is left of the forgotten people's facts, against retain-only, which never knew them."""
    own, reference = logs[logs["method"] == method], logs[logs["method"] == "retain_only"]
    rows = []
    for subset in ERASED:
        for column, name in (("fact_recall", "exact-fact recall"), ("answer_prob", "answer probability")):
            mine = own[own["subset"] == subset][column].dropna().astype(float).mean()
            bound = _upper_bound(reference[reference["subset"] == subset], column)
            met = None if bound is None else bool(mine <= bound)
            rows.append(_row(f"{name}, {subset}, against retain-only's upper bound", mine, bound, met))
    return rows


def lost_elsewhere(logs: pd.DataFrame, method: str) -> list[dict[str, Any]]:
    """The criteria on right answers lost about people who stay; of several seeds that counts which loses most."""
    rows = []
    losses = paired_losses(logs[logs["method"].isin([method, "vanilla"]) & logs["subset"].isin(KEPT)])
    for subset in KEPT:
        own = losses[(losses["subset"] == subset) & (losses["metric"] == "loss")]
        if own.empty:
            continue
        loss = own.sort_values("value").iloc[-1]
        met = bool(loss["value"] <= 0.01 and loss["ci_high"] <= 0.02)
        rows.append(_row(f"paired loss, {subset}", loss["value"], 0.01, met, low=loss["ci_low"], high=loss["ci_high"]))
    return rows


def _row(what: str, value: float, bound: float | None, met: bool | None, **interval: float) -> dict[str, Any]:
    verdict = "no reference" if met is None else "yes" if met else "no"
    return {"criterion": what, "value": value, "ci_low": interval.get("low"), "ci_high": interval.get("high"),
            "bound": bound, "met": verdict}  # fmt: skip


def _upper_bound(rows: pd.DataFrame, column: str) -> float | None:
    """Upper end of the interval of retain-only, the largest over its seeds."""
    if rows.empty:
        return None
    highs = []
    for _, seed in rows.groupby("seed"):
        values = seed.dropna(subset=[column])
        highs.append(bootstrap_mean(values[column].astype(float), values["person"].tolist()).high)
    return float(max(highs))


def reentry_positions(logs: pd.DataFrame) -> dict[str, list[float | None]]:
    """Method -> words before the fact in every answer to a forgotten person's generation question that has one."""
    rows = logs[logs["subset"].isin(ERASED) & (logs["task"] == "generation") & logs["fact"].notna()]
    return {
        str(method): [None if pd.isna(word) else float(word) for word in group["fact_word"]]
        for method, group in rows.groupby("method", sort=False)
    }


def cost_table(
    loaded: Loaded, erasers: Mapping[str, Eraser], prompts: Sequence[Prompt], *, repeats: int = 7
) -> pd.DataFrame:
    """Prefill time with each eraser attached, as a ratio to the unsteered model, measured alternately in one run.

    The ratio is the median over repeats of the same batch; `opened` is the share of its rows that the gate opened.
    """
    inputs = loaded.encode(list(prompts))
    device = torch.device(loaded.model.device)
    times: dict[str, list[float]] = {"unsteered": [], **{name: [] for name in erasers}}
    opened: dict[str, float] = {}

    def prefill() -> None:
        loaded.model(**inputs, use_cache=True, logits_to_keep=1)

    with torch.no_grad():
        for _ in range(repeats + 1):  # the first round warms up and is dropped
            times["unsteered"].append(_timed(prefill, device))
            for name, eraser in erasers.items():
                with eraser.attach(loaded.model) as handle:
                    times[name].append(_timed(prefill, device))
                    if handle.opened is not None:
                        opened[name] = float(handle.opened.double().mean())
    base = np.median(times["unsteered"][1:])
    return pd.DataFrame([
        {
            "method": name, "batch": len(prompts), "prefill_seconds": float(np.median(found[1:])),
            "ratio": float(np.median(found[1:]) / base), "opened": opened.get(name),
            "artifact_bytes": artifact_bytes(erasers[name]) if name in erasers else 0,
        }
        for name, found in times.items()
    ])  # fmt: skip


def _timed(call: Any, device: torch.device) -> float:
    """Seconds until a call's work is done: a GPU goes on after the call has returned."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began
