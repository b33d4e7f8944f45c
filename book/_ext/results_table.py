"""Turns rows of `summary.csv` into a grid of cells: which value stands where, and which is printed bold."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from results_reader import Measured, MissingResult, Results, measured

from eraser_lib.tables import METHOD_NAMES, MODEL_NAMES, REFERENCES

LABELS = {
    **MODEL_NAMES,
    **METHOD_NAMES,
    "vqa": "image + text (VQA)",
    "qa": "text only (QA)",
    "classification/accuracy": "classification accuracy",
    "cloze/accuracy": "cloze accuracy",
    "generation/fact_recall": "generation, exact-fact recall",
    "generation/rouge_l": "generation ROUGE-L",
    "generation/bleu": "generation BLEU",
    "fact_recall": "exact-fact recall",
    "answer_prob": "answer probability",
    "answer_logprob": "answer log-probability",
    "refusal_rate": "refusal rate",
    "gibberish_rate": "gibberish rate",
    "same_photo": "same photo",
}
DEFINED = {"answer_prob": ("detector",)}
"""Metric -> methods that have its value by definition, and are never the best by it: of a prompt that a detector
refuses nothing can be read, and the right answer counts as impossible."""
OVERLAP = ("rouge_l", "bleu")
"""Metrics of overlap with the right text. Nothing said about the forgotten is bold by them: a refusal has as few words
in common with an answer as its stock sentence happens to have."""
LOWER_IS_BETTER = ("forget", "test", "dev")
NEUTRAL = ("refusal_rate", "fluent_refusal_rate", "opened_rate", "gate_value")


def label(value: str) -> str:
    """The printed form of a name of the results files."""
    return LABELS.get(value, value.removeprefix("generation/").replace("_", " "))


@dataclass(frozen=True)
class Cell:
    """A cell: a measurement, or `None` where a run that is allowed to be absent has not been made."""

    measured: Measured | None
    bold: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: `cells[i][j]` belongs to the row key `rows[i]` and the column key `columns[j]`."""

    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    rows: list[tuple[str, ...]]
    columns: list[tuple[str, ...]]
    cells: list[list[Cell]]
    missing: list[str]
    """Names of cells that should exist and do not."""


def build_grid(
    results: Results,
    *,
    filters: Mapping[str, Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    may_miss: Sequence[str] = (),
    better: str = "auto",
) -> Grid:
    """Pivots the filtered summary.

    `rows` and `columns` name columns of the summary; the order of the values in `filters` is the order on the
    page. Every combination of listed values must exist, unless it holds one of the values `may_miss` (`*`: any). A
    column of the summary that is not filtered is shown with all values that exist.
    Raises `MissingResult` if two rows compete for one cell.
    """
    names = (*rows, *columns)
    frame = results.rows(filters)
    values = {
        name: list(filters[name]) if name in filters else sorted(frame[name].unique(), key=_rank) for name in names
    }
    duplicated = frame.duplicated(list(names))
    if duplicated.any():
        open_names = [n for n in frame.columns[:9] if n not in names and frame[n].nunique() > 1]
        raise MissingResult(f"several rows of summary.csv fall into one cell; also say {', '.join(open_names)}")
    found: dict[tuple[str, ...], Measured] = {
        tuple(str(row[name]) for name in names): measured(row) for _, row in frame.iterrows()
    }
    row_keys = list(itertools.product(*(values[name] for name in rows)))
    column_keys = list(itertools.product(*(values[name] for name in columns)))
    if not set(rows) <= set(filters):  # what was not asked for by name is shown where it exists
        row_keys = [r for r in row_keys if any(key[: len(rows)] == r for key in found)]
    if not set(columns) <= set(filters):
        column_keys = [c for c in column_keys if any(key[len(rows) :] == c for key in found)]
    missing = [
        " ".join(f"{name}={value}" for name, value in zip(names, (*r, *c), strict=True))
        for r in row_keys
        for c in column_keys
        if (*r, *c) not in found and not set(may_miss) & {*r, *c, "*"}
    ]
    cells = [[Cell(found.get((*r, *c))) for c in column_keys] for r in row_keys]
    if better != "none" and list(rows) == ["method"]:
        fixed = {name: chosen[0] for name, chosen in filters.items() if len(chosen) == 1}
        for j, key in enumerate(column_keys):
            where = {**fixed, **dict(zip(columns, key, strict=True))}
            beside = DEFINED.get(_metric(where), ())
            _embolden(cells, row_keys, j, _direction(where, better), beside)
    return Grid(tuple(rows), tuple(columns), row_keys, column_keys, cells, missing)


def _rank(value: str) -> tuple[int, str]:
    """Sorting key: names with a label stand in the order of `LABELS`, all others after them."""
    return (list(LABELS).index(value) if value in LABELS else len(LABELS), value)


def _metric(where: Mapping[str, str]) -> str:
    return where.get("metric") or where.get("measure", "").rpartition("/")[2]


def _direction(where: Mapping[str, str], better: str) -> str | None:
    metric = _metric(where)
    if metric in NEUTRAL or (metric in OVERLAP and where.get("subset") in LOWER_IS_BETTER):
        return None
    if better != "auto":
        return better
    if metric == "gibberish_rate":
        return "low"
    subset = where.get("subset")
    return None if subset is None else "low" if subset in LOWER_IS_BETTER else "high"


def _embolden(
    cells: list[list[Cell]], row_keys: list[tuple[str, ...]], j: int, better: str | None, beside: Sequence[str]
) -> None:
    if better is None:
        return
    rivals = {
        i: found
        for i, (method,) in enumerate(row_keys)
        if method not in (*REFERENCES, *beside)
        and (found := cells[i][j].measured) is not None
        and found.value is not None
    }
    for i, mine in rivals.items():
        others = [other for k, other in rivals.items() if k != i]
        if others and all(mine.clearly_beats(other, better) for other in others):
            cells[i][j] = Cell(mine, bold=True)


def records_frame(node: object) -> pd.DataFrame:
    """A JSON value as a table: a list of flat objects, a flat object, or an object that holds one such list."""
    if isinstance(node, list) and node and all(isinstance(item, dict) for item in node):
        return pd.DataFrame(node)
    if isinstance(node, dict):
        lists = [item for item in node.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        if len(lists) == 1:
            return records_frame(lists[0])
    if isinstance(node, dict) and node and not any(isinstance(item, (list, dict)) for item in node.values()):
        return pd.DataFrame({"quantity": list(node), "value": list(node.values())})
    raise MissingResult("the JSON is neither a list of flat objects nor a flat object; name a part of it by a key")
