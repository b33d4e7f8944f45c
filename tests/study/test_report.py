from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from eraser_lib.study import preset, report
from eraser_lib.study.paths import RunFolder, StudyError, read_json, write_json
from tests.study.test_promote import complete
from tests.study.toys import write_run

VANILLA = "llava/5/vanilla/seed0"
SAME = {VANILLA: [f"answer {i}" for i in range(100)]}


def compare(
    tmp_path: Path,
    mine: list[Mapping[str, Any]],
    theirs: list[Mapping[str, Any]],
    *,
    answers: Mapping[str, list[str]] = SAME,
    reference: Mapping[str, list[str]] = SAME,
    adopted: tuple[str, ...] = (),
) -> report.Report:
    run = write_run(RunFolder(tmp_path / "run"), answers, mine)
    if adopted:
        write_json(run.adopted, dict.fromkeys(adopted, "0"))
    return report.compare(run, write_run(RunFolder(tmp_path / "ref"), reference, theirs), trained=("ga_diff",))


@pytest.mark.parametrize(
    ("mine", "theirs", "good"),
    [
        (0.51, 0.50, True),  # in floats a little more than one point
        (0.49, 0.50, True),
        (0.511, 0.50, False),
        (0.0, 0.0, True),
        (-20.1, -20.0, True),  # a log-probability: 1 % of the reference
        (-20.3, -20.0, False),
        (math.nan, math.nan, True),
        (math.nan, 0.5, False),
        (0.5, math.nan, False),
    ],
)
def test_an_evaluation_figure_may_differ_by_one_point(tmp_path: Path, mine: float, theirs: float, good: bool) -> None:
    found = compare(tmp_path, [{"value": mine}], [{"value": theirs}])
    assert found.reproduced is good


@pytest.mark.parametrize(
    ("metric", "turned", "n", "good"),
    [
        ("gibberish_rate", 0, 60, True),
        ("gibberish_rate", 1, 60, True),
        ("gibberish_rate", 2, 60, False),
        ("gibberish_rate", 1, 12, False),  # too much for one
        ("answer_prob", 1, 60, False),  # no answer, so none can turn
    ],
)
def test_one_answer_may_turn(tmp_path: Path, metric: str, turned: int, n: int, good: bool) -> None:
    same = {"metric": metric, "n": n}
    found = compare(tmp_path, [same | {"value": round(turned / n, 6)}], [same | {"value": 0.0}])
    assert found.reproduced is good


@pytest.mark.parametrize(("equal", "good"), [(98, True), (97, False)])
def test_98_per_cent_of_the_answers_must_be_equal(tmp_path: Path, equal: int, good: bool) -> None:
    answers = {VANILLA: [f"answer {i}" if i < equal else "other" for i in range(100)]}
    found = compare(tmp_path, [{}], [{}], answers=answers)
    assert found.logs["equal"].tolist() == [equal / 100]
    assert found.reproduced is good
    if not good:
        assert "equal answers" in found.figures["why"].iloc[0]


def test_questions_on_one_side_only_are_unequal(tmp_path: Path) -> None:
    found = compare(tmp_path, [{}], [{}], answers={VANILLA: SAME[VANILLA][:90]})
    assert found.logs["equal"].tolist() == [0.9]
    assert not found.reproduced


def test_another_number_of_questions_is_not_reproduced(tmp_path: Path) -> None:
    found = compare(tmp_path, [{"n": 90}], [{"n": 100}])
    assert found.figures["why"].tolist() == ["90 questions instead of 100"]


@pytest.mark.parametrize(("value", "good"), [(0.45, True), (0.35, True), (0.65, True), (0.34, False), (0.66, False)])
def test_a_trained_figure_must_lie_in_the_seed_range_widened_by_half(tmp_path: Path, value: float, good: bool) -> None:
    seeds = [{"method": "ga_diff", "seed": str(s), "value": v} for s, v in enumerate((0.4, 0.5, 0.6))]
    logs = {f"llava/5/ga_diff/seed{s}": ["x"] * 10 for s in range(3)}
    others = {name: ["y"] * 10 for name in logs}  # new weights answer otherwise, which is no fault
    mine = [{**seeds[0], "value": value}, *seeds[1:]]
    assert compare(tmp_path, mine, seeds, answers=others, reference=logs).reproduced is good


def test_a_narrow_seed_range_still_allows_one_point(tmp_path: Path) -> None:
    one = {"method": "ga_diff", "value": 0.4}
    assert compare(tmp_path / "a", [{**one, "value": 0.41}], [one]).reproduced
    assert not compare(tmp_path / "b", [{**one, "value": 0.42}], [one]).reproduced


