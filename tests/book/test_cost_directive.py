"""Every cost table says which run measured which of its columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from cost_directive import ResultsCost, _ratios, runs
from results_reader import MissingResult


def setting(layers: int, batch: int) -> dict[str, Any]:
    return {"phase": "fit", "layers": layers, "batch": batch}


def test_columns_lead_to_the_run_that_measured_them() -> None:
    entry = {
        "git_commit": "new", "measured": [setting(5, 32)],
        "earlier": [
            {"git_commit": "old", "measured": [setting(1, 1), setting(1, 32), {**setting(5, 32), "phase": "decode"}]},
            {"git_commit": "other", "measured": [setting(6, 32)]},
        ],
    }  # fmt: skip
    rows = pd.DataFrame([setting(1, 1), setting(5, 32), setting(1, 32), setting(1, 32)])
    found = [(run["git_commit"], columns) for run, columns in runs(entry, rows)]
    assert found == [("old", [(1, 1), (1, 32)]), ("new", [(5, 32)])]
    with pytest.raises(MissingResult, match="does not say for every row"):
        runs(entry, pd.DataFrame([setting(7, 32)]))


def test_a_model_is_named_with_its_columns_where_they_come_from_several_runs() -> None:
    machine = {"machine": "M", "reference": "forward passes", "shape": "few", "ratio": 1.0}
    table = pd.DataFrame([
        {**machine, **setting(layers, 32), "model": model, "method": method}
        for model, layers, method in (("tiny-llava", 1, "dense"), ("tiny-llava", 5, "PGD"), ("tiny-qwen", 1, "dense"))
    ])  # fmt: skip
    new, old = ({"git_commit": name, "intervals": [], "measured": [setting(layers, 32)]} for name, layers in
                (("new", 5), ("old", 1)))  # fmt: skip
    manifest = {"M": {"tiny-llava": {**new, "earlier": [old]}, "tiny-qwen": old}}

    def named(**options: str) -> list[tuple[str, str, str]]:
        directive: Any = SimpleNamespace(arguments=["fit"], options={"reference": "forward passes", **options})
        _, measured = ResultsCost._rows(directive, table, manifest)
        return [(name, run["git_commit"], run["name"]) for name, run in measured]

    assert named() == [
        ("tiny LLaVA-1.5 (1 block at batch 32)", "old", "M"), ("tiny LLaVA-1.5 (5 blocks at batch 32)", "new", "M"),
        ("tiny Qwen2.5-VL", "old", "M"),
    ]  # fmt: skip
    assert named(methods="dense") == [("tiny LLaVA-1.5", "old", "M"), ("tiny Qwen2.5-VL", "old", "M")]


def test_columns_stand_below_their_model_where_methods_have_different_ones() -> None:
    rows = [
        {**setting(layers, 32), "model": model, "method": method, "ratio": ratio}
        for method, layers, ratios in (("dense", 1, (1.25, 1.5)), ("PGD", 5, (2.25, 2.5)))
        for model, ratio in zip(("tiny-llava", "tiny-qwen"), ratios, strict=True)
    ]
    head, body = _ratios(rows, "method", 2)
    assert head[0] == [("", 1), ("tiny LLaVA-1.5", 2), ("tiny Qwen2.5-VL", 2)]
    assert [text for text, _ in head[1]] == ["method", *["1 block, batch 32", "5 blocks, batch 32"] * 2]
    assert [[cell.astext() for cell in row] for row in body] == [
        ["dense", "1.25", "", "1.50", ""], ["PGD", "", "2.25", "", "2.50"],
    ]  # fmt: skip
