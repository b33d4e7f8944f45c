"""Reads the results of a run (summary, figures, manifests) for the book; knows nothing of Sphinx.

Every look-up either finds what was asked for or raises `MissingResult` with the name of the file or row,
so that the book can never show a blank or an invented number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from eraser_lib.study.matrix import KINDS

KEYS = ("preset", "model", "split", "method", "seed", "subset", "modality", "task", "metric")
"""The columns of `summary.csv` that name a row; `value, ci_low, ci_high, n, n_people` are its content."""
REQUIRED = (*KEYS, "value", "ci_low", "ci_high", "n")
IMAGE_ENDINGS = (".svg", ".png")


class MissingResult(LookupError):
    """A row or file that a page asks for does not exist; the message names it."""


@dataclass(frozen=True)
class Measured:
    """One row of `summary.csv`: a value with its 95 % interval and the number of questions behind it."""

    value: float | None
    """`None` where the metric does not apply to the method (an empty field in the file)."""
    low: float | None
    high: float | None
    n: int
    people: int | None

    def number(self, show: str = "both", digits: int = 3) -> str:
        """The value as text; `show` is `value`, `interval` or `both`."""
        if self.value is None:
            return "not applicable"
        value, interval = f"{self.value:.{digits}f}", self.interval(digits)
        return {"value": value, "interval": interval, "both": f"{value} {interval}".strip()}[show]

    def interval(self, digits: int = 3) -> str:
        """The 95 % interval in brackets, or nothing where none was computed."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def compact(self, digits: int = 3) -> tuple[str, str]:
        """Value and interval for a narrow table cell: no leading zero, an en dash between the bounds."""
        if self.low is None or self.high is None:
            return without_zero(self.number("value", digits)), ""
        low, high = (without_zero(f"{bound:.{digits}f}") for bound in (self.low, self.high))
        return without_zero(
            self.number("value", digits)
        ), f"{low} \N{EN DASH} {high}" if self.low < 0 else f"{low}\N{EN DASH}{high}"

    def clearly_beats(self, other: Measured, better: str) -> bool:
        """Whether the two intervals are disjoint and this one lies on the better side (`low` or `high`)."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return False
        return self.high < other.low if better == "low" else self.low > other.high


class Results:
    """A folder of the shape `results/<preset>/` or `runs/<preset>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def summary_path(self) -> Path:
        """The tidy table behind all tables and inline numbers."""
        return self.root / "summary.csv"

    @cached_property
    def summary(self) -> pd.DataFrame:
        """`summary.csv` with all naming columns as text.

        Raises `MissingResult` if the file is absent or lacks a column.
        """
        if not self.summary_path.is_file():
            raise MissingResult(f"{self.summary_path} does not exist; run the study or choose another preset")
        frame = pd.read_csv(self.summary_path, dtype=dict.fromkeys(KEYS, "str"), keep_default_na=True)
        if absent := [name for name in REQUIRED if name not in frame.columns]:
            raise MissingResult(f"{self.summary_path} lacks the columns {', '.join(absent)}")
        return frame

    def rows(self, filters: Mapping[str, Sequence[str]]) -> pd.DataFrame:
        """The rows whose naming columns are among the given values; `measure` means `task/metric` pairs.

        Of several seeds of one quantity the pooled row `all` is taken; without it, all of them are returned.
        """
        frame = self.summary
        frame = frame.assign(measure=frame["task"] + "/" + frame["metric"])
        for name, values in filters.items():
            if name not in (*KEYS, "measure"):
                raise MissingResult(f"{name!r} is not a column of summary.csv; choose from {', '.join(KEYS)}")
            frame = frame[frame[name].isin(list(values))]
        if "seed" not in filters and len(frame):
            identity = [name for name in KEYS if name != "seed"]
            pooled = frame["seed"].eq("all").groupby([frame[name] for name in identity]).transform("any")
            frame = frame[~pooled | frame["seed"].eq("all")]
        return frame

    def one(self, filters: Mapping[str, str]) -> Measured:
        """The single row that the filters name; raises `MissingResult` if there is none or more than one."""
        found = self.rows({name: [value] for name, value in filters.items()})
        wanted = " ".join(f"{name}={value}" for name, value in filters.items())
        if found.empty:
            raise MissingResult(f"{self.summary_path} has no row with {wanted}")
        if len(found) > 1:
            open_names = [name for name in KEYS if found[name].nunique() > 1]
            raise MissingResult(
                f"{self.summary_path} has {len(found)} rows with {wanted}; also say {', '.join(open_names)}"
            )
        return measured(found.iloc[0])

    def figure(self, model: str, name: str) -> Path:
        """The picture `figures/<model>/<name>`, SVG before PNG."""
        for ending in IMAGE_ENDINGS:
            path = self.root / "figures" / model / f"{name}{ending}"
            if path.is_file():
                if not path.stat().st_size:
                    raise MissingResult(f"{path} is empty")
                return path
        raise MissingResult(f"{self.root / 'figures' / model / name} exists neither as .svg nor as .png")

    def figure_data(self, model: str, name: str, key: str = "") -> Any:
        """The JSON beside a figure, or its part at the dotted path `key` (list positions as numbers)."""
        path = self.root / "figures" / model / f"{name}.json"
        if not path.is_file():
            raise MissingResult(f"{path} does not exist")
        node = json.loads(path.read_text(encoding="utf-8"))
        for step in filter(None, key.split(".")):
            try:
                node = node[int(step)] if isinstance(node, list) else node[step]
            except (KeyError, IndexError, ValueError, TypeError):
                known = ", ".join(node) if isinstance(node, dict) else f"{type(node).__name__}"
                raise MissingResult(f"{path} has nothing at {key!r}: {step!r} is not in ({known})") from None
        return node

    @cached_property
    def adopted_files(self) -> set[str]:
        """Files, from the root, that this run did not make but took from the committed reference."""
        path = self.root / "from_reference.json"
        return set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()

    def ran(self, stem: str) -> bool:
        """Whether this run made that of `manifests/<stem>.json` itself."""
        return f"manifests/{stem}.json" not in self.adopted_files

    @cached_property
    def adopted(self) -> set[tuple[str, str, str]]:
        """Model, split and method of the logs among them."""
        names = (name.split("/") for name in self.adopted_files)
        return {(parts[1], parts[2], parts[3]) for parts in names if parts[0] == "logs"}

    def manifest(self, stem: str) -> dict[str, Any]:
        """The manifest `manifests/<stem>.json` of one executed notebook."""
        path = self.root / "manifests" / f"{stem}.json"
        if not path.is_file():
            raise MissingResult(f"{path} does not exist")
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return loaded


def without_zero(number: str) -> str:
    """`0.93` as `.93`, `-0.5` as `-.5`."""
    return re.sub(r"^(-?)0\.", r"\1.", number)


def measured(row: pd.Series[Any]) -> Measured:
    """One row of `summary.csv` as a `Measured`."""

    def number(name: str) -> float | None:
        return None if pd.isna(row[name]) else float(row[name])

    people = row.get("n_people")
    return Measured(
        value=number("value"),
        low=number("ci_low"),
        high=number("ci_high"),
        n=0 if pd.isna(row["n"]) else int(row["n"]),
        people=None if people is None or pd.isna(people) else int(people),
    )


def run_stems(notebook: str, models: Sequence[str], split: str) -> list[str]:
    """File stems `<model>-<split>-<notebook>` of the runs of a row of the matrix, `all` for an axis that it lacks."""
    axes = next((kind.over for kind in KINDS if kind.name == notebook), ("model", "split"))
    chosen = models if "model" in axes else ["all"]
    return [f"{model}-{split if 'split' in axes else 'all'}-{notebook}" for model in chosen]


def failure_of_notebook(path: Path) -> str | None:
    """Why an executed notebook must not be shown, or `None` if it ran to its end under papermill."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    papermill = notebook.get("metadata", {}).get("papermill")
    if not papermill:
        return "has no papermill metadata: it was not executed by the study"
    if papermill.get("exception"):
        return "stopped with an exception under papermill"
    for number, cell in enumerate(notebook.get("cells", []), start=1):
        for output in cell.get("outputs", []):
            if output.get("output_type") == "error":
                return f"holds an error output in cell {number}: {output.get('ename', 'unnamed')}"
        if cell.get("metadata", {}).get("papermill", {}).get("exception"):
            return f"stopped with an exception in cell {number}"
    if not papermill.get("end_time"):
        return "was not executed to its end: papermill noted no end time"
    if not any(cell.get("outputs") for cell in notebook.get("cells", [])):
        return "holds no output of any cell"
    return None