def test_figures_from_the_reference_do_not_count(tmp_path: Path) -> None:
    taken = {"method": "retain_only"}
    logs = {**SAME, "llava/5/retain_only/seed0": ["x"] * 10}
    adopted = ("logs/llava/5/retain_only/seed0.parquet",)
    found = compare(tmp_path / "a", [{}, taken], [{}, taken], answers=logs, reference=logs, adopted=adopted)
    assert sorted(found.figures["source"]) == ["from reference", "rerun"]
    assert found.reproduced
    assert "1 of 1 rerun figures; 1 figures are from the reference" in report.verdict(found)
    only = compare(tmp_path / "b", [taken], [taken], answers=logs, reference=logs, adopted=adopted)
    assert not only.reproduced, "nothing was rerun, so nothing was reproduced"


def test_seed_all_is_from_the_reference_if_one_of_its_seeds_is(tmp_path: Path) -> None:
    logs = {f"llava/5/retain_only/seed{s}": ["x"] * 10 for s in range(2)}
    row = [{"method": "retain_only", "seed": "all"}]
    adopted = ("logs/llava/5/retain_only/seed1.parquet",)
    found = compare(tmp_path, row, row, answers=logs, reference=logs, adopted=adopted)
    assert found.figures["source"].tolist() == ["from reference"]


def test_missing_figures_fail_and_new_ones_are_only_named(tmp_path: Path) -> None:
    missing = compare(tmp_path / "a", [{}], [{}, {"metric": "rouge_l"}])
    assert not missing.reproduced
    assert "missing in the run" in missing.figures["why"].tolist()
    new = compare(tmp_path / "b", [{}, {"metric": "rouge_l"}], [{}])
    assert new.reproduced
    assert "1 figures are not in the reference" in report.verdict(new)


def test_a_missing_log_is_not_reproduced(tmp_path: Path) -> None:
    assert not compare(tmp_path, [{}], [{}], answers={}).reproduced


def test_doubled_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="two rows for"):
        compare(tmp_path, [{}, {}], [{}])


def test_the_report_is_printed_and_written(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = preset.load("toy")
    write_run(toy.run, SAME, [{"value": 0.3}])
    assert report.write(toy), "without a reference there is nothing to differ from"
    assert "No reference yet" in capsys.readouterr().out
    write_run(toy.reference, SAME, [{}])
    assert not report.write(toy)
    out = capsys.readouterr().out
    assert "NOT REPRODUCED: 0 of 1 rerun figures" in out
    assert "0.3000 is outside [0.4900, 0.5100]" in out
    text = (toy.run.path / "reproduction.md").read_text()
    assert "| llava | 5 | vanilla |" in text
    assert (toy.run.path / "reproduction.json").is_file()
    write_run(toy.run, SAME, [{"value": 0.5}])
    assert report.write(toy)


def test_figures_of_models_that_were_trained_anew_do_not_count(tmp_path: Path) -> None:
    run = write_run(RunFolder(tmp_path / "run"), {VANILLA: ["other"] * 100}, [{"value": 0.2}])
    reference = write_run(RunFolder(tmp_path / "ref"), SAME, [{"value": 0.5}])
    assert not report.compare(run, reference).reproduced
    found = report.compare(run, reference, retrained={"llava/5/vanilla"})
    assert found.reproduced and found.figures["source"].tolist() == ["other weights"]
    assert report.verdict(found).startswith("NOTHING TO REPRODUCE: no rerun figure counts; 1 figures")
    assert report.verdict(found).endswith("1 figures are of models that were trained anew and do not count.")
    assert report.table(found)["verdict"].tolist() == ["other weights"]


def test_a_model_was_trained_anew_where_manifests_name_other_weights(clone: Path, committed: None) -> None:
    toy = preset.load("toy")
    for folder in (toy.run, toy.reference):
        complete(toy, folder)
    assert report.retrained(toy, toy.run, toy.reference) == set()
    path = toy.run.manifest("llava-5-06_erase")
    write_json(path, read_json(path) | {"checkpoint": "other"})
    found = report.retrained(toy, toy.run, toy.reference)
    assert "llava/5/vanilla" in found and not any(name.startswith("qwen") for name in found)
    assert report.write(toy, quiet=True)
    toy.reference.manifest("qwen-5-06_erase").unlink()
    assert "qwen/5/vanilla" in report.retrained(toy, toy.run, toy.reference), "nothing says what weights they are of"
    toy.run.manifest("qwen-5-06_erase").unlink()
    assert "qwen/5/vanilla" not in report.retrained(toy, toy.run, toy.reference), "it was not run again"
