"""The directives `results-table`, `results-figure`, `results-json` and `provenance`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from results_nodes import (
    commit_text,
    grid_node,
    machine_text,
    missing,
    parameters_text,
    record_cell,
    short_provenance,
    table_node,
    text_cell,
)
from results_reader import MissingResult, Results, run_stems
from results_roles import open_results, words
from results_table import build_grid, label, records_frame
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from eraser_lib.tables import METHOD_NAMES

logger = logging.getLogger(__name__)
MODELS = "llava qwen"
REFERENCE = "not rerun but from the committed reference"
"""Said of what a run has copied (`Results.adopted_files`)."""
COMPARING = "07_compare"
"""The notebook that reads the logs of all methods, whoever made them."""
FILTERS = ("model", "split", "method", "seed", "subset", "modality", "task", "metric", "measure")


def options(*names: str) -> dict[str, Any]:
    """An option specification in which every option is a text."""
    return dict.fromkeys(names, directives.unchanged)


class ResultsDirective(SphinxDirective):
    """What all directives share: options, the results folder, and warnings instead of exceptions."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The nodes of the page; on a missing result a warning and a mark."""
        try:
            return self.show(open_results(self.env))
        except MissingResult as error:
            self.warn(str(error))
            return [nodes.paragraph("", "", missing(str(error)))]

    def show(self, results: Results) -> list[nodes.Node]:
        """Makes the nodes; raises `MissingResult`."""
        raise NotImplementedError

    def warn(self, message: str) -> None:
        """A warning with the place in the source; fails a strict build."""
        logger.warning("%s", message, location=self.get_location())

    def stems(self, notebooks: str | None) -> list[str]:
        """The runs of the named notebooks for the models and the splits of this directive."""
        models, splits = words(self.options.get("model", MODELS)), words(self.options.get("split", "5"))
        found = (run_stems(notebook, models, split) for notebook in words(notebooks) for split in splits)
        return list(dict.fromkeys(stem for stems in found for stem in stems))

    def use(self, path: Path) -> None:
        """Rebuild the page when the file changes."""
        self.env.note_dependency(str(path))

    def caption(self) -> nodes.container:
        """The text of the directive."""
        found = nodes.container("", classes=["results-caption"])
        self.state.nested_parse(self.content, self.content_offset, found)
        return found

    def source_line(self, results: Results, what: str, *, methods: Collection[str] | None = ()) -> list[nodes.Node]:
        """The small print under a table or figure: source file, the run or runs it comes from, and what is not rerun.

        `methods`: those that it shows; None for all that there are.
        """
        runs = []
        for stem in self.stems(self.options.get("notebook")):
            self.use(results.root / "manifests" / f"{stem}.json")
            again = "" if results.ran(stem) else f", {REFERENCE}"
            try:
                runs.append(f"{stem} ({short_provenance(results.manifest(stem))}{again})")
            except MissingResult as error:
                self.warn(str(error))
        models, splits = words(self.options.get("model", MODELS)), words(self.options.get("split", "5"))
        taken = {
            method
            for model, split, method in results.adopted
            if split in splits and (model in models or models == ["all"])
        }
        adopted = [label(name) for name in METHOD_NAMES if name in taken and (methods is None or name in methods)]
        where = f"; {REFERENCE}: {', '.join(adopted)}" if adopted else ""
        text = f"Source: {what}{where}." + (f" Run: {'; '.join(runs)}." if runs else "")
        return [nodes.paragraph("", text, classes=["provenance-line"])]


