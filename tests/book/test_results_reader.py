"""The reader and the table builder: every look-up finds what was asked for or says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from book_fixtures import fixture_notebook, summary_row
from docutils import nodes
from results_directives import pivoted
from results_nodes import bytes_text, grid_node, record_cell
from results_reader import Measured, MissingResult, Results, failure_of_notebook, run_stems
from results_table import build_grid, records_frame


def test_pooled_row_is_preferred_to_a_seed(results_root: Path) -> None:
    found = Results(results_root).one({"method": "vanilla", "model": "llava"})
    assert found == Measured(0.9, 0.85, 0.95, 77, 7)
    assert found.number() == "0.900 [0.850, 0.950]"
    assert found.number("value", 1) == "0.9"


def test_a_seed_can_be_asked_for(results_root: Path) -> None:
    assert Results(results_root).one({"method": "vanilla", "seed": "0"}).value == 0.5


def test_missing_row_is_named(results_root: Path) -> None:
    with pytest.raises(MissingResult, match="no row with method=ga_diff subset=test"):
        Results(results_root).one({"method": "ga_diff", "subset": "test"})


def test_ambiguous_query_says_what_is_open(results_root: Path) -> None:
    with pytest.raises(MissingResult, match="also say method"):
        Results(results_root).one({"model": "llava"})


def test_unknown_column_is_an_error(results_root: Path) -> None:
    with pytest.raises(MissingResult, match="'methd' is not a column"):
        Results(results_root).one({"methd": "vanilla"})


def test_summary_without_a_column_is_an_error(tmp_path: Path) -> None:
    pd.DataFrame([summary_row()]).drop(columns="ci_low").to_csv(tmp_path / "summary.csv", index=False)
    with pytest.raises(MissingResult, match="lacks the columns ci_low"):
        _ = Results(tmp_path).summary


def test_absent_summary_figure_json_and_manifest_are_named(tmp_path: Path) -> None:
    results = Results(tmp_path)
    with pytest.raises(MissingResult, match=r"summary\.csv does not exist"):
        _ = results.summary
    with pytest.raises(MissingResult, match="pca exists neither"):
        results.figure("llava", "pca")
    (tmp_path / "figures" / "llava").mkdir(parents=True)
    (tmp_path / "figures" / "llava" / "pca.svg").touch()
    with pytest.raises(MissingResult, match=r"pca\.svg is empty"):
        results.figure("llava", "pca")
    with pytest.raises(MissingResult, match=r"cost\.json does not exist"):
        results.figure_data("llava", "cost")
    with pytest.raises(MissingResult, match=r"llava-5-06_erase\.json does not exist"):
        results.manifest("llava-5-06_erase")


def test_json_path_is_followed_or_refused(results_root: Path) -> None:
    results = Results(results_root)
    assert results.figure_data("llava", "cost", "fit.0.seconds") == 0.111
    with pytest.raises(MissingResult, match=r"nothing at 'fit\.3'"):
        results.figure_data("llava", "cost", "fit.3")


def test_value_that_does_not_apply_is_no_number(results_root: Path) -> None:
    assert Results(results_root).one({"method": "prompt"}).number() == "not applicable"


def grid_of(root: Path, *methods: str, **options: object) -> object:
    return build_grid(
        Results(root),
        filters={"model": ["llava"], "method": methods, "subset": ["forget"], "metric": ["fact_recall"]},
        rows=["method"],
        columns=["subset"],
        **options,  # type: ignore[arg-type]
    )


def test_bold_marks_the_method_whose_interval_lies_apart(results_root: Path) -> None:
    grid = grid_of(results_root, "vanilla", "constant", "mllmeraser", "prompt")
    assert [row[0].bold for row in grid.cells] == [False, False, True, False]  # type: ignore[attr-defined]


def test_what_a_method_has_by_definition_is_no_victory(results_root: Path) -> None:
    """A refusing detector's probability is 0 because nothing can be read; the method after it is the best."""
    frame = pd.read_csv(results_root / "summary.csv").replace({"method": {"mllmeraser": "detector"}})
    for metric, expected in (("fact_recall", [False, True]), ("answer_prob", [False, False])):
        frame.assign(metric=metric).to_csv(results_root / "summary.csv", index=False)
        grid = build_grid(
            Results(results_root), rows=["method"], columns=["metric"],
            filters={"model": ["llava"], "method": ["constant", "detector"], "subset": ["forget"], "metric": [metric]},
        )  # fmt: skip
        assert [row[0].bold for row in grid.cells] == expected


