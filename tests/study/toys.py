"""Tiny notebooks, presets and run folders for the tests of the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from eraser_lib.study.paths import RunFolder

HERE = Path(__file__).resolve().parents[2]
PRESET = """\
# Hardware: none
# Time: seconds
# Expect: nothing
models: [llava, qwen]
splits: [5]
checkpoints: ""
"""


def notebook(*cells: str, parameters: str = "") -> str:
    """The JSON of a notebook; text cells begin with ``#md``."""
    sources = [("parameters", parameters)] if parameters else []
    sources += [("", cell) for cell in cells]
    made: list[dict[str, Any]] = []
    for index, (tag, source) in enumerate(sources):
        cell = {"id": f"c{index}", "metadata": {"tags": [tag]} if tag else {}, "source": source}
        if source.startswith("#md"):
            made.append({**cell, "cell_type": "markdown", "source": source[4:]})
        else:
            made.append({**cell, "cell_type": "code", "execution_count": None, "outputs": []})
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


def write_run(folder: RunFolder, answers: Mapping[str, list[str]], figures: list[Mapping[str, Any]]) -> RunFolder:
    """Write logs (``<model>/<split>/<method>/seed<k>`` to outputs) and a summary into a run folder."""
    for name, outputs in answers.items():
        path = folder.logs / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame({"id": [f"q{i}" for i in range(len(outputs))], "output": outputs})
        frame.to_parquet(path)
    usual = {
        "preset": "toy", "model": "llava", "split": "5", "method": "vanilla", "seed": "0", "subset": "forget",
        "modality": "vqa", "task": "cloze", "metric": "accuracy", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6,
        "n": 100, "n_people": 10,
    }  # fmt: skip
    folder.path.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([{**usual, **figure} for figure in figures]).to_csv(folder.summary, index=False)
    return folder
