"""What `benchmarks/` measured: `results-cost`, ratios and values of `results/cost.csv`, and `results-profile`, what
steering adds to each kind of operation, of `results/cost_profile.csv`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from results_directives import ResultsDirective, options
from results_nodes import commit_text, machine_text, table_node, text_cell
from results_reader import MissingResult, Results

KEYS = ["shape", "method", "layers", "batch", "phase", "reference"]
NAMES = {
    "tiny-llava": "tiny LLaVA-1.5", "tiny-qwen": "tiny Qwen2.5-VL", "llava-hf/llava-1.5-7b-hf": "LLaVA-1.5-7B",
    "Qwen/Qwen2.5-VL-7B-Instruct": "Qwen2.5-VL-7B",
}  # fmt: skip


def name_of(model: str) -> str:
    """A model of the table in words, with what is said after its name (`, 2 blocks`)."""
    name, comma, rest = model.partition(",")
    return NAMES.get(name, name) + comma + rest


class CostDirective(ResultsDirective):
    """What the tables of costs share: their file, which lies beside the reference whichever run the book shows."""

    def costs(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        """`results/cost.csv` and its manifest, by machine and model."""
        folder = Path(self.env.srcdir) / "results"
        table, manifest = folder / "cost.csv", folder / "cost.json"
        if not table.is_file() or not manifest.is_file():
            raise MissingResult(f"{table} or its manifest cost.json; run python -m benchmarks.cost")
        self.use(table)
        self.use(manifest)
        return pd.read_csv(table), json.loads(manifest.read_text())


def models_of(options: Mapping[str, str]) -> list[str]:
    """The models that a table is about, in order."""
    return options.get("models", "tiny-llava; tiny-qwen").split("; ")


def rows_of(table: pd.DataFrame, manifest: Mapping[str, Any], model: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of a model, with the bounds of their ratios `ratio_low` and `ratio_high`, and its entry of the manifest
    with the machine's `name`. `MissingResult` where there are none, or those of several machines."""
    own = table[table["model"] == model]
    if own.empty:
        raise MissingResult(f"results/cost.csv has no such rows for {model}")
    if own["machine"].nunique() > 1:
        raise MissingResult(f"results/cost.csv has {model} on several machines; name one by :machine:")
    machine = own["machine"].iloc[0]
    entry = {**manifest[machine][model], "name": machine}
    bounds = pd.DataFrame(entry["intervals"])
    return own.merge(bounds, on=KEYS, how="left") if len(bounds) else own, entry


