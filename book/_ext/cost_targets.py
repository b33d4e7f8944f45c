"""`results-targets`: what steering was to cost at most, as had been set before it was measured, and what it does."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pandas as pd
from cost_directive import CostDirective, blocks_text, models_of, name_of, rows_of
from docutils import nodes
from results_directives import options
from results_nodes import below, table_node, text_cell
from results_reader import Results

MET, MISSED, UNTOLD, NOISE = "met", "missed", "not told", "in noise"
OWN = "eraser (constant)"
"""The form of ours that does what the libraries do."""


@dataclass(frozen=True)
class Target:
    """A bound of one ratio, for each number of steered blocks.

    `bound` takes the number of steered blocks and the depth of the model. `noise`: it is enough that the interval
    reaches the bound, as for what is to be no slower beyond noise; of others the whole interval must keep it. `bytes`:
    the bound is of the measured value, not of its ratio. `batch` of `None`: any.
    """

    name: str
    phase: str
    method: str
    bound: Callable[[int, int], float]
    batch: int | None = None
    reference: str = "unsteered"
    noise: bool = False
    bytes: bool = False


def opened(layers: int, depth: int) -> float:
    """A prefill of an opened batch: a second one up to the block that the gate reads (`benchmarks.rivals`)."""
    decision = max(layers - 1, 3 * depth // 4)
    return 1 + (decision + 1) / depth + 0.02


def fixed(bound: float) -> Callable[[int, int], float]:
    """The same bound whatever is steered."""
    return lambda layers, depth: bound


NO_LIBRARY = ("unsteered", "bare hook", "dense, last token", "dense, every token")
PEER = "*"
"""As reference: the fastest of the libraries that add constant vectors."""
TARGETS = (
    *(
        target
        for batch, least in ((1, 1.03), (32, 1.01))
        for target in (
            Target("prefill, closed gate", "prefill", "eraser", fixed(least), batch),
            Target("prefill, one pass", "prefill", "eraser (one pass)", fixed(least), batch),
            Target("prefill, opened", "prefill", "eraser (opened)", opened, batch),
            Target("prefill, constant, against the fastest library", "prefill", OWN, fixed(1), batch, PEER, noise=True),
            Target("decoding, closed gate", "decode", "eraser", fixed(1), batch, noise=True),
            Target("decoding, opened", "decode", "eraser (opened)", fixed(1), batch, noise=True),
            Target("decoding, constant, against the fastest library", "decode", OWN, fixed(1), batch, PEER, noise=True),
        )
    ),
    Target("fit of one gate, with its forward passes", "fit", "eraser", fixed(1.05), reference="forward passes"),
    Target("stored", "artifact", "eraser", fixed(2e6), reference="dense", bytes=True),
)


class Judged(NamedTuple):
    """One target of one model and number of blocks: what was measured, the bound, and the verdict."""

    value: float
    low: float
    high: float
    bound: float
    verdict: str


def judge(target: Target, rows: pd.DataFrame, layers: int, depth: int) -> Judged | None:
    """`rows` of one model, with the bounds of their ratios; `None` where nothing was measured."""
    own = rows[(rows["phase"] == target.phase) & (rows["method"] == target.method) & (rows["layers"] == layers)]
    own = own[~own["shape"].str.contains("about forgotten people", regex=False)]  # a mean over traffic is no pass
    if target.batch is not None:
        own = own[own["batch"] == target.batch]
    if target.reference == PEER:
        libraries = own[~own["reference"].isin(NO_LIBRARY)]
        own = libraries.nlargest(1, "ratio")  # one measured time against each, so this is against the fastest
    else:
        own = own[own["reference"] == target.reference]
    if own.empty:
        return None
    (row,) = own.to_dict("records")
    bound = target.bound(layers, depth)
    value = row["value"] if target.bytes else row["ratio"]
    low, high = (row.get(f"ratio_{end}", math.nan) for end in ("low", "high"))
    if target.bytes or math.isnan(low):
        return Judged(value, math.nan, math.nan, bound, MET if value <= bound else MISSED)
    if high <= bound:
        verdict = MET
    else:
        verdict = MISSED if low > bound else NOISE if target.noise else UNTOLD
    return Judged(value, low, high, bound, verdict)


class ResultsTargets(CostDirective):
    """`results-targets`: targets by model and number of steered blocks, each with its verdict.

    `machine`: a part of the name of the machine; `models`: which, in order.
    """

    option_spec: ClassVar[Any] = options("machine", "models")

    def show(self, results: Results) -> list[nodes.Node]:
        """Caption, table, and how many are met."""
        table, manifest = self.costs()
        table = table[table["machine"].str.contains(self.options["machine"], regex=False)]
        columns: dict[tuple[str, int], pd.DataFrame] = {}
        for model in models_of(self.options):
            rows, _ = rows_of(table, manifest, model)
            columns |= {(model, layers): rows for layers in sorted(rows["layers"].unique().tolist()) if layers}
        head, body, verdicts = targets_table(columns)
        counts = Counter(verdicts)
        said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (MET, NOISE, UNTOLD, MISSED))
        source = nodes.paragraph("", f"{said}. Source: results/cost.csv.", classes=["provenance-line"])
        return [self.caption(), table_node(head, body), source]


def targets_table(
    columns: Mapping[tuple[str, int], pd.DataFrame],
) -> tuple[list[list[tuple[str, int]]], list[list[nodes.Node]], list[str]]:
    """Head and body of the table, and all verdicts in it. `columns`: model and number of steered blocks -> all rows of
    the model. What was measured in no column is left out."""
    depths = {model: int(rows["layers"].max()) for (model, _), rows in columns.items()}
    found = {
        target: [judge(target, rows, layers, depths[model]) for (model, layers), rows in columns.items()]
        for target in TARGETS
    }
    kept = {target: cells for target, cells in found.items() if any(cells)}
    shown = [n for n in range(len(columns)) if any(cells[n] for cells in kept.values())]
    names = [list(columns)[n] for n in shown]
    models = [model for model, _ in names]
    head = [
        [("", 2), *((name_of(model), models.count(model)) for model in dict.fromkeys(models))],
        [("target", 1), ("at most", 1), *((blocks_text(layers, 0), 1) for _, layers in names)],
    ]
    body: list[list[nodes.Node]] = []
    for target, cells in kept.items():
        batch = f", batch {target.batch}" if target.batch else ""
        bounds = sorted({_number(cell.bound, target) for cell in cells if cell})
        bound = " or ".join(bounds) if len(bounds) < 3 else f"{bounds[0]} to {bounds[-1]}"
        body.append([text_cell(target.name + batch), text_cell(bound), *(_cell(cells[n], target) for n in shown)])
    return head, body, [cell.verdict for cells in kept.values() for cell in cells if cell]


def _number(value: float, target: Target) -> str:
    return f"{value / 1e6:.2f} MB" if target.bytes else f"{value:.3f}"


def _cell(found: Judged | None, target: Target) -> nodes.paragraph:
    if found is None:
        return text_cell("")
    paragraph = text_cell(_number(found.value, target) + " ")
    paragraph += (nodes.strong if found.verdict == MISSED else nodes.inline)("", found.verdict)
    if not math.isnan(found.low):
        paragraph += below(f"[{_number(found.low, target)}, {_number(found.high, target)}]")
    return paragraph
