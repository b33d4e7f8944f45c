"""All methods side by side: what each trades, and how its settings were searched; costs are in `ledger`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from eraser_lib.evaluate.stats import bootstrap_mean_over_seeds
from eraser_lib.evaluate.summary import compare
from eraser_lib.experiments.collapse import BABBLE
from eraser_lib.experiments.study import Study

STEERED = ("constant", "mllmeraser_published", "mllmeraser")
LATER = ("mllmeraser_quadratic",)
"""Made after the tests of the others were seen: compared in a notebook of its own, and no part of their family."""
GATED = ("detector", "mllmeraser_quadratic")
"""Those whose only dial is the threshold of what they recognise by."""
SAYINGS = {"refused": "refusal", "gibberish": "gibberish"}


def trade(logs: pd.DataFrame) -> pd.DataFrame:
    """Answer probability of each model and method on forgotten people's test prompts and on retained people's.

    Means over modalities, tasks and seeds, with intervals over people and seeds. Columns: `model, method`, and `gone`,
    `kept` with `_low` and `_high`; `refused` and `gibberish`, shares of the test prompts.
    """
    rows = []
    for (model, method), own in logs.groupby(["model", "method"], sort=False):
        test, retain = own[own["subset"] == "test"], own[own["subset"] == "retain"]
        if test.empty or retain.empty:
            continue
        row = {"model": model, "method": method, **over_seeds(test, "answer_prob", "gone")}
        row |= over_seeds(retain, "answer_prob", "kept")
        rows.append(row | {name: float(test[column].mean()) for name, column in SAYINGS.items()})
    return pd.DataFrame(rows)


def over_seeds(rows: pd.DataFrame, column: str, name: str) -> dict[str, float | None]:
    """Mean of a column of a log over seeds, as `name`, with an interval over people and seeds as `_low` and `_high`."""
    seeds = [seed for _, seed in rows.dropna(subset=[column]).groupby("seed")]
    if not seeds:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    found = bootstrap_mean_over_seeds(
        [seed[column].astype(float) for seed in seeds], [seed["person"].tolist() for seed in seeds]
    )
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def newcomers(logs: pd.DataFrame, forget: Mapping[int, Sequence[str]], split: int) -> pd.DataFrame:
    """Logs of one split without the prompts about people who are forgotten at a smaller share already.

    Shares are nested, and whoever wrote the method down had seen what became of the people of the smallest. `forget`:
    share -> ids of the people. Empty at the smallest share.
    """
    smaller = [person for share, people in forget.items() if share < split for person in people]
    known = logs["subset"].isin(["forget", "test"]) & logs["person"].isin(smaller)
    return logs[~known] if smaller else logs.iloc[:0]


def tests(logs: pd.DataFrame) -> pd.DataFrame:
    """The corrected form against every baseline on the forgotten people's prompts; `logs` of one model and split.

    Answer probability, the primary measure; columns and errors are those of `evaluate.summary.compare`.
    """
    baselines = [method for method in logs["method"].unique() if method not in ("mllmeraser", "retain_only", *LATER)]
    return compare(logs, method="mllmeraser", baselines=baselines, subsets=("forget", "test"))


def read(path: Path) -> dict[str, Any]:
    """A JSON file of the run; empty where it is missing."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def note(study: Study, name: str) -> dict[str, Any]:
    """A note of an earlier notebook; empty where it did not run, which is no error here."""
    return read(study.figure(name).with_suffix(".json"))


def searches(study: Study) -> dict[str, pd.DataFrame]:
    """Method -> every setting that was tried on the dev people, with `settings, dial, score, forget_prob, kept_prob`.

    `dial` is what runs from no effect to collapse: strength, steps of training, or share of neurons; missing where a
    method has none. Read from the notes of 06_select, 08_tune and 09_closed; methods that did not run are left out.
    """
    found: dict[str, pd.DataFrame] = {}
    select, closed = (note(study, name) for name in (f"selection-{study.split}", "closed"))
    for method, name in (("constant", "constant"), ("published", "mllmeraser_published")):
        if method in select:
            table = pd.DataFrame(select[method])
            found[name] = table.assign(dial=table["strength"], settings=table["strength"].map("strength {:g}".format))
    for path in sorted(replace(study, split=5).figure("x").parent.glob("tuning-*.json")):
        table = pd.DataFrame(read(path)["rows"])
        settings = table["settings"] + table["lr"].map(", rate {:g}".format)
        found[path.stem.removeprefix("tuning-")] = table.assign(dial=table["steps"], settings=settings)
    for method in ("leace", "manu"):
        if method in closed:
            table = pd.DataFrame(closed[method])
            found[method] = table.assign(dial=table["settings"].map(_share))
    if "score" in select:
        chosen = next(iter(select["score"].values()))
        found["mllmeraser"] = pd.DataFrame([{"settings": "as chosen", "dial": None, **chosen}])
    keep = ["settings", "dial", "score", "forget_prob", "kept_prob", "gibberish", "kept_gibberish"]
    return {method: table[keep] for method, table in found.items()}


