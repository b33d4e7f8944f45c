"""Comparison tables in the shape of the paper's, from the tidy summary. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import pandas as pd
from pandas.io.formats.style import Styler

METHOD_NAMES: dict[str, str] = {
    "vanilla": "Vanilla",
    "retain_only": "Retain-only",
    "prompt": "Prompting",
    "prompt_oracle": "Prompting (people named)",
    "detector": "Detector and refusal",
    "constant": "Constant steering",
    "leace": "LEACE",
    "ga": "GA",
    "ga_diff": "GA_Diff",
    "kl_min": "KL_Min",
    "npo": "NPO",
    "idk": "IdkNLL (PO)",
    "undial": "UNDIAL",
    "rmu": "RMU",
    "mmunlearner": "MMUnlearner",
    "manu": "MANU",
    "mllmeraser_published": "MLLMEraser (as published)",
    "mllmeraser": "MLLMEraser (corrected)",
    "mllmeraser_quadratic": "MLLMEraser (quadratic gate)",
}
MODEL_NAMES: dict[str, str] = {"llava": "LLaVA", "qwen": "Qwen2.5-VL"}
LABELS: dict[str, str] = {
    "vqa": "VQA", "qa": "QA", "classification": "class.", "cloze": "cloze", "generation": "gen.",
    "same_photo": "same photo",
}  # fmt: skip
REFERENCES: tuple[str, ...] = ("vanilla", "retain_only")
"""Rows that show what is reachable; they take no part in the contest for the best value."""
PRIMARY: dict[str, str] = {"classification": "accuracy", "cloze": "accuracy", "generation": "fact_recall"}
PAPER: dict[str, str] = {"classification": "accuracy", "cloze": "accuracy", "generation": "rouge_l"}
PROBABILITY: dict[str, str] = dict.fromkeys(("classification", "cloze", "generation"), "answer_prob")

_FORGOTTEN = ("forget", "test", "dev")
_KEPT = ("retain", "celebrity", "benign", "general", "same_photo")
Direction = Literal["up", "down", "none"]
_ARROWS: dict[Direction, str] = {"up": " \u2191", "down": " \u2193", "none": ""}


def direction(subset: str, metric: str) -> Direction:
    """Whether a good method has this metric high (`up`) or low (`down`) on this subset."""
    if metric in ("gibberish_rate", "truth_ratio_ks", "loss", "answer_prob_loss"):
        return "down"
    refused = metric in ("refusal_rate", "fluent_refusal_rate", "opened_rate", "gate_value", "wrong_share")
    if subset in _FORGOTTEN:
        return "up" if refused else "down"
    if subset in _KEPT:
        return "down" if refused else "up"
    return "up" if subset == "forbidden" and "refusal" in metric else "none"


@dataclass(frozen=True)
class Comparison:
    """Methods in rows; model, subset, modality and task in the four levels of the columns."""

    value: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    metrics: Mapping[str, str]
    """Task -> metric shown."""

    def best(self) -> pd.DataFrame:
        """True where a method is the best of its column and its interval touches no other method's.

        References take no part. Intervals that touch leave the column without a winner.
        """
        found = pd.DataFrame(False, index=self.value.index, columns=self.value.columns)
        for number, (_, subset, _, task) in enumerate(_keys(self.value)):
            way = direction(subset, self.metrics[task])
            rows = [
                (row, float(low), float(high))
                for row, (name, low, high) in enumerate(
                    zip(self.value.index, self.low.iloc[:, number], self.high.iloc[:, number], strict=True)
                )
                if name not in REFERENCES and not pd.isna(low)
            ]
            if way == "none" or len(rows) < 2:
                continue
            if way == "up":  # turn "high is good" into "low is good"
                rows = [(row, -high, -low) for row, low, high in rows]
            winner, *others = sorted(rows, key=lambda row: row[2])
            if all(low > winner[2] for _, low, _ in others):
                found.iloc[winner[0], number] = True
        return found

    def text(self, *, digits: int = 2, bold: str = "{}", interval: str = " [{}, {}]") -> pd.DataFrame:
        """The table as text cells: `value [low, high]`, with readable row and column names.

        Args:
            digits: decimals.
            bold: template for a best value, e.g. `**{}**`.
            interval: template for the two ends.
        """

        def cell(value: float, low: float, high: float, best: bool) -> str:
            if math.isnan(value):
                return "\u2013"
            shown = f"{value:.{digits}f}"
            return (bold.format(shown) if best else shown) + interval.format(f"{low:.{digits}f}", f"{high:.{digits}f}")

        layers = [frame.to_numpy().tolist() for frame in (self.value, self.low, self.high, self.best())]
        rows = [[cell(*ends) for ends in zip(*row, strict=True)] for row in zip(*layers, strict=True)]
        return pd.DataFrame(
            rows, index=[METHOD_NAMES.get(name, name) for name in self.value.index], columns=self._headers()
        )

    def markdown(self, *, digits: int = 2) -> str:
        """A Markdown table; best values in bold, header cells as `subset, modality task`."""
        text = self.text(digits=digits, bold="**{}**")
        several = len({model for model, *_ in _keys(text)}) > 1
        heads = [_flat(column, several=several) for column in _keys(text)]
        lines = [
            "| Method | " + " | ".join(heads) + " |",
            "|:--|" + "--:|" * len(heads),
            *(f"| {name} | " + " | ".join(row) + " |" for name, row in zip(text.index, text.to_numpy(), strict=True)),
        ]
        return "\n".join(lines) + "\n"

    def html(self, *, digits: int = 2, caption: str = "") -> str:
        """An HTML table without scripts: nested headers, values over small intervals, best values strong."""
        text = self.text(digits=digits, bold="<strong>{}</strong>", interval='<br><small class="ci">{}\u2013{}</small>')
        spans = [_spans([column[: level + 1] for column in _keys(text)]) for level in range(4)]
        head = "".join(
            f"<tr>{'<th rowspan=4 scope=col>Method</th>' if level == 0 else ''}"
            + "".join(f'<th colspan="{width}" scope="col">{escape(key[level])}</th>' for key, width in row)
            + "</tr>"
            for level, row in enumerate(spans)
        )
        body = "".join(
            f'<tr><th scope="row">{escape(str(name))}</th>' + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
            for name, row in zip(text.index, text.to_numpy(), strict=True)
        )
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        return f'<table class="comparison">{title}<thead>{head}</thead><tbody>{body}</tbody></table>'

    def styler(self, *, digits: int = 2) -> Styler:
        """The text table as a pandas `Styler` (needs jinja2), best values in bold weight."""
        text = self.text(digits=digits)
        marks = self.best().to_numpy()
        css = pd.DataFrame(
            [["font-weight: bold" if mark else "" for mark in row] for row in marks],
            index=text.index,
            columns=text.columns,
        )
        return text.style.apply(lambda _: css, axis=None)

    def _headers(self) -> pd.MultiIndex:
        found = []
        for model, subset, modality, task in _keys(self.value):
            arrow = _ARROWS[direction(subset, self.metrics[task])]
            names = (
                MODEL_NAMES.get(model, model),
                LABELS.get(subset, subset) + arrow,
                LABELS.get(modality, modality),
            )
            found.append((*names, LABELS.get(task, task)))
        return pd.MultiIndex.from_tuples(found, names=["model", "subset", "modality", "task"])


def comparison(
    summary: pd.DataFrame,
    *,
    split: str = "5",
    preset: str | None = None,
    models: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    subsets: Sequence[str] = ("forget", "test", "retain", "celebrity"),
    modalities: Sequence[str] = ("vqa", "qa"),
    metrics: Mapping[str, str] = PRIMARY,
) -> Comparison:
    """The comparison of all methods, both models side by side.

    Args:
        summary: tidy rows of `eraser_lib.evaluate.summary`. Where a method has several seeds, `all` is shown.
        split: per cent of people to forget.
        preset: needed only when the summary holds several.
        models, methods: which ones and in which order; the default is all, in the summary's order.
        subsets, modalities: columns, in this order.
        metrics: task -> metric. `PRIMARY` (exact facts), `PAPER` (ROUGE-L) and `PROBABILITY` are ready-made.

    Raises:
        ValueError: nothing of the summary fits, or it holds several presets and none is chosen.
    """
    rows = summary[(summary["split"].astype(str) == str(split)) & summary["subset"].isin(subsets)]
    rows = rows[rows["modality"].isin(modalities) & (rows["metric"] == rows["task"].map(dict(metrics)))]
    presets = sorted(rows["preset"].unique())
    if preset is None and len(presets) > 1:
        raise ValueError(f"the summary holds the presets {', '.join(presets)}; choose one")
    rows = rows[rows["preset"] == (preset or next(iter(presets), ""))]
    models = list(models or rows["model"].unique())
    methods = list(methods or _in_order(rows["method"].unique(), METHOD_NAMES))
    rows = _one_seed(rows[rows["model"].isin(models) & rows["method"].isin(methods)])
    if rows.empty:
        raise ValueError(
            f"the summary has no rows for split {split}, subsets {', '.join(subsets)} and metrics "
            f"{', '.join(sorted(set(metrics.values())))}; evaluate these first"
        )
    wanted = pd.MultiIndex.from_product([models, subsets, modalities, list(metrics)])

    def pivot(name: str) -> pd.DataFrame:
        table = rows.pivot(index="method", columns=["model", "subset", "modality", "task"], values=name)
        there = [column for column in wanted if column in table.columns]
        return table.reindex(index=[name for name in methods if name in table.index])[there]

    return Comparison(pivot("value"), pivot("ci_low"), pivot("ci_high"), dict(metrics))


def metric_table(
    summary: pd.DataFrame, metric: str, *, split: str = "5", subsets: Iterable[str], digits: int = 2
) -> pd.DataFrame:
    """One metric as text cells `value [low, high]`, with model and method in rows.

    Raises:
        ValueError: the summary has no such rows.
    """
    wanted = list(subsets)
    rows = summary[(summary["split"].astype(str) == str(split)) & (summary["metric"] == metric)]
    rows = _one_seed(rows[rows["subset"].isin(wanted)])
    if rows.empty:
        raise ValueError(f"the summary has no '{metric}' for split {split} and subsets {', '.join(wanted)}")
    text = [
        f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        for value, low, high in zip(rows["value"], rows["ci_low"], rows["ci_high"], strict=True)
    ]
    rows = rows.assign(
        text=text,
        model=rows["model"].map(lambda name: MODEL_NAMES.get(name, name)),
        method=rows["method"].map(lambda name: METHOD_NAMES.get(name, name)),
    )
    table = rows.pivot(index=["model", "method"], columns=["subset", "modality", "task"], values="text")
    index = rows[["model", "method"]].drop_duplicates().itertuples(index=False, name=None)
    columns = rows[["subset", "modality", "task"]].drop_duplicates().itertuples(index=False, name=None)
    return table.reindex(index=list(index))[list(columns)].fillna("\u2013")


def _keys(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    return [tuple(map(str, column)) for column in frame.columns.to_flat_index()]


def _one_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """`all` where there is one, else the first seed."""
    cell = ["preset", "model", "split", "method", "subset", "modality", "task", "metric"]
    ranked = rows.assign(_rank=rows["seed"].astype(str).map(lambda seed: -1 if seed == "all" else int(seed)))
    return ranked.sort_values("_rank", kind="stable").drop_duplicates(cell).sort_index().drop(columns="_rank")


def _in_order(found: Iterable[str], order: Iterable[str]) -> list[str]:
    names = list(found)
    known = [name for name in order if name in names]
    return known + [name for name in names if name not in known]


def _flat(column: tuple[str, ...], *, several: bool) -> str:
    model, subset, modality, task = column
    return f"{model + ' ' if several else ''}{subset}, {modality} {task}"


def _spans(keys: Sequence[tuple[str, ...]]) -> list[tuple[tuple[str, ...], int]]:
    """Runs of equal keys with their lengths."""
    found: list[tuple[tuple[str, ...], int]] = []
    for key in keys:
        if found and found[-1][0] == key:
            found[-1] = (key, found[-1][1] + 1)
        else:
            found.append((key, 1))
    return found