class ResultsCost(CostDirective):
    """`results-cost`: one phase as a table, methods by model, blocks and batch.

    The argument is the phase. `models`: which, in order; `machine`: a part of the machine's name, where several were
    measured; `batch`: only this size; `reference`: what the ratios are of, `*` for any; `methods`: only these,
    separated by semicolons. With `shapes: rows` the rows are shapes, the columns methods, and the cells the measured
    values; with `shapes: ratios` rows are the shapes of one method that say what share of the prompts is about
    forgotten people.
    """

    option_spec: ClassVar[Any] = options("models", "machine", "batch", "reference", "methods", "shapes", "digits")

    def show(self, results: Results) -> list[nodes.Node]:
        """Caption, table and the runs that measured it, with their versions."""
        rows, measured = self._rows(*self.costs())
        records, digits = rows.to_dict("records"), int(self.options.get("digits", "2"))
        shapes = self.options.get("shapes")
        if shapes == "ratios":
            head, body = _ratios([row for row in records if "about forgotten people" in row["shape"]], "shape", digits)
        else:
            head, body = _values(records, digits) if shapes == "rows" else _ratios(records, "method", digits)
        caption = self.caption()
        small = "; ".join(
            f"{name}: {_device(found)}, torch "
            f"{found['packages']['torch']}, transformers {found['packages']['transformers']}, "
            f"commit {commit_text(found)}"
            for name, found in measured
        )
        source = nodes.paragraph("", f"Source: results/cost.csv. Run: {small}.", classes=["provenance-line"])
        return [caption, table_node(head, body), source]

    def _rows(
        self, table: pd.DataFrame, manifest: dict[str, Any]
    ) -> tuple[pd.DataFrame, list[tuple[str, dict[str, Any]]]]:
        """The chosen rows with the bounds of their ratios, and the runs that measured them, each with the model's name
        (and the columns, where a model's come from several)."""
        phase, reference = self.arguments[0].strip(), self.options.get("reference", "unsteered")
        table = table[(table["phase"] == phase) & ((table["reference"] == reference) | (reference == "*"))]
        if machine := self.options.get("machine"):
            table = table[table["machine"].str.contains(machine, regex=False)]
        if batch := self.options.get("batch"):
            table = table[table["batch"] == int(batch)]
        parts, entries = [], {}
        for model in models_of(self.options):
            if not (table["model"] == model).any():
                raise MissingResult(f"results/cost.csv has no rows of phase {phase} for {model} against {reference}")
            own, entries[model] = rows_of(table, manifest, model)
            parts.append(own)
        # a measurement that ran out of time begins with the ends, a table with the fewest blocks
        rows = pd.concat([part.sort_values(["batch", "layers"], kind="stable") for part in parts])
        if chosen := self.options.get("methods"):
            order = [name.strip() for name in chosen.split(";")]
            rows = rows[rows["method"].isin(order)].sort_values(
                "method", key=lambda m: m.map(order.index), kind="stable"
            )
        if not self.options.get("shapes"):
            rows = rows.drop_duplicates(["model", "method", "layers", "batch"])
        measured = []
        for model, entry in entries.items():
            found = runs(entry, rows[rows["model"] == model])
            for run, columns in found:
                which = ", ".join(blocks_text(layers, batch).replace(",", " at") for layers, batch in columns)
                name = name_of(model) + (f" ({which})" if len(found) > 1 else "")
                measured.append((name, {**run, "name": entry["name"]}))
        return rows, measured


def runs(entry: Mapping[str, Any], rows: pd.DataFrame) -> list[tuple[Mapping[str, Any], list[tuple[int, int]]]]:
    """The runs of one model that measured some of these rows, each with their blocks and batches `(layers, batch)`.

    `entry`: of the manifest `results/cost.json`, where the latest run is the entry itself and others are `earlier`.
    """
    found = []
    wanted = dict.fromkeys(zip(rows["phase"], rows["layers"], rows["batch"], strict=True))
    for run in (*entry.get("earlier", []), entry):
        own = {(one["phase"], one["layers"], one["batch"]) for one in run["measured"]}
        if columns := [(layers, batch) for phase, layers, batch in wanted if (phase, layers, batch) in own]:
            found.append((run, columns))
    if sum(len(columns) for _, columns in found) != len(wanted):
        raise MissingResult("results/cost.json does not say for every row of results/cost.csv which run measured it")
    return found