class ResultsTable(ResultsDirective):
    """`results-table`: a pivot of `summary.csv` with 95 % intervals and numbers of questions."""

    option_spec: ClassVar[Any] = options(*FILTERS, "rows", "columns", "may-miss", "better", "notebook", "digits")

    def show(self, results: Results) -> list[nodes.Node]:
        """Caption, table and source line."""
        self.use(results.summary_path)
        filters = {"model": MODELS, "split": "5"}
        filters |= {k: v for k, v in self.options.items() if k in FILTERS}
        grid = build_grid(
            results,
            filters={name: words(value) for name, value in filters.items()},
            rows=words(self.options.get("rows", "method")),
            columns=words(self.options.get("columns", "model subset")),
            may_miss=words(self.options.get("may-miss")),
            better=self.options.get("better", "auto"),
        )
        for name in grid.missing:
            self.warn(f"{results.summary_path} has no row for the table cell {name}")
        found = [cell.measured.value for row in grid.cells for cell in row if cell.measured]
        if found and all(value is None for value in found):
            raise MissingResult(f"{results.summary_path} has rows for this table and not one value")
        caption = self.caption()
        digits = int(self.options.get("digits", "3"))
        shown = {value for key in (*grid.rows, *grid.columns) for value in key}
        source = self.source_line(results, "summary.csv", methods=shown)
        return [caption, grid_node(grid, digits), *source]


class ResultsFigure(ResultsDirective):
    """`results-figure`: the picture of that name for each model, side by side or (`:stack:`) stacked."""

    option_spec: ClassVar[Any] = {
        **options("model", "split", "notebook", "alt"),
        "stack": directives.flag,
    }

    def show(self, results: Results) -> list[nodes.Node]:
        """Pictures, caption and source line."""
        name = self.arguments[0].strip()
        row = nodes.container("", classes=["results-figures", *(["stacked"] if "stack" in self.options else [])])
        for model in words(self.options.get("model", MODELS)):
            path = results.figure(model, name)
            self.use(path)
            uri = "/" + path.relative_to(self.env.srcdir).as_posix()
            alt = self.options.get("alt", f"{name.replace('_', ' ')}, {label(model)}")
            # Pictures have an opaque white ground: the class keeps the dark theme from dimming them.
            image = nodes.image(uri=uri, alt=alt, classes=["dark-light", "results-image"])
            image["candidates"] = {"*": uri}
            caption = label(model) if model != "all" else ""
            row += nodes.container("", nodes.paragraph("", caption, classes=["figure-model"]), image)
        caption = self.caption()
        # a picture does not say whose lines it has
        methods = None if COMPARING in words(self.options.get("notebook")) else ()
        return [row, caption, *self.source_line(results, f"figures/<model>/{name}", methods=methods)]


class ResultsJson(ResultsDirective):
    """`results-json`: the numbers behind a figure as a table, one row per model and record, intervals below values.

    `apart` gives each model a table of its own, for tables that a column for its name would make too wide. With
    `pivot: COLUMN` there are two `columns`: one that names the rows, and one whose values stand in the cells, below a
    head of the values of COLUMN.
    """

    option_spec: ClassVar[Any] = options(
        "model", "split", "notebook", "key", "columns", "digits", "first", "apart", "pivot"
    )  # fmt: skip

    def show(self, results: Results) -> list[nodes.Node]:
        """Caption, table and source line."""
        name, body, head, dropped = self.arguments[0].strip(), [], [], 0
        methods: set[str] = set()
        tables: list[nodes.Node] = []
        digits = int(self.options.get("digits", "3"))
        for model in words(self.options.get("model", MODELS)):
            self.use(results.root / "figures" / model / f"{name}.json")
            frame = records_frame(results.figure_data(model, name, self.options.get("key", "")))
            for column in {"method", "baseline"} & set(frame.columns):
                methods |= set(map(str, frame[column]))
            chosen = words(self.options.get("columns")) or list(frame.columns)
            pivot = self.options.get("pivot", "").strip()
            if absent := [column for column in (*chosen, pivot) if column and column not in frame.columns]:
                raise MissingResult(f"figures/{model}/{name}.json has no {', '.join(absent)}")
            # one table for both needs no column that says so
            whose = [] if model == "all" or "apart" in self.options else [label(model)]
            first = int(self.options.get("first", len(frame)))
            dropped += max(0, len(frame) - first)
            records = frame.head(first).to_dict("records")
            if pivot:
                heads, rows = pivoted(records, pivot, *chosen, digits=digits)
            else:
                heads = [str(column).removesuffix("_bytes").replace("_", " ") for column in chosen]
                rows = [[record_cell(column, record, digits) for column in chosen] for record in records]
            head = [*(("model", 1) for _ in whose), *((text, 1) for text in heads)]
            body += [[*map(text_cell, whose), *row] for row in rows]
            if "apart" in self.options:
                tables += [nodes.paragraph("", "", nodes.strong("", label(model))), table_node([head], body)]
                body = []
        caption = self.caption()
        if dropped:
            caption += nodes.paragraph("", f"Not shown: {dropped} further rows of the file.")
        return [
            caption,
            *(tables or [table_node([head], body)]),
            *self.source_line(results, f"figures/<model>/{name}.json", methods=methods),
        ]