@pytest.mark.parametrize(
    ("metric", "subset", "expected"),
    [
        ("accuracy", "forget", True),
        ("bleu", "forget", False),
        ("bleu", "retain", True),
        ("refusal_rate", "retain", False),
    ],
)
def test_overlap_of_a_stock_refusal_is_no_victory(results_root: Path, metric: str, subset: str, expected: bool) -> None:
    """Of a column of the paper's shape, which names task and metric in one."""
    frame = pd.read_csv(results_root / "summary.csv").assign(task="cloze", metric=metric, subset=subset)
    if subset == "retain":  # of two whose intervals lie apart, constant steering has the higher value
        frame = frame.replace({"method": {"constant": "mllmeraser", "mllmeraser": "constant"}})
    frame.to_csv(results_root / "summary.csv", index=False)
    grid = build_grid(
        Results(results_root), rows=["method"], columns=["measure"],
        filters={"model": ["llava"], "method": ["constant", "mllmeraser"], "subset": [subset],
                 "measure": [f"cloze/{metric}"]},
    )  # fmt: skip
    assert [row[0].bold for row in grid.cells] == [False, expected]


def test_records_show_intervals_below_values_and_bytes_in_units() -> None:
    record = {"method": "npo", "gone": 0.1, "gone_low": 0.05, "gone_high": 0.2, "difference": 0.3, "ci_low": 0.1,
              "ci_high": 0.5, "p_holm": 0.3, "lr": 3e-4, "steps": 120.0, "stored_bytes": 2_400_000, "undo": None,
              "kept": float("nan"), "kept_low": None, "kept_high": None, "zero": 0.0}  # fmt: skip
    shown = {name: record_cell(name, record, 3).astext() for name in record if not name.endswith(("_low", "_high"))}
    assert shown == {
        "method": "NPO", "gone": "0.100 [0.050, 0.200]", "difference": "0.300 [0.100, 0.500]", "p_holm": "0.300",
        "lr": "0.0003", "steps": "120", "stored_bytes": "2.4 MB", "undo": "–", "kept": "–", "zero": "0.000",
    }  # fmt: skip
    assert [bytes_text(size) for size in (None, 0, 1500, 1_399_820_288)] == ["–", "0 B", "1.5 kB", "1.4 GB"]


def test_records_can_stand_as_a_grid() -> None:
    records = [
        {"method": "npo", "signal": "refusals", "auc": 0.5, "auc_low": 0.4, "auc_high": 0.6},
        {"method": "npo", "signal": "gate value", "auc": 0.75},
        {"method": "ga", "signal": "refusals", "auc": 0.25},
    ]
    heads, rows = pivoted(records, "signal", "method", "auc", digits=2)
    assert heads == ["method", "refusals", "gate value"]
    assert [[cell.astext() for cell in row] for row in rows] == [
        ["NPO", "0.50 [0.40, 0.60]", "0.75"], ["GA", "0.25", "–"]
    ]  # fmt: skip


def test_nothing_is_bold_where_intervals_touch(results_root: Path) -> None:
    frame = pd.read_csv(results_root / "summary.csv")
    frame.loc[frame["method"] == "mllmeraser", "ci_high"] = 0.25
    frame.to_csv(results_root / "summary.csv", index=False)
    grid = grid_of(results_root, "vanilla", "constant", "mllmeraser")
    assert not any(row[0].bold for row in grid.cells)  # type: ignore[attr-defined]


