"""From logs to the tidy summary that tables, figures and reports read. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eraser_lib.evaluate.log import MODALITIES, SUBSETS, TASKS, read_logs
from eraser_lib.evaluate.separation import ks_interval_over_seeds
from eraser_lib.evaluate.stats import (
    Interval,
    bootstrap_mean,
    bootstrap_mean_over_seeds,
    holm,
    paired_difference,
    sign_flip_test,
)

METHODS = (
    "vanilla", "retain_only", "prompt", "prompt_oracle", "detector", "constant", "leace", "ga", "ga_diff", "kl_min",
    "npo", "idk", "undial", "rmu", "mmunlearner", "manu", "mllmeraser_published", "mllmeraser",
    "mllmeraser_quadratic",
)  # fmt: skip
COLUMNS = [
    "preset", "model", "split", "method", "seed", "subset", "modality", "task", "metric", "value", "ci_low",
    "ci_high", "n", "n_people",
]  # fmt: skip
_RUN = ["preset", "model", "split", "method"]
_CELL = ["subset", "modality", "task"]


PROMPTING = ("prompt", "prompt_oracle")
OBEDIENCE = 0.9
"""Below this rate of obeyed instructions a prompting baseline would be a straw man."""


@dataclass(frozen=True)
class Metric:
    """A mean over rows of a log."""

    name: str
    column: str
    tasks: tuple[str, ...] = TASKS
    meaning: str = ""


METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "correct", ("classification", "cloze"), "share of right letters, of right cloze answers"),
    Metric("forced_accuracy", "forced_correct", ("classification",), "share whose likeliest option is right"),
    Metric("fact_recall", "fact_recall", ("generation",), "share of answers that hold the exact fact"),
    Metric("rouge_l", "rouge_l", ("generation",), "ROUGE-L F with stemmer"),
    Metric("bleu", "bleu", ("generation",), "sentence BLEU"),
    Metric("answer_prob", "answer_prob", TASKS, "probability of the ground truth per token (geometric mean)"),
    Metric("answer_logprob", "answer_logprob", TASKS, "log-probability of the ground truth, sum, in nats"),
    Metric("wrong_share", "wrong_share", ("generation",), "R / (1 + R) of the truth ratio R: .5 is ignorance"),
    Metric("refusal_rate", "refusal", TASKS, "share of refusals"),
    Metric("fluent_refusal_rate", "fluent_refusal", TASKS, "share of refusals that are fluent"),
    Metric("gibberish_rate", "gibberish", TASKS, "share neither fluent nor a refusal nor right"),
    Metric("opened_rate", "opened", TASKS, "share of prompts whose gate opened"),
    Metric("gate_value", "gate_value", TASKS, "mean gate value at the decision layer"),
)
"""Metrics of the summary, in its order; `truth_ratio_ks` (to the first seed of retain-only) is added where both logs
exist, for the other seeds of retain-only as well."""


def summarise(logs: Path, *, split: str | None = None, metrics: Collection[str] | None = None) -> pd.DataFrame:
    """Summarise all logs below a folder.

    Args:
        logs: folder with `<model>/<split>/<method>/seed<k>.parquet`.
        split, metrics: only these; the default is all.

    Returns:
        Tidy rows with exactly the columns `COLUMNS`, in a fixed order. `seed` is a string: an integer, or
        `all` where a method has several seeds (the interval then includes their spread). `n` counts
        questions, `n_people` the people they are about (0 for questions about nobody). Intervals are 95 %,
        bootstrapped over people.

    Where a model's `figures/<model>/obedience.json` says that it does not obey an instruction to keep silent about
    named people, prompting is not applicable: its rows stay, without values.

    Raises:
        LogError: there is no log, or one does not follow the schema.
    """
    rows = read_logs(logs)
    summary = summarise_rows(rows if split is None else rows[rows["split"] == split], metrics=metrics)
    for model in summary["model"].unique():
        if not prompting_applies(logs.parent / "figures" / str(model)):
            rows = (summary["model"] == model) & summary["method"].isin(PROMPTING)
            summary.loc[rows, ["value", "ci_low", "ci_high"]] = float("nan")
    return summary


def prompting_applies(figures: Path) -> bool:
    """Whether a model obeys instructions to keep silent about named people, so that prompting is a fair baseline.

    `figures`: folder of the model's figures; its `obedience.json` holds the rates, of which the lowest counts. Where
    it was not measured nothing speaks against prompting.
    """
    path = figures / "obedience.json"
    if not path.exists():
        return True
    rows = json.loads(path.read_text())["rows"]
    return min(row["obeyed"] for row in rows if str(row["instruction"]).startswith("silence")) >= OBEDIENCE


def applicable(rows: pd.DataFrame, figures: Path) -> pd.DataFrame:
    """Logs without the prompting rows of models that do not obey: these are never scored.

    `figures`: folder with one folder of figures per model, see `prompting_applies`.
    """
    deaf = [model for model in rows["model"].unique() if not prompting_applies(figures / str(model))]
    return rows[~(rows["model"].isin(deaf) & rows["method"].isin(PROMPTING))]


def summarise_rows(rows: pd.DataFrame, *, metrics: Collection[str] | None = None) -> pd.DataFrame:
    """`summarise` for rows in memory, with the columns of `eraser_lib.evaluate.log.SCHEMA`."""
    rows = _derived(rows)
    means = [metric for metric in METRICS if metrics is None or metric.name in metrics]
    found = [record for run, group in rows.groupby(_RUN, sort=False) for record in _run_records(run, group, means)]
    if metrics is None or "truth_ratio_ks" in metrics:
        found += _distance_records(rows)
    return _ordered(pd.DataFrame(found, columns=COLUMNS))


def paired_losses(rows: pd.DataFrame, *, baseline: str = "vanilla") -> pd.DataFrame:
    """What each method loses against a baseline on the same questions, per subset.

    Args:
        rows: logs of the methods and of the baseline, see `read_logs`.
        baseline: method to lose against; its first seed counts.

    Returns:
        Columns as in the summary with `modality` and `task` `all`; metric `loss` (right answers, by the
        task's own rule) and `answer_prob_loss`; positive is worse than the baseline.

    Raises:
        ValueError: the baseline is not among the rows.
    """
    rows = _derived(rows)
    found = []
    for run, group in rows[rows["method"] != baseline].groupby([*_RUN, "seed", "subset"], sort=False):
        preset, model, split, method, seed, subset = map(str, run)
        pairs = _paired(group, _baseline(rows, preset, model, split, baseline))
        for metric, column in (("loss", "right"), ("answer_prob_loss", "answer_prob")):
            both = pairs.dropna(subset=[f"{column}_x", f"{column}_y"])
            if len(both):
                interval = paired_difference(
                    both[f"{column}_x"].astype(float),
                    both[f"{column}_y"].astype(float),
                    both["cluster_x"].tolist(),
                )
                cell = (subset, "all", "all", metric)
                found.append([preset, model, split, method, seed, *cell, *_cells(interval, both["person_x"])])
    return _ordered(pd.DataFrame(found, columns=COLUMNS))


def compare(
    rows: pd.DataFrame,
    *,
    method: str,
    baselines: Sequence[str],
    subsets: Sequence[str],
    column: str = "answer_prob",
) -> pd.DataFrame:
    """Does a method differ from each baseline on the same questions? Sign flips by person, then Holm.

    Args:
        rows: logs of one model and split.
        method, baselines: method names; of several seeds the mean of each question counts.
        subsets: subsets whose questions are pooled, e.g. `("forget", "test")`.
        column: the primary metric, named beforehand: a numeric column of the log, or `right`.

    Returns:
        One row per baseline: `baseline, difference, ci_low, ci_high, p_value, p_holm, n, n_people`; the difference is
        baseline minus method.

    Raises:
        ValueError: several models or splits are in the rows, or a method is missing.
    """
    rows = _derived(rows)
    keys = rows[["preset", "model", "split"]].drop_duplicates()
    if len(keys) != 1:
        raise ValueError(f"compare one model and split at a time; the rows hold {keys.to_dict('records')}")
    rows = rows[rows["subset"].isin(subsets)]
    own = _over_seeds(rows, method, column)
    records, p_values = [], {}
    for name in baselines:
        both = _paired(own, _over_seeds(rows, name, column)).dropna(subset=[f"{column}_x", f"{column}_y"])
        ours, theirs = both[f"{column}_x"].to_numpy(float), both[f"{column}_y"].to_numpy(float)
        people = both["cluster_x"].tolist()
        interval = paired_difference(ours, theirs, people)
        p_values[name] = sign_flip_test(theirs - ours, people)
        records.append([name, interval.value, interval.low, interval.high, interval.n, interval.n_people])
    frame = pd.DataFrame(records, columns=["baseline", "difference", "ci_low", "ci_high", "n", "n_people"])
    frame.insert(4, "p_value", [p_values[name] for name in baselines])
    frame.insert(5, "p_holm", list(holm(p_values).values()))
    return frame


def _derived(rows: pd.DataFrame) -> pd.DataFrame:
    measured = {metric.column for metric in METRICS if metric.column in rows}
    numbers = {name: _numbers(rows[name]) for name in measured}
    # R / (1 + R) is bounded, and written so that a huge R does not divide infinity by infinity.
    share = 1.0 - 1.0 / (1.0 + _numbers(rows["truth_ratio"]))
    return rows.assign(
        **numbers,
        wrong_share=share,
        right=np.where(np.isnan(numbers["correct"]), numbers["fact_recall"], numbers["correct"]),
        fluent_refusal=numbers["refusal"] * _numbers(rows["fluent"]),
        cluster=rows["person"].where(rows["person"].notna(), "question " + rows["id"].astype(str)),
    )


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    return np.asarray(column.astype("Float64").to_numpy(float, na_value=np.nan), dtype=np.float64)


def _run_records(run: Hashable, group: pd.DataFrame, metrics: Sequence[Metric]) -> Iterator[list[object]]:
    assert isinstance(run, tuple)
    for cell, questions in group.groupby(_CELL, sort=False):
        assert isinstance(cell, tuple)
        of_seed = questions["seed"].to_numpy(int)
        clusters = questions["cluster"].to_numpy(object)
        persons = questions["person"].to_numpy(object)
        for metric in metrics:
            if cell[2] not in metric.tasks:
                continue
            values = questions[metric.column].to_numpy(float)
            known = ~np.isnan(values)
            seeds = np.unique(of_seed[known])
            masks = [known & (of_seed == seed) for seed in seeds]
            for seed, mask in zip(seeds, masks, strict=True):
                interval = bootstrap_mean(values[mask], clusters[mask].tolist())
                yield [*run, str(seed), *cell, metric.name, *_cells(interval, persons[mask])]
            if len(seeds) > 1:
                interval = bootstrap_mean_over_seeds(
                    [values[mask] for mask in masks], [clusters[mask].tolist() for mask in masks]
                )
                yield [*run, "all", *cell, metric.name, *_cells(interval, persons[known])]


def _distance_records(rows: pd.DataFrame) -> Iterator[list[object]]:
    known = rows[rows["wrong_share"].notna()]
    for key, group in known.groupby(["preset", "model", "split", *_CELL], sort=False):
        retrained = group["method"] == "retain_only"
        if not retrained.any():
            continue
        # its other seeds stay among the methods: how far apart are two models that never knew these people?
        is_reference = retrained & (group["seed"] == group.loc[retrained, "seed"].min())
        reference = group[is_reference]
        # The distance of two distributions does not change under R / (1 + R), which grows with R.
        known_to = (reference["wrong_share"].to_numpy(float), reference["cluster"].tolist())
        for method, runs in group[~is_reference].groupby("method", sort=False):
            seeds = {str(seed): own for seed, own in runs.groupby("seed")}
            parts = [(name, [own]) for name, own in seeds.items()]
            for seed, part in [*parts, ("all", list(seeds.values()))] if len(seeds) > 1 else parts:
                interval = ks_interval_over_seeds(
                    [own["wrong_share"].to_numpy(float) for own in part], [own["cluster"].tolist() for own in part],
                    *known_to,
                )  # fmt: skip
                yield [*key[:3], method, seed, *key[3:], "truth_ratio_ks", *_cells(interval, runs["person"])]


def _cells(interval: Interval, persons: Iterable[object]) -> list[object]:
    named = {person for person in persons if isinstance(person, str)}
    return [interval.value, interval.low, interval.high, interval.n, len(named)]


def _over_seeds(rows: pd.DataFrame, method: str, column: str) -> pd.DataFrame:
    """One row per question of a method: `id, cluster` and the mean of a column over its seeds."""
    found = rows[rows["method"] == method]
    if found.empty:
        raise ValueError(f"no log of '{method}' among the rows; evaluate it first")
    return found.groupby("id", sort=False).agg({"cluster": "first", column: "mean"}).reset_index()


def _baseline(rows: pd.DataFrame, preset: str, model: str, split: str, method: str) -> pd.DataFrame:
    found = rows[
        (rows["preset"] == preset) & (rows["model"] == model) & (rows["split"] == split) & (rows["method"] == method)
    ]
    if found.empty:
        raise ValueError(f"no log of '{method}' for model {model}, split {split}; evaluate it first")
    return found[found["seed"] == found["seed"].min()]


def _paired(own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    return own.merge(other, on="id", suffixes=("_x", "_y"), validate="one_to_one")


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    names = [metric.name for metric in METRICS]
    ranks = {
        "method": METHODS,
        "subset": SUBSETS,
        "modality": MODALITIES,
        "task": TASKS,
        "metric": tuple(names),
    }

    def rank(column: pd.Series) -> pd.Series:
        if column.name in ranks:
            order = {name: index for index, name in enumerate(ranks[str(column.name)])}
            return column.map(lambda value: f"{order.get(value, len(order)):03d}{value}")
        if column.name in ("split", "seed"):
            return column.map(lambda value: f"{int(value):06d}" if str(value).isdigit() else f"~{value}")
        return column

    frame = frame.sort_values(COLUMNS[:9], key=rank, kind="stable", ignore_index=True)
    return frame.astype({"value": np.float64, "ci_low": np.float64, "ci_high": np.float64, "n": int, "n_people": int})