def pivoted(
    records: Sequence[dict[Any, Any]], pivot: str, row: str, cell: str, *, digits: int
) -> tuple[list[str], list[list[nodes.Node]]]:
    """Heads and cells of a grid: a row for each value of `row`, a column for each of `pivot`, `cell` within."""
    columns = list(dict.fromkeys(record[pivot] for record in records))
    found = {(record[row], record[pivot]): record for record in records}
    rows = [
        [
            record_cell(row, {row: name}, digits),
            *(record_cell(cell, found[name, column], digits) if (name, column) in found else text_cell("–")
              for column in columns),
        ]
        for name in dict.fromkeys(record[row] for record in records)
    ]  # fmt: skip
    return [row.replace("_", " "), *map(str, columns)], rows


class Explorer(ResultsDirective):
    """`results-explorer`: a file of the run inlined as JSON for the script of the page, which loads nothing."""

    option_spec: ClassVar[Any] = options("notebook", "model", "split")

    def show(self, results: Results) -> list[nodes.Node]:
        """The place where the script draws, the data and the script."""
        name = self.arguments[0].strip()
        self.use(results.root / "figures" / "all" / f"{name}.json")
        text = json.dumps(results.figure_data("all", name), separators=(",", ":")).replace("</", "<\\/")
        up = "../" * self.env.docname.count("/")
        html = (
            f'<div id="{name}-app"><noscript>This part of the page needs JavaScript.</noscript></div>\n'
            f'<script type="application/json" id="{name}-data">{text}</script>\n'
            f'<script src="{up}_static/{name}.js" defer></script>'
        )
        source = self.source_line(results, f"figures/all/{name}.json", methods=None)
        return [nodes.raw("", html, format="html"), *source]


class Provenance(ResultsDirective):
    """`provenance`: the manifests of the named notebooks: parameters, commit, machine, seconds, memory."""

    option_spec: ClassVar[Any] = options("model", "split")

    def show(self, results: Results) -> list[nodes.Node]:
        """A table with one row per run."""
        head = ["run", "parameters", "commit", "machine", "seconds", "peak memory", "made"]
        body: list[list[nodes.Node]] = []
        for stem in self.stems(self.arguments[0]):
            self.use(results.root / "manifests" / f"{stem}.json")
            manifest = results.manifest(stem)
            short_provenance(manifest)
            peak = manifest.get("peak_memory_bytes")
            cells = [
                stem if results.ran(stem) else f"{stem} ({REFERENCE})",
                parameters_text(manifest),
                commit_text(manifest),
                machine_text(manifest),
                f"{float(manifest['seconds']):.0f}",
                "not measured" if peak is None else f"{peak / 2**20:.0f} MiB",
                str(manifest["created"]),
            ]
            body.append([text_cell(cell) for cell in cells])
        return [table_node([[(text, 1) for text in head]], body)]
