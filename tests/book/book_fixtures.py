"""Fixture results for the book: obviously made up, for every row, figure and run that a page asks for."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

REPOSITORY = Path(__file__).parents[2]
METHODS = (
    "vanilla",
    "retain_only",
    "prompt",
    "prompt_oracle",
    "constant",
    "ga_diff",
    "mllmeraser_published",
    "mllmeraser",
)
SUBSETS = ("forget", "test", "stranger", "retain", "celebrity")
MEASURES = (
    "classification/accuracy", "cloze/accuracy", "generation/fact_recall", "generation/rouge_l",
    "generation/bleu", "generation/answer_prob", "generation/refusal_rate", "generation/gibberish_rate",
    "classification/forced_accuracy", "generation/wrong_share", "generation/truth_ratio_ks",
)  # fmt: skip
MANIFEST: dict[str, Any] = {
    "notebook": "fixture",
    "parameters": {"preset": "fixture", "seed": 0, "out": "runs/fixture"},
    "git_commit": "fixturefixturefixture",
    "git_dirty": False,
    "device": "cpu",
    "machine": {"cpu": "Fixture processor", "cores": 2, "system": "Linux", "architecture": "x86_64"},
    "python": "3.11.0",
    "packages": {"torch": "fixture"},
    "seconds": 12.3,
    "peak_memory_bytes": 123 * 2**20,
    "created": "2000-01-01T00:00:00+00:00",
}
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 150">'
    '<rect width="300" height="150" fill="white"/>'
    '<text x="20" y="80">test fixture, not a result</text></svg>'
)


def summary_row(**changes: Any) -> dict[str, Any]:
    """One row of a `summary.csv` with made-up content."""
    row = {
        "preset": "fixture", "model": "llava", "split": 5, "method": "vanilla", "seed": "all",
        "subset": "forget", "modality": "vqa", "task": "generation", "metric": "fact_recall",
        "value": 0.111, "ci_low": 0.1, "ci_high": 0.122, "n": 77, "n_people": 7,
    }  # fmt: skip
    return {**row, **changes}


LONG = "# A fixture notebook\n\n" + "No result of anything. " * 30
"""As much text as a page needs to be one."""


def fixture_notebook(**papermill: Any) -> dict[str, Any]:
    """An executed notebook with the metadata that papermill leaves."""
    return {
        "cells": [
            {"cell_type": "markdown", "id": "heading", "metadata": {}, "source": LONG},
            {
                "cell_type": "code",
                "id": "code",
                "execution_count": 1,
                "metadata": {"papermill": {"exception": False, "status": "completed"}},
                "outputs": [{"name": "stdout", "output_type": "stream", "text": "test fixture, not a result\n"}],
                "source": "print('test fixture, not a result')",
            },
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
            "papermill": {
                "exception": None,
                "end_time": "2000-01-01T00:00:00",
                "parameters": {},
                **papermill,
            },
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def write_results(root: Path, *, book: Path, toc: Path) -> None:
    """A results folder with everything that the chapters in `book` and the contents in `toc` name."""
    rows = [
        summary_row(model=m, method=h, subset=s, modality=d, task=q.split("/")[0], metric=q.split("/")[1])
        for m, h, s, d, q in itertools.product(("llava", "qwen"), METHODS, SUBSETS, ("vqa", "qa"), MEASURES)
    ]
    rows += [
        summary_row(model=m, method=h, subset=s, modality=d, metric=q)
        for m, h in itertools.product(("llava", "qwen"), METHODS)
        for s, d, q in (
            ("forbidden", "qa", "refusal_rate"),
            ("benign", "qa", "refusal_rate"),
            ("general", "qa", "fact_recall"),
            ("general", "vqa", "fact_recall"),
            ("same_photo", "vqa", "fact_recall"),
        )
    ]
    rows += [
        summary_row(model=m, method="mllmeraser", subset=s, modality=d, metric="opened_rate")
        for m, s, d in itertools.product(("llava", "qwen"), SUBSETS, ("vqa", "qa"))
    ]
    rows += [
        summary_row(model=m, method="mllmeraser", subset=s, modality=d, task=t, metric="opened_rate")
        for m, s, d, t in itertools.product(
            ("llava", "qwen"), ("forget", "test"), ("vqa", "qa"), ("classification", "cloze")
        )
    ]
    root.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(root / "summary.csv", index=False)
    (root / "notebooks").mkdir()
    (root / "manifests").mkdir()
    for stem in re.findall(r"book/run/notebooks/(\S+)", toc.read_text()):
        (root / "notebooks" / f"{stem}.ipynb").write_text(json.dumps(fixture_notebook()))
        (root / "manifests" / f"{stem}.json").write_text(json.dumps(MANIFEST))
    for chapter in book.rglob("*.md"):
        if chapter.stem == "rerun":  # shows the syntax of the directives and uses none
            continue
        for name in re.findall(r"\{results-explorer\} (\S+)", chapter.read_text()):
            path = root / "figures" / "all" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"models": {}, "questions": {"made up": "</script>"}, "images": []}))
        pattern = r"\{results-(figure|json)\} (\S+)\n((?::[\w-]+:.*\n)*)"
        for kind, name, text in re.findall(pattern, chapter.read_text()):
            options = dict(re.findall(r":([\w-]+): ?(.*)", text))
            for model in options.get("model", "llava qwen").split():
                path = root / "figures" / model / f"{name}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "figure":
                    path.with_suffix(".svg").write_text(PICTURE)
                    continue
                record: dict[str, Any] = dict.fromkeys(
                    f"{options.get('columns', 'made_up quantity')} {options.get('pivot', '')}".split(), 0.111
                )
                record |= {"method": "ga_diff"} if "method" in record else {}
                key, content = options.get("key", "rows"), json.loads(path.read_text()) if path.is_file() else {}
                if content.get(key):  # two tables from one part of a file, with other columns
                    record = {**content[key][0], **record}
                count = max(len(content.get(key, [])), int(options["first"]) + 2 if "first" in options else 1)
                path.write_text(json.dumps({**content, key: [record] * count}))
        for model, name, key in re.findall(r"\{value\}`(\w+)/([\w-]+)#(\S+?)[ `]", chapter.read_text()):
            path = root / "figures" / model / f"{name}.json"
            content = json.loads(path.read_text()) if path.is_file() else {}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_with(content, key.split("."))))


def _with(node: Any, steps: list[str]) -> Any:
    """The node with a made-up number at a path of keys and list positions."""
    if not steps:
        return 0.111
    if steps[0].isdigit():
        rows = node if isinstance(node, list) else []
        rows += [{}] * (int(steps[0]) + 1 - len(rows))
        rows[int(steps[0])] = _with(rows[int(steps[0])], steps[1:])
        return rows
    found = node if isinstance(node, dict) else {}
    return found | {steps[0]: _with(found.get(steps[0]), steps[1:])}
