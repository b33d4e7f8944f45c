"""The reproduction report: every figure of a run beside the committed reference, reproduced or not.

Rules (design note ``protocol.md``, section 7). Only figures that were *rerun* count; one whose log was taken from
the reference is marked so.

- Evaluation: at least 98 % of the answers of the log are equal, and the figure differs by at most 1 point; a mean over
  what was answered (`ANSWERED`) by at most one answer: on another kind of processor last digits are others, and an
  answer that hung by them may turn. Figures that are no fractions (mean log-probabilities) may differ by 1 % of the
  reference where that is more.
- Methods that train weights during the run: the figure lies within the committed seeds' range, widened by half
  (a quarter of its width on either side), or within 1 point of it where the range is narrower.
- Both: the same questions were counted.
- Models that were trained anew are other models: weights may differ from machine to machine, and what they must meet is
  the memorisation gate of 02_models. Figures of jobs that read other weights than the reference's are shown and do not
  count.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eraser_lib.study.matrix import jobs
from eraser_lib.study.paths import RunFolder, StudyError, read_json, write_atomic, write_json
from eraser_lib.study.preset import Preset

IDENTITY = ("model", "split", "method", "subset", "modality", "task", "metric")
KEYS = (*IDENTITY, "seed")
EQUAL_ANSWERS = 0.98
POINT = 0.01
ANSWERED = (
    "accuracy", "forced_accuracy", "fact_recall", "rouge_l", "bleu", "wrong_share",
    "refusal_rate", "fluent_refusal_rate", "gibberish_rate", "opened_rate",
)  # fmt: skip
"""Means over answers, which count from 0 to 1 each."""
FEW = 30
"""Questions below which one answer would weigh too much to be granted."""
OTHER_WEIGHTS = "other weights"
_EPSILON = 1e-6  # figures are written with six digits


@dataclass(frozen=True)
class Report:
    """A comparison of a run with the reference."""

    figures: pd.DataFrame
    """one row per figure: `KEYS`, run, reference, low, high, source (``rerun``, ``from reference``,
    ``other weights``, ``new``), reproduced, why"""
    logs: pd.DataFrame
    """one row per log: log, source, rule, questions, equal (share of equal answers), reproduced"""

    @property
    def rerun(self) -> pd.DataFrame:
        """The figures that count."""
        return self.figures[self.figures["source"] == "rerun"]

    @property
    def reproduced(self) -> bool:
        """Whether something was rerun, and all of it that can be compared was reproduced."""
        anything = len(self.rerun) > 0 or bool((self.figures["source"] == OTHER_WEIGHTS).any())
        return anything and bool(self.rerun["reproduced"].all())


def compare(
    run: RunFolder, reference: RunFolder, *, trained: Collection[str] = (), retrained: Collection[str] = ()
) -> Report:
    """Compare two run folders.

    Args:
        run: the new figures.
        reference: the committed ones.
        trained: methods that train weights during the run.
        retrained: folders below ``logs/`` whose jobs read other weights than those of the reference, see `retrained`.

    Raises:
        StudyError: a summary is missing.
    """
    adopted = set(read_json(run.adopted)) if run.adopted.is_file() else set()
    logs = _compare_logs(run, reference, adopted, trained, retrained)
    others = set(logs.loc[logs["source"] == OTHER_WEIGHTS, "log"])
    bad_logs = set(logs.loc[logs["reproduced"] == False, "log"])  # noqa: E712 (None means not judged)
    theirs, mine = _summary(reference), _summary(run)
    joined = theirs.merge(mine, on=list(KEYS), how="outer", suffixes=("_reference", "_run"), indicator=True)
    seeds = theirs[theirs["seed"] != "all"].groupby(list(IDENTITY), dropna=False)["value"].agg(["min", "max"])
    spread = {key: (row["min"], row["max"]) for key, row in seeds.iterrows()}
    rows = []
    for _, pair in joined.iterrows():
        used = _logs_of(pair, logs["log"])
        source = "from reference" if any(name in adopted for name in used) else "rerun"
        source = OTHER_WEIGHTS if others.intersection(used) else source
        figure: dict[str, Any] = {key: pair[key] for key in KEYS}
        figure |= {"run": pair["value_run"], "reference": pair["value_reference"], "source": source}
        is_trained = pair["method"] in trained
        seeds_range = spread.get(tuple(pair[k] for k in IDENTITY))
        turned = 1 / pair["n_reference"] if pair["metric"] in ANSWERED and pair["n_reference"] >= FEW else 0.0
        low, high = _allowed(pair["value_reference"], seeds_range, trained=is_trained, turned=turned)
        why = _why(pair, low, high, [name for name in used if name in bad_logs])
        counts = source == "rerun" and pair["_merge"] != "right_only"
        if pair["_merge"] == "right_only":
            figure["source"], why = "new", "not in the reference"
        rows.append(figure | {"low": low, "high": high, "reproduced": not why if counts else None, "why": why})
    columns = [*KEYS, "run", "reference", "source", "low", "high", "reproduced", "why"]
    return Report(pd.DataFrame(rows, columns=columns), logs)


def _allowed(
    value: float, spread: tuple[float, float] | None, *, trained: bool, turned: float = 0.0
) -> tuple[float, float]:
    """The interval in which a figure counts as reproduced. `turned`: what one answer weighs, where one may turn."""
    point = POINT * max(1.0, abs(value))
    if not trained or spread is None or math.isnan(spread[0]):
        return value - max(point, turned), value + max(point, turned)
    low, high = spread
    margin = max(0.25 * (high - low), point)
    return low - margin, high + margin


def _why(pair: Any, low: float, high: float, bad_logs: list[str]) -> str:
    """Why a figure is not reproduced; empty if it is."""
    if pair["_merge"] == "left_only":
        return "missing in the run"
    if pair["_merge"] == "right_only":
        return ""
    value, wanted = pair["value_run"], pair["value_reference"]
    if pair["n_run"] != pair["n_reference"]:
        return f"{pair['n_run']:.0f} questions instead of {pair['n_reference']:.0f}"
    if math.isnan(value) and math.isnan(wanted):
        return ""
    if math.isnan(value) or math.isnan(wanted):
        return "has a value on one side only"
    if not low - _EPSILON <= value <= high + _EPSILON:
        return f"{value:.4f} is outside [{low:.4f}, {high:.4f}]"
    return f"fewer than {EQUAL_ANSWERS:.0%} equal answers in {', '.join(bad_logs)}" if bad_logs else ""


def _logs_of(figure: Any, names: Iterable[str]) -> list[str]:
    """The logs behind a figure; those of all seeds for seed ``all``."""
    start = f"logs/{figure['model']}/{figure['split']}/{figure['method']}/"
    file = "" if figure["seed"] == "all" else f"seed{figure['seed']}.parquet"
    return [name for name in names if name.startswith(start) and name.endswith(file)]


def _summary(folder: RunFolder) -> pd.DataFrame:
    if not folder.summary.is_file():
        raise StudyError(f"{folder.summary} does not exist; there is nothing to compare. Run 'make study' first.")
    table = pd.read_csv(folder.summary, dtype=dict.fromkeys(KEYS, "str"), keep_default_na=True)
    table[list(KEYS)] = table[list(KEYS)].fillna("")
    if table.duplicated(list(KEYS)).any():
        row = table[table.duplicated(list(KEYS))].iloc[0]
        raise StudyError(f"{folder.summary} has two rows for {' '.join(row[list(KEYS)])}. Write it again.")
    return table[[*KEYS, "value", "n"]]


def retrained(preset: Preset, run: RunFolder, reference: RunFolder) -> set[str]:
    """Folders below ``logs/`` of jobs whose models are not the reference's: their manifests name other weights, or the
    reference has none, so that nothing says on which weights its logs were made."""
    found: set[str] = set()
    for name, job in jobs(preset).items():
        mine, theirs = run.manifest(name), reference.manifest(name)
        if not mine.is_file():
            continue
        if not theirs.is_file() or read_json(mine)["checkpoint"] != read_json(theirs)["checkpoint"]:
            found |= set(job.logs)
    return found


def _compare_logs(
    run: RunFolder, reference: RunFolder, adopted: set[str], trained: Collection[str], retrained: Collection[str]
) -> pd.DataFrame:
    rows = []
    for path in sorted(reference.logs.rglob("seed*.parquet")):
        name = path.relative_to(reference.path).as_posix()
        method = path.parent.name
        source = "from reference" if name in adopted else "rerun"
        if path.parent.relative_to(reference.logs).as_posix() in retrained:
            source = OTHER_WEIGHTS
        row: dict[str, Any] = {
            "log": name,
            "source": source,
            "rule": "evaluation",
            "equal": math.nan,
            "questions": 0,
        }
        if not (run.path / name).is_file():
            row |= {"source": "missing", "reproduced": False}
        else:
            row["questions"], row["equal"] = _equal_answers(run.path / name, path)
            row["reproduced"] = row["equal"] >= EQUAL_ANSWERS - _EPSILON if source == "rerun" else None
        if method in trained and row["source"] != "missing":
            row |= {"rule": "trained", "reproduced": None}
        rows.append(row)
    return pd.DataFrame(rows, columns=["log", "source", "rule", "questions", "equal", "reproduced"])


def _equal_answers(mine: Path, theirs: Path) -> tuple[int, float]:
    """Number of questions, and the share of all questions of either log that both answer alike."""
    first, second = (pd.read_parquet(path, columns=["id", "output"]) for path in (mine, theirs))
    both = first.merge(second, on="id", how="outer", suffixes=("_run", "_reference"))
    equal = (both["output_run"] == both["output_reference"]).fillna(False)
    return len(first), float(equal.mean()) if len(both) else 1.0


def table(report: Report) -> pd.DataFrame:
    """One row per model, split and method: figures, rerun, reproduced, largest difference, equal answers."""
    figures = report.figures.assign(
        difference=(report.figures["run"] - report.figures["reference"]).abs(),
        counted=report.figures["source"] == "rerun",
        good=report.figures["reproduced"].eq(True),
    )
    rows = []
    for key, group in figures.groupby(["model", "split", "method"], sort=True):
        start = "logs/" + "/".join(map(str, key)) + "/" if isinstance(key, tuple) else ""
        logs = report.logs[report.logs["log"].str.startswith(start)] if len(report.logs) else report.logs
        counted = int(group["counted"].sum())
        sources = set(group["source"]) - {"new"}
        uncounted = "other weights" if sources == {OTHER_WEIGHTS} else "from reference"
        verdict = uncounted if not counted else "reproduced" if group["good"].sum() == counted else "DIFFERS"
        rows.append([*key, len(group), counted, int(group["good"].sum()), group["difference"].max(),
                     logs["equal"].min(), verdict])  # fmt: skip
    names = ["model", "split", "method", "figures", "rerun", "reproduced", "largest difference", "equal answers",
             "verdict"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def verdict(report: Report) -> str:
    """One sentence."""
    counted, good = len(report.rerun), int(report.rerun["reproduced"].eq(True).sum())
    adopted = int((report.figures["source"] == "from reference").sum())
    new = int((report.figures["source"] == "new").sum())
    extra = f"; {adopted} figures are from the reference and do not count" if adopted else ""
    others = int((report.figures["source"] == OTHER_WEIGHTS).sum())
    extra += f"; {others} figures are of models that were trained anew and do not count" if others else ""
    extra += f"; {new} figures are not in the reference" if new else ""
    if report.reproduced and not counted:
        return f"NOTHING TO REPRODUCE: no rerun figure counts{extra}."
    word = "REPRODUCED" if report.reproduced else "NOT REPRODUCED"
    return f"{word}: {good} of {counted} rerun figures{extra}."


def write(preset: Preset, *, quiet: bool = False) -> bool:
    """Compare a preset's run with its reference, print the table, write ``reproduction.{md,json}`` into the run.

    Returns:
        Whether the run reproduces the reference; true also where no reference exists yet.

    Raises:
        StudyError: the run has no summary.
    """
    if not preset.reference.summary.is_file():
        print(f"No reference yet for preset {preset.name!r} ({preset.reference.path}); 'make promote' makes one.")
        return True
    others = retrained(preset, preset.run, preset.reference)
    report = compare(preset.run, preset.reference, trained=preset.trained, retrained=others)
    overview = table(report)
    differing = report.rerun[report.rerun["reproduced"].eq(False)]
    columns = [*KEYS, "run", "reference", "why"]
    if not quiet:
        print(f"\nReproduction report: {preset.run.path} beside {preset.reference.path}\n")
        print(overview.to_string(index=False, float_format=lambda value: f"{value:.4f}", na_rep="-"))
        if len(differing):
            print(f"\nFigures that differ ({len(differing)}; the first 20):")
            print(differing[columns].head(20).to_string(index=False, float_format=lambda value: f"{value:.4f}"))
        print(f"\n{verdict(report)}")
    text = [f"# Reproduction report: {preset.name}", "", verdict(report), "", _markdown(overview)]
    if len(differing):
        text += ["", "## Figures that differ", "", _markdown(differing[columns])]
    text += ["", "## Logs", "", _markdown(report.logs)]
    write_atomic(preset.run.path / "reproduction.md", "\n".join(text) + "\n")
    content = {
        "preset": preset.name,
        "reproduced": report.reproduced,
        "verdict": verdict(report),
        "figures": _records(report.figures),
        "logs": _records(report.logs),
    }
    write_json(preset.run.path / "reproduction.json", content)
    return report.reproduced


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON, with null for what is not a number."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def _markdown(frame: pd.DataFrame) -> str:
    def text(value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "-"
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(text(value) for value in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)
