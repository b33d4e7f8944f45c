from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eraser_lib.evaluate.log import read_logs, write_log
from eraser_lib.evaluate.stats import bootstrap_mean
from eraser_lib.evaluate.summary import (
    COLUMNS,
    applicable,
    compare,
    paired_losses,
    prompting_applies,
    summarise,
    summarise_rows,
)
from tests.evaluate.synthetic import make_log


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logs")
    for method, seeds in (
        ("mllmeraser", [0]),
        ("retain_only", [0, 1, 2]),
        ("vanilla", [0]),
        ("ga_diff", [0]),
    ):
        for seed in seeds:
            write_log(root / "llava" / "5" / method / f"seed{seed}.parquet", make_log(method, seed=seed))
    return root


@pytest.fixture(scope="module")
def summary(logs: Path) -> pd.DataFrame:
    return summarise(logs)


def cell(summary: pd.DataFrame, **wanted: str) -> pd.Series:
    rows = summary
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_columns_values_and_intervals(summary: pd.DataFrame) -> None:
    assert list(summary.columns) == COLUMNS
    log = make_log("vanilla")
    own = log[(log["subset"] == "forget") & (log["modality"] == "vqa") & (log["task"] == "cloze")]
    wanted = bootstrap_mean(own["correct"].astype(float), own["person"].tolist())
    found = cell(summary, method="vanilla", subset="forget", modality="vqa", task="cloze", metric="accuracy")
    assert (found["value"], found["ci_low"], found["ci_high"]) == (wanted.value, wanted.low, wanted.high)
    assert (found["n"], found["n_people"], found["seed"]) == (30, 10, "0")


def test_metrics_belong_to_their_tasks(summary: pd.DataFrame) -> None:
    tasks = summary.groupby("metric")["task"].agg(lambda values: tuple(sorted(set(values))))
    assert tasks["accuracy"] == ("classification", "cloze")
    assert tasks["fact_recall"] == tasks["rouge_l"] == tasks["truth_ratio_ks"] == ("generation",)
    assert "opened_rate" not in tasks.index, "no method of these logs has a gate"


def test_several_seeds_get_a_pooled_row(summary: pd.DataFrame) -> None:
    rows = summary[
        (summary["method"] == "retain_only") & (summary["subset"] == "test") & (summary["modality"] == "qa")
        & (summary["metric"] == "fact_recall")
    ]  # fmt: skip
    assert rows["seed"].tolist() == ["0", "1", "2", "all"]
    assert rows["value"].iloc[-1] == pytest.approx(rows["value"].iloc[:3].mean())
    assert "all" not in set(summary.loc[summary["method"] == "vanilla", "seed"])


def test_order_does_not_depend_on_the_rows(logs: Path, summary: pd.DataFrame) -> None:
    names = [
        ("vanilla", 0),
        ("mllmeraser", 0),
        ("ga_diff", 0),
        ("retain_only", 2),
        ("retain_only", 0),
        ("retain_only", 1),
    ]
    rows = pd.concat([make_log(method, seed=seed) for method, seed in names], ignore_index=True)
    shuffled = rows.sample(frac=1.0, random_state=0).reset_index(drop=True)
    again = summarise_rows(shuffled)
    assert again[COLUMNS[:9]].equals(summary[COLUMNS[:9]])
    np.testing.assert_allclose(again["value"], summary["value"])
    assert list(dict.fromkeys(summary["method"])) == ["vanilla", "retain_only", "ga_diff", "mllmeraser"]


def test_a_part_of_the_summary_is_that_part(logs: Path, summary: pd.DataFrame) -> None:
    part = summarise(logs, split="5", metrics=["answer_prob", "truth_ratio_ks"])
    wanted = summary[summary["metric"].isin(["answer_prob", "truth_ratio_ks"])]
    pd.testing.assert_frame_equal(part, wanted.reset_index(drop=True))


def test_questions_about_nobody_count_no_people() -> None:
    log = make_log("vanilla").assign(person=None, subset="general")
    log["id"] = [f"q{number}" for number in range(len(log))]
    summary = summarise_rows(log)
    assert set(summary["n_people"]) == {0}
    assert (summary["ci_low"] <= summary["value"]).all()


def test_paired_losses_and_tests() -> None:
    rows = pd.concat([make_log("vanilla"), make_log("mllmeraser"), make_log("ga_diff")], ignore_index=True)
    losses = paired_losses(rows)
    kept = cell(losses, method="ga_diff", subset="retain", metric="loss")
    own = make_log("vanilla")["correct"].fillna(make_log("vanilla")["fact_recall"]).astype(float)
    other = make_log("ga_diff")["correct"].fillna(make_log("ga_diff")["fact_recall"]).astype(float)
    retain = make_log("vanilla")["subset"] == "retain"
    assert kept["value"] == pytest.approx((own - other)[retain].mean())
    assert kept["ci_low"] < kept["value"] < kept["ci_high"]
    tests = compare(rows, method="mllmeraser", baselines=["vanilla", "ga_diff"], subsets=["forget", "test"])
    assert (tests["difference"] > 0).all()
    assert (tests["p_holm"] >= tests["p_value"]).all()
    assert tests["p_holm"].max() < 0.01
    with pytest.raises(ValueError, match="no log of 'prompt'"):
        compare(rows, method="mllmeraser", baselines=["prompt"], subsets=["forget"])


def test_tables_and_figures_need_no_torch() -> None:
    code = (
        "import sys, eraser_lib.evaluate.summary, eraser_lib.tables, eraser_lib.figures\n"
        "import eraser_lib.evaluate.scores\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_prompting_is_not_applicable_where_instructions_are_not_obeyed(tmp_path: Path) -> None:
    other = make_log("retain_only").assign(method="prompt")
    rows = pd.concat([make_log("vanilla"), other], ignore_index=True)
    for method, group in rows.groupby("method"):
        path = tmp_path / "logs" / "llava" / "5" / str(method) / "seed0.parquet"
        path.parent.mkdir(parents=True)
        write_log(path, group)
    folder = tmp_path / "figures" / "llava"
    folder.mkdir(parents=True)
    for rate, missing in ((0.95, False), (0.5, True)):
        lines = [{"instruction": "silence, named", "obeyed": rate}, {"instruction": "decline", "obeyed": 1.0}]
        (folder / "obedience.json").write_text(json.dumps({"rows": lines}))
        summary = summarise(tmp_path / "logs").set_index("method")
        assert summary.loc["prompt", "value"].isna().all() == missing
        assert summary.loc["vanilla", "value"].notna().any()
        scored = set(applicable(read_logs(tmp_path / "logs"), tmp_path / "figures")["method"])
        assert scored == ({"vanilla"} if missing else {"vanilla", "prompt"})
    assert prompting_applies(tmp_path / "figures" / "qwen"), "nothing was measured there"