def test_missing_cell_is_reported_unless_it_may_miss(results_root: Path) -> None:
    assert grid_of(results_root, "vanilla", "ga_diff").missing == ["method=ga_diff subset=forget"]  # type: ignore[attr-defined]
    assert grid_of(results_root, "vanilla", "ga_diff", may_miss=["ga_diff"]).missing == []  # type: ignore[attr-defined]
    assert grid_of(results_root, "vanilla", "ga_diff", may_miss=["*"]).missing == []  # type: ignore[attr-defined]


def test_rows_that_compete_for_a_cell_are_an_error(results_root: Path) -> None:
    with pytest.raises(MissingResult, match="also say method"):
        build_grid(Results(results_root), filters={"model": ["llava"]}, rows=["model"], columns=["subset"])


def test_a_split_is_called_a_share(results_root: Path) -> None:
    filters = {
        "model": ["llava"],
        "split": ["5"],
        "method": ["vanilla"],
        "subset": ["forget"],
        "metric": ["fact_recall"],
    }
    grid = build_grid(Results(results_root), filters=filters, rows=["method"], columns=["split", "subset"])
    head = [entry.astext() for entry in grid_node(grid, 2).findall(nodes.thead)]
    assert "5 %" in " ".join(head)


def test_records_frame_takes_flat_json_only() -> None:
    assert list(records_frame([{"a": 1}, {"a": 2}])["a"]) == [1, 2]
    assert list(records_frame({"x": 1.5})["quantity"]) == ["x"]
    assert list(records_frame({"n": 3, "table": [{"a": 1}]})["a"]) == [1]
    with pytest.raises(MissingResult, match="neither"):
        records_frame({"x": {"y": 1}})


def test_stems_follow_the_axes_of_the_notebook() -> None:
    assert run_stems("01_world", ["llava", "qwen"], "5") == ["all-all-01_world"]
    assert run_stems("02_models", ["llava", "qwen"], "5") == ["llava-all-02_models", "qwen-all-02_models"]
    assert run_stems("06_erase", ["qwen"], "10") == ["qwen-10-06_erase"]
    assert run_stems("07_compare", ["llava", "qwen"], "5") == ["all-5-07_compare"]
    assert run_stems("08_tune_npo", ["qwen"], "5") == ["qwen-all-08_tune_npo"]
    assert run_stems("08_npo", ["qwen"], "5") == ["qwen-5-08_npo"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"exception": True}, "exception"),
        ({"end_time": None}, "not executed to its end"),
    ],
)
def test_notebook_is_judged_by_its_papermill_block(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "notebook.ipynb"
    path.write_text(json.dumps(fixture_notebook(**change)))
    found = failure_of_notebook(path)
    assert found is None if reason is None else found is not None and reason in found


def test_notebook_without_papermill_or_with_an_error_output_fails(tmp_path: Path) -> None:
    path = tmp_path / "notebook.ipynb"
    notebook = fixture_notebook()
    notebook["cells"][1]["outputs"] = [{"output_type": "error", "ename": "ZeroDivisionError"}]
    path.write_text(json.dumps(notebook))
    assert "ZeroDivisionError" in str(failure_of_notebook(path))
    for cell in notebook["cells"]:
        cell.pop("outputs", None)
    path.write_text(json.dumps(notebook))
    assert "holds no output" in str(failure_of_notebook(path))
    del notebook["metadata"]["papermill"]
    path.write_text(json.dumps(notebook))
    assert "no papermill metadata" in str(failure_of_notebook(path))
    path.write_text("half a file")
    assert "cannot be read" in str(failure_of_notebook(path))


def test_what_was_not_rerun_is_known_by_model_and_share(results_root: Path) -> None:
    assert Results(results_root).adopted == set()
    names = ["logs/llava/5/npo/seed0.parquet", "logs/qwen/10/vanilla/seed1.parquet", "figures/llava/tuning-ga.json"]
    (results_root / "from_reference.json").write_text(json.dumps(dict.fromkeys(names, "0" * 64)))
    assert Results(results_root).adopted == {("llava", "5", "npo"), ("qwen", "10", "vanilla")}
