"""Docutils nodes of the book's tables, and the words in which a run's provenance is printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from docutils import nodes
from results_reader import MissingResult
from results_table import Cell, Grid, label

ABSENT = "–"
"""In tables of records, where a record says nothing under a head."""
MEASURED = ("value", "difference", "auc")
"""Columns that `ci_low` and `ci_high` of a record belong to."""
MANIFEST_KEYS = ("notebook", "parameters", "git_commit", "device", "machine", "seconds", "created")


def short_provenance(manifest: dict[str, Any]) -> str:
    """Parameters, commit, machine and seconds of a run in one line; raises `MissingResult` on a gap."""
    if absent := [key for key in MANIFEST_KEYS if key not in manifest]:
        raise MissingResult(f"the manifest of {manifest.get('notebook', 'a run')} lacks {', '.join(absent)}")
    return (
        f"{parameters_text(manifest)}; commit {commit_text(manifest)}; {machine_text(manifest)}; "
        f"{float(manifest['seconds']):.0f} s"
    )


def parameters_text(manifest: dict[str, Any]) -> str:
    """The parameters of a run; where it was written to is none that matters."""
    return ", ".join(f"{name}={value}" for name, value in manifest["parameters"].items() if name != "out")


def commit_text(manifest: dict[str, Any]) -> str:
    """Ten digits of the commit, whether the tree had uncommitted changes, and the commit that confirmed the result."""
    if not manifest["git_commit"]:
        return "not recorded"
    confirmed = manifest.get("confirmed")
    return (
        str(manifest["git_commit"])[:10]
        + (" with uncommitted changes" if manifest.get("git_dirty") else "")
        + (f", confirmed at {str(confirmed['git_commit'])[:10]}" if confirmed else "")
    )


def machine_text(manifest: dict[str, Any]) -> str:
    """Processor, cores and system, then the device that the tensors were on."""
    machine = manifest["machine"]
    if isinstance(machine, dict):
        cores = f"{machine['cores']} cores" if machine.get("cores") else ""
        system = " ".join(str(machine[key]) for key in ("system", "architecture") if machine.get(key))
        machine = ", ".join(part for part in (str(machine.get("cpu") or ""), cores, system) if part)
    return f"{machine}, {manifest['device']}"


def text_of(value: Any, digits: int = 3) -> str:
    """A JSON or table value as it is printed."""
    if value is None:
        return "not applicable"
    if isinstance(value, float):
        if math.isinf(value):
            return "infinite"
        if value != value:
            return "not applicable"
        if abs(value) >= 10 and value.is_integer():
            return f"{value:.0f}"  # a count that a table holds as a float
        # what would be rounded to nothing, such as a rate of learning, keeps its first digit
        return f"{value:.1g}" if 0 < abs(value) < 0.5 * 10.0**-digits else f"{value:.{digits}f}"
    return str(value)


def bytes_text(value: Any) -> str:
    """A number of bytes in the unit that leaves few digits."""
    if value is None or value != value:
        return ABSENT
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def record_cell(column: str, record: Mapping[Any, Any], digits: int) -> nodes.paragraph:
    """A cell of a record, with the interval of `<column>_low` and `<column>_high`, where it has them, below."""
    value = record[column]
    if column in ("model", "method", "baseline"):
        return text_cell(label(str(value)))
    if column.endswith("_bytes"):
        return text_cell(bytes_text(value))
    if value is None or value != value:
        return text_cell(ABSENT)
    paragraph = text_cell(text_of(value, digits))
    low, high = (record.get(f"{column}_{end}", record.get(f"ci_{end}")) for end in ("low", "high"))
    own = f"{column}_low" in record or column in MEASURED
    if own and None not in (low, high) and low == low and high == high:
        interval = f"[{text_of(low, digits)}, {text_of(high, digits)}]"
        paragraph += below(interval)
    return paragraph


def below(text: str) -> list[nodes.Node]:
    """Small print on a line of its own below the value of a cell."""
    return [nodes.Text(" "), nodes.inline("", text, classes=["interval"])]


def missing(message: str) -> nodes.Element:
    """The visible mark in place of something that does not exist."""
    return nodes.inline("", f"missing: {message}", classes=["missing-result"])


def table_node(head: Sequence[Sequence[tuple[str, int]]], body: Sequence[Sequence[nodes.Node]]) -> nodes.container:
    """A docutils table; `head` holds rows of (text, number of columns that it spans)."""
    width = sum(span for _, span in head[0])
    group = nodes.tgroup(cols=width)
    group += [nodes.colspec(colwidth=1) for _ in range(width)]
    thead, tbody = nodes.thead(), nodes.tbody()
    for line in head:
        row = nodes.row()
        for text, span in line:
            row += nodes.entry("", nodes.paragraph("", text), **({"morecols": span - 1} if span > 1 else {}))
        thead += row
    for cells in body:
        row = nodes.row()
        row += [nodes.entry("", cell) for cell in cells]
        tbody += row
    group += [thead, tbody]
    return nodes.container("", nodes.table("", group, classes=["results-table"]), classes=["results-scroll"])


def text_cell(text: str) -> nodes.paragraph:
    """A cell that holds plain text."""
    return nodes.paragraph("", text)


def grid_node(grid: Grid, digits: int) -> nodes.container:
    """The table of a grid; numbers of questions stand in the head where a whole column shares them."""
    head: list[list[tuple[str, int]]] = []
    for level, name in enumerate(grid.column_names):
        corner = [(" / ".join(grid.row_names) if level == len(grid.column_names) - 1 else "", len(grid.row_names))]
        line: list[tuple[str, int]] = []
        previous: tuple[str, ...] | None = None
        for key in grid.columns:
            if previous == key[: level + 1]:
                line[-1] = (line[-1][0], line[-1][1] + 1)
            else:
                line.append((_heading(name, key[level]), 1))
            previous = key[: level + 1]
        head.append(corner + line)
    # what is not applicable was asked for a sample only, which says nothing about the others
    counts = [
        {c.measured.n for row in grid.cells if (c := row[j]).measured and c.measured.value is not None}
        for j in range(len(grid.columns))
    ]
    shared = all(len(found) == 1 for found in counts)
    if shared:
        head.append([("questions", len(grid.row_names)), *((f"n = {next(iter(found))}", 1) for found in counts)])
    body = [
        [
            *(text_cell(_heading(name, part)) for name, part in zip(grid.row_names, key, strict=True)),
            *(cell_node(cell, digits, not shared) for cell in row),
        ]
        for key, row in zip(grid.rows, grid.cells, strict=True)
    ]
    return table_node(head, body)


def _heading(name: str, value: str) -> str:
    """A value of a column of the summary as rows and columns of a table are called; a split is a share."""
    return f"{value} %" if name == "split" else label(value)


def cell_node(cell: Cell, digits: int, with_n: bool) -> nodes.paragraph:
    """Value, interval below it, and the number of questions where the column head cannot say it."""
    if cell.measured is None:
        return nodes.paragraph("", "", nodes.emphasis("", "not run"))
    value, interval = cell.measured.compact(digits)
    paragraph = nodes.paragraph("", "", (nodes.strong if cell.bold else nodes.inline)("", value))
    if interval:
        paragraph += below(interval)
    if with_n and cell.measured.value is not None:
        paragraph += below(f"n = {cell.measured.n}")
    return paragraph