def _share(settings: str) -> float | None:
    match = re.search(r"share=([\d.]+)", settings)
    return float(match[1]) if match else None


def curves(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Method -> its best setting's way from no effect to collapse: `dial, gone, kept` on the dev people, by dial.

    Settings that differ in anything but the dial belong to other curves; the one with the best point is kept.
    """
    found = {}
    for method, table in tables.items():
        table = table.reset_index(drop=True)
        family = table["settings"].str.replace(r"(strength|share)[ =][\d.e-]+", "", regex=True)
        if table["dial"].isna().all():
            family = pd.Series(range(len(table)), index=table.index).astype(str)
        best = family[int(table["score"].to_numpy().argmax())]
        own = table[family == best].sort_values("dial")
        found[method] = own.rename(columns={"forget_prob": "gone", "kept_prob": "kept"})[["dial", "gone", "kept"]]
    return found


def by_threshold(logs: pd.DataFrame, methods: Sequence[str] = GATED) -> dict[str, pd.DataFrame]:
    """Method -> what a gate or detector trades as its threshold falls: `dial, gone, kept`, on the people of its log.

    Read from the log: what is not opened is answered as vanilla answers it. From a threshold that nobody reaches to
    the one that was set; where every opened prompt gets one answer, as behind a detector, on to one that all reach.
    `logs`: of one model and split, vanilla among them. A method whose log is not split by one threshold is left out.
    """
    found = {}
    before = logs[logs["method"] == "vanilla"].set_index("id")["answer_prob"].astype(float)
    for method in methods:
        own = logs[(logs["method"] == method) & logs["subset"].isin(["test", "retain"])].dropna(subset=["gate_value"])
        opened = own["opened"].astype(bool)
        if own.empty or not opened.any():
            continue
        value, said = own["gate_value"].astype(float), own["answer_prob"].astype(float)
        canned = said[opened].nunique() == 1
        lowest = value[~opened].max() if not opened.all() else -math.inf
        if lowest >= value[opened].min():
            continue
        said = said.where(opened, said[opened].iloc[0]) if canned else said
        plain, asked = own["id"].map(before), own["subset"]
        rows = []
        for threshold in sorted({*value.quantile([step / 100 for step in range(101)])}, reverse=True):
            if threshold >= lowest or canned:
                now = said.where(value > threshold, plain)
                rows.append((-threshold, now[asked == "test"].mean(), now[asked == "retain"].mean()))
        found[method] = pd.DataFrame(rows, columns=["dial", "gone", "kept"])
    return found


def recognised(study: Study) -> dict[str, dict[str, Any]]:
    """Corrected form and detector, which are chosen by the prompts that they open for: method -> `tried, settings`.

    A gate and what is pushed behind it are chosen one after the other, and counted together.
    """
    found: dict[str, dict[str, Any]] = {}
    select, closed = (note(study, name) for name in (f"selection-{study.split}", "closed"))
    if "decision" in select:
        gate, push = select["choice"]["decision"], select["choice"]["push"]
        settings = (
            f"{gate['solver']} at {gate['layers']}; {push['direction']} x {push['strength']:g} at {push['layers']}"
        )
        found["mllmeraser"] = {"tried": len(select["decision"]) + len(select["push"]), "settings": settings}
    if "detector" in closed:
        best = closed["choice"]["detector"]
        settings = f"{best['rule']} at {best['layers']}"
        found["detector"] = {"tried": len(closed["detector"]), "settings": settings}
    return found


def chosen(tables: Mapping[str, pd.DataFrame], others: Mapping[str, Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """One row per method: how many settings were tried, the best one, and the best that does not babble.

    Columns: `method`; `fits` (settings that were fitted), `tried` (points that were scored: a training at several
    steps), `settings, dial, score, gibberish, fluent_settings, fluent_dial, fluent_score`. `tables`: of `searches`.
    `others`: of `recognised`; they go before, and have no score of their own.
    """
    rows = []
    for method, table in tables.items():
        fluent = table[table[["gibberish", "kept_gibberish"]].max(axis=1) <= BABBLE]
        row: dict[str, Any] = {"method": method, "fits": table["settings"].nunique(), "tried": len(table)}
        for prefix, among in (("", table), ("fluent_", fluent)):
            top = among.iloc[int(among["score"].to_numpy().argmax())] if len(among) else None
            row |= {f"{prefix}{n}": None if top is None else top[n] for n in ("settings", "dial", "score")}
            if top is not None and not prefix:
                row["gibberish"] = max(top["gibberish"], top["kept_gibberish"])
        rows.append(row)
    others = {method: {"fits": row["tried"], **row} for method, row in (others or {}).items()}
    rows = [row | dict(others.get(row["method"], {})) for row in rows]
    rows += [{"method": method, **row} for method, row in others.items() if method not in tables]
    return pd.DataFrame(rows)