class ResultsProfile(ResultsDirective):
    """`results-profile`: how much longer each kind of operation takes under steering, in milliseconds of a pass.

    The argument is the model. `layers`: number of steered blocks; `batch`: of how many prompts, 32 if not said;
    `phase`: `decode`, for a step, in the place of a prefill; `machine`: a part of the machine's name, where several
    were measured; `methods`: only these, separated by semicolons; `least`: milliseconds below which operations are put
    together; `calls`: show beside the milliseconds how many operations more there are.
    """

    option_spec: ClassVar[Any] = {
        **options("layers", "batch", "phase", "machine", "methods", "least"),
        "calls": directives.flag,
    }

    def show(self, results: Results) -> list[nodes.Node]:
        """Caption, table and the machine."""
        path = Path(self.env.srcdir) / "results" / "cost_profile.csv"
        if not path.is_file():
            raise MissingResult(f"{path} is missing; run python -m benchmarks.cost --part profile")
        self.use(path)
        model, layers, least = self.arguments[0].strip(), int(self.options["layers"]), float(self.options["least"])
        table = pd.read_csv(path)
        batch = int(self.options.get("batch", "32"))
        table = table[(table["model"] == model) & (table["layers"] == layers) & (table["batch"] == batch)]
        table = table[table["phase"] == self.options.get("phase", "prefill")]
        table = table[table["machine"].str.contains(self.options.get("machine", ""), regex=False)]
        methods = [name.strip() for name in self.options["methods"].split(";")]
        missing = [name for name in methods if name not in set(table["method"])]
        if missing:
            where = f"{model} with {layers} blocks at batch {batch}"
            raise MissingResult(f"{path.name} has no rows of {where} for {', '.join(missing)}")
        if table["machine"].nunique() > 1:
            raise MissingResult(f"{path.name} has {model} on several machines; name one by :machine:")
        cells = table.assign(more=1e3 * table["more_seconds"]).pivot_table(
            index="operation", columns="method", values=["more", "more_calls"], fill_value=0.0
        )
        total, parts = cells.loc["all"], cells.drop(index="all")
        more = parts["more"][methods]
        large = parts.loc[more[more.abs().max(axis=1) >= least].sort_values(methods[0], ascending=False).index]
        (plain,) = table[(table["method"] == "unsteered") & (table["operation"] == "all")].to_dict("records")
        shown = {**large.T.to_dict("series"), "everything else": total - large.sum(), "all": total}
        head = [[("operation", 1), *((method, 1) for method in methods)]]
        digits, counted = 1 + (least < 1), "calls" in self.options
        body = [
            [text_cell(name.removeprefix("aten::"))]
            + [
                text_cell(f"{row['more', m]:+.{digits}f}" + f" ({row['more_calls', m]:+.0f})" * counted)
                for m in methods
            ]
            for name, row in shown.items()
        ]
        (commit,) = table["commit"].fillna("").unique()
        about = f"Source: results/cost_profile.csv, {table['machine'].iloc[0]}, batch {batch}"
        about += f", commit {commit_text({'git_commit': commit, 'git_dirty': False})}. " if commit else ". "
        about += f"All operations of an unsteered pass: {1e3 * plain['seconds']:.{digits - 1}f} ms"
        about += f", {plain['calls']:.0f} operations." if counted else "."
        return [self.caption(), table_node(head, body), nodes.paragraph("", about, classes=["provenance-line"])]


def _device(found: Mapping[str, Any]) -> str:
    """What was measured on: a GPU and the machine around it, or a processor with its threads."""
    if str(found["device"]).startswith("cuda"):
        return f"{found['name']} in {machine_text({**found, 'device': 'one GPU'})}"
    return f"{machine_text(dict(found))}, {found['threads']} thread{'s' * (found['threads'] > 1)}"


Row = Mapping[Any, Any]
Head = list[list[tuple[str, int]]]


def _ratios(rows: Sequence[Row], by: str, digits: int) -> tuple[Head, list[list[nodes.Node]]]:
    """Methods, or shapes, by model, blocks and batch: ratios."""
    columns = list(dict.fromkeys((row["model"], row["layers"], row["batch"]) for row in rows))
    named = list(dict.fromkeys(model for model, *_ in columns))
    columns.sort(key=lambda column: named.index(column[0]))  # a method may lack the columns that another one has
    cells = {(row[by], row["model"], row["layers"], row["batch"]): _ratio(row, digits) for row in rows}
    models = [model for model, *_ in columns]
    head = [
        [("", 1), *((name_of(model), models.count(model)) for model in named)],
        [(by, 1), *((blocks_text(layers, batch), 1) for _, layers, batch in columns)],
    ]
    names = dict.fromkeys(row[by] for row in rows)
    return head, [
        [text_cell(name), *(text_cell(cells.get((name, *column), "")) for column in columns)] for name in names
    ]


def _values(rows: Sequence[Row], digits: int) -> tuple[Head, list[list[nodes.Node]]]:
    """Shapes by method: what was measured, with its unit."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["shape"], row["method"]): f"{row['value']:.{digits}f} {row['unit']}" for row in rows}
    return [[("shape", 1), *((method, 1) for method in methods)]], [
        [text_cell(shape), *(text_cell(cells.get((shape, method), "")) for method in methods)]
        for shape in dict.fromkeys(row["shape"] for row in rows)
    ]


def _ratio(row: Row, digits: int) -> str:
    low, high = row.get("ratio_low"), row.get("ratio_high")
    interval = "" if low is None or low != low else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{row['ratio']:.{digits}f}{interval}"


def blocks_text(layers: int, batch: int) -> str:
    """A column in words; a batch of 0 is none."""
    return f"{layers} block{'s' * (layers > 1)}" + (f", batch {batch}" if batch else "")
