"""Results that were not run again after an edit: what confirms them, and what never does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from eraser_lib.study import check, confirm, manifest, matrix, preset, promote, summary
from eraser_lib.study.paths import RunFolder, read_json, write_json
from tests.study.test_promote import complete
from tests.study.toys import PRESET, notebook, write_run

LATE = "llava-5-12_push"


@pytest.fixture
def slow(clone: Path, committed: None) -> tuple[preset.Preset, preset.Preset]:
    """A quick preset that takes one row, `12_push`, from the reference of a slow one; both are promoted.

    All notebooks import `shared`, and `12_push` imports `own` as well.
    """
    package = clone / "eraser_lib"
    package.mkdir()
    for name in ("__init__", "shared", "own"):
        (package / f"{name}.py").write_text("x = 1\n")
    for name, line in (
        ("01_world", "from eraser_lib.shared import x"),
        ("02_models", "from eraser_lib.shared import x"),
        ("03_direction", "1"),
        ("04_gate", "1"),
        ("06_select", "1"),
        ("06_erase", "1"),
        ("12_push", "from eraser_lib.shared import x\nfrom eraser_lib.own import x as y"),
    ):
        axes = ('model: str = "llava"\n' if name != "01_world" else "") + (
            "split: int = 5\n" if name not in ("01_world", "02_models") else ""
        )
        text = 'preset: str = "toy"\nseed: int = 0\nout: str = "runs/toy"\n' + axes
        (clone / "notebooks" / f"{name}.ipynb").write_text(notebook("#md T", line, parameters=text))
    rows = "01_world, 02_models, 03_direction, 04_gate, 06_select, 06_erase"
    taken = 'from_reference: ["manifests/*-12_push.json", "notebooks/*-12_push.ipynb"]'
    (clone / "presets" / "toy.yml").write_text(f"{PRESET}jobs: [{rows}]\n{taken}\n")
    head = "\n".join(PRESET.splitlines()[:3])
    (clone / "presets" / "toy-slow.yml").write_text(
        f"{head}\nwithin: toy\nmodels: [llava, qwen]\nsplits: [5]\njobs: [{rows}, 12_push]\n"
    )
    whole, short = preset.load("toy-slow"), preset.load("toy")
    complete(whole, whole.run)
    promote.promote(whole)
    assert check.stale(whole, whole.reference) == []
    return short, whole


def rerun(short: preset.Preset, answers: list[str]) -> dict[str, str]:
    """Run the quick preset again and promote it."""
    rerun_without_promoting(short, answers)
    return promote.promote(short)[1]


def rerun_without_promoting(short: preset.Preset, answers: Sequence[str] = ("a", "b")) -> None:
    """Run the quick preset again and take the rest from the reference."""
    for path in short.run.path.glob("manifests/*-12_push.json"):
        path.unlink()
    complete(short, short.run)
    write_run(short.run, {"llava/5/vanilla/seed0": list(answers)}, [{}])
    write_json(short.run.manifest("summary"), summary.inputs(short.run))
    promote.adopt(short)


def test_an_edit_that_changes_no_log_confirms_what_was_not_run_again(slow: tuple, clone: Path) -> None:
    short, whole = slow
    (clone / "eraser_lib" / "shared.py").write_text("x = 0 + 1\n")
    assert f"{LATE}: eraser_lib.shared changed" in check.stale(whole, whole.reference)
    before = read_json(whole.reference.manifest(LATE))
    assert rerun(short, ["a", "b"]) == {LATE: "confirmed", LATE.replace("llava", "qwen"): "confirmed"}
    assert check.stale(whole, whole.reference) == []
    after = read_json(whole.reference.manifest(LATE))
    assert {key: after[key] for key in before} == before, "what made the result stays as it was"
    assert "llava-5-06_erase" in after["confirmed"]["by"] and LATE not in after["confirmed"]["by"]
    (clone / "eraser_lib" / "shared.py").write_text("x = 2 - 1\n")
    assert f"{LATE}: eraser_lib.shared changed" in check.stale(whole, whole.reference), "of one edit, not of the next"


def test_a_log_that_moved_confirms_nothing(slow: tuple, clone: Path) -> None:
    short, whole = slow
    (clone / "eraser_lib" / "shared.py").write_text("x = 2\n")
    assert rerun(short, ["a", "c"])[LATE] == (
        "1 logs of the run differ from the reference, such as logs/llava/5/vanilla/seed0.parquet"
    )
    assert "confirmed" not in read_json(whole.reference.manifest(LATE))
    # the reference has moved on with the log: what is found beside it later says nothing about the job from before
    assert promote.promote(short)[1][LATE] == "logs/llava/5/vanilla/seed0.parquet changed after it ran: run it again"
    complete(short, short.run)
    write_run(short.run, {"llava/5/vanilla/seed0": ["a", "c"]}, [{}])
    write_json(short.run.manifest("summary"), summary.inputs(short.run))
    assert "run it again" in promote.promote(short)[1][LATE]


@pytest.fixture
def elsewhere(slow: tuple, clone: Path) -> preset.Preset:
    """A study of its own, of a machine that is not at hand, promoted on the same code; its `12_push` imports `own`."""
    (clone / "presets" / "large.yml").write_text(
        PRESET + "jobs: [01_world, 02_models, 03_direction, 04_gate, 06_select, 06_erase, 12_push]\n"
    )
    large = preset.load("large")
    complete(large, large.run)
    promote.promote(large)
    shutil.rmtree(large.run.path)
    return large


def test_the_results_of_another_study_are_held_to_the_same_rule(
    slow: tuple, elsewhere: preset.Preset, clone: Path
) -> None:
    short, _ = slow
    before = read_json(elsewhere.reference.manifest(LATE))
    (clone / "eraser_lib" / "shared.py").write_text("x = 0 + 1\n")
    assert check.stale(elsewhere, elsewhere.reference)
    verdicts = rerun(short, ["a", "b"])
    assert {verdict for name, verdict in verdicts.items() if name.startswith("large ")} == {"confirmed"}
    assert check.stale(elsewhere, elsewhere.reference) == []
    after = read_json(elsewhere.reference.manifest(LATE))
    assert {key: after[key] for key in before} == before
    assert "toy llava-5-06_erase" in after["confirmed"]["by"]
    (clone / "eraser_lib" / "own.py").write_text("x = 2\n")
    assert rerun(short, ["a", "b"])[f"large {LATE}"] == "eraser_lib.own changed"


def test_a_log_that_moved_speaks_against_other_studies_for_good(
    slow: tuple, elsewhere: preset.Preset, clone: Path
) -> None:
    short, _ = slow
    (clone / "eraser_lib" / "shared.py").write_text("x = 2\n")
    assert "logs of the run differ" in rerun(short, ["a", "c"])[f"large {LATE}"]
    assert "changed after it ran" in rerun(short, ["a", "c"])[f"large {LATE}"]
    assert check.stale(elsewhere, elsewhere.reference)


@pytest.mark.parametrize("value", [1, 2])
def test_the_tables_of_other_studies_are_made_again(
    slow: tuple, elsewhere: preset.Preset, clone: Path, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    """Where the code that summarises has changed: the same table is confirmed, another one is not written."""
    monkeypatch.setattr("eraser_lib.evaluate.summary.summarise", lambda logs: pd.DataFrame({"value": [1]}))
    summary.write(elsewhere, elsewhere.reference)
    before = elsewhere.reference.summary.read_bytes()
    assert summary.renew(elsewhere.reference) is None
    (clone / "eraser_lib" / "evaluate").mkdir()
    for name in ("__init__", "summary"):
        (clone / "eraser_lib" / "evaluate" / f"{name}.py").write_text("summarise = 1\n")
    assert "summary.csv: eraser_lib.evaluate.summary changed" in check.stale(elsewhere, elsewhere.reference)
    monkeypatch.setattr("eraser_lib.evaluate.summary.summarise", lambda logs: pd.DataFrame({"value": [value]}))
    verdict = rerun(slow[0], ["a", "b"])["large summary.csv"]
    assert elsewhere.reference.summary.read_bytes() == before
    assert verdict == ("confirmed" if value == 1 else "another table comes out of the same logs")
    assert (check.stale(elsewhere, elsewhere.reference) == []) == (value == 1)


def test_a_copy_is_no_evidence(slow: tuple, clone: Path) -> None:
    short, _ = slow
    (clone / "eraser_lib" / "shared.py").write_text("x = 0 + 1\n")
    assert rerun(short, ["a", "b"])[LATE] == "confirmed"
    (clone / "eraser_lib" / "shared.py").write_text("x = 2\n")
    complete(short, short.run)
    write_run(short.run, {"llava/5/vanilla/seed0": ["a", "b"]}, [{}])
    write_json(short.run.manifest("summary"), summary.inputs(short.run))
    shutil.copytree(short.run.path / "manifests", short.reference.path / "manifests", dirs_exist_ok=True)
    assert promote.promote(short)[1][LATE] == "eraser_lib.shared changed"


def test_confirming_keeps_the_time_by_which_later_jobs_are_judged(slow: tuple, clone: Path) -> None:
    short, _ = slow
    (clone / "eraser_lib" / "shared.py").write_text("x = 0 + 1\n")
    complete(short, short.run)
    promote.adopt(short)
    os.utime(short.run.manifest(LATE), (1e9, 1e9))
    assert promote.promote(short)[1][LATE] == "confirmed"
    assert short.run.manifest(LATE).stat().st_mtime == 1e9


@pytest.mark.parametrize("what", ["module", "notebook", "parameter"])
def test_what_nobody_else_ran_is_never_confirmed(slow: tuple, clone: Path, what: str) -> None:
    short, _ = slow
    (clone / "eraser_lib" / "shared.py").write_text("x = 0 + 1\n")
    if what == "module":
        (clone / "eraser_lib" / "own.py").write_text("x = 2\n")
        wanted = "eraser_lib.own changed"
    elif what == "notebook":
        path = clone / "notebooks" / "12_push.ipynb"
        path.write_text(path.read_text().replace("x as y", "x as z"))
        wanted = "the code of notebooks/12_push.ipynb changed"
    else:
        reference = short.reference.manifest(LATE)
        content = json.loads(reference.read_text())
        content["inputs_parameters"]["seed"] = 7
        reference.write_text(json.dumps(content))
        wanted = "parameter seed: 7 then, 0 now"
    assert rerun(short, ["a", "b"])[LATE] == wanted
    assert confirm.differing(short) == []


def test_a_slow_job_that_was_run_again_confirms_its_neighbours(slow: tuple, clone: Path) -> None:
    """A module that only slow jobs import: one of them, run again with identical logs, speaks for the others."""
    short, whole = slow
    rows = "01_world, 02_models, 03_direction, 04_gate, 06_select, 06_erase"
    path = clone / "presets" / "toy-slow.yml"
    path.write_text(path.read_text().replace("12_push]", "08_tune_npo, 08_npo, 12_push]"))
    text = 'preset: str = "toy"\nseed: int = 0\nout: str = "runs/toy"\nmethod: str = ""\nmodel: str = "llava"\n'
    for name, split in (("08_tune", ""), ("08_trained", "split: int = 5\n")):
        cell = "from eraser_lib.own import x\nfrom eraser_lib.shared import x as y"
        (clone / "notebooks" / f"{name}.ipynb").write_text(notebook("#md T", cell, parameters=text + split))
    taken = "\n  - ".join(["", "logs/*/*/npo/*", "manifests/*-08_*", "manifests/*-12_*", "notebooks/*-08_*"])
    (clone / "presets" / "toy.yml").write_text(f"{PRESET}jobs: [{rows}]\nfrom_reference:{taken}\n")
    whole = preset.load("toy-slow")
    answers = {f"{model}/5/npo/seed0": ["n"] for model in ("llava", "qwen")} | {"llava/5/vanilla/seed0": ["a", "b"]}
    complete(whole, whole.run)
    write_run(whole.run, answers, [{}])
    write_json(whole.run.manifest("summary"), summary.inputs(whole.run))
    promote.promote(whole)
    before = read_json(whole.reference.manifest("llava-all-08_tune_npo"))
    (clone / "eraser_lib" / "own.py").write_text("x = 0 + 1\n")
    complete(short, short.run)
    write_run(short.run, answers, [{}])
    job = matrix.jobs(whole)["llava-5-08_npo"]
    manifest.write(job, whole, whole.run, manifest.inputs(job, whole), seconds=1.0, peak_bytes=1)
    write_json(short.run.manifest("summary"), summary.inputs(short.run))
    verdicts = promote.promote(preset.load("toy"))[1]
    assert verdicts["llava-all-08_tune_npo"] == verdicts["qwen-5-08_npo"] == "confirmed"
    after = read_json(whole.reference.manifest("llava-all-08_tune_npo"))
    assert "llava-5-08_npo" in after["confirmed"]["by"] and after["sources"] == before["sources"]

    # the next edit is told from what was confirmed: nobody runs `own` again for it
    (clone / "eraser_lib" / "shared.py").write_text("x = 0 + 1\n")
    assert check.stale(whole, whole.reference).count("llava-all-08_tune_npo: eraser_lib.shared changed") == 1
    assert "llava-all-08_tune_npo: eraser_lib.own changed" not in check.stale(whole, whole.reference)
    complete(short, short.run)
    write_run(short.run, answers, [{}])
    write_json(short.run.manifest("summary"), summary.inputs(short.run))
    assert promote.promote(preset.load("toy"))[1]["llava-all-08_tune_npo"] == "confirmed"


@pytest.mark.parametrize(
    ("mine", "theirs", "alike"),
    [
        ("norm 218.403732, at 0", "norm 218.403702, at 0", True),
        ("norm -1.5e-07 of 3", "norm -1.5000001e-07 of 3", True),
        ("norm 218.41, at 0", "norm 218.40, at 0", False),
        ("opened 12 of 40", "opened 13 of 40", False),
        ("gate: open, 0.5", "gate: closed, 0.5", False),
        ("0.5 0.5", "0.5", False),
        ("norm 1e-12", "norm 0", False),
        ("hash a9e999b, norm 0.5", "hash a9e999b, norm 0.50000001", True),
    ],
)
def test_last_digits_of_what_was_printed_may_differ(mine: str, theirs: str, alike: bool) -> None:
    assert confirm._reads_alike(mine, theirs) is alike


@pytest.mark.parametrize("printed", ["0.25", "0.26", ""])
def test_a_job_without_logs_speaks_by_what_it_printed(slow: tuple, clone: Path, printed: str) -> None:
    short, whole = slow

    def ran(folder: RunFolder, text: str) -> None:
        content = read_json(clone / "notebooks" / "12_push.ipynb")
        content["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
        write_json(folder.notebook(LATE), content)

    def neighbour() -> str:
        rerun_without_promoting(short)
        ran(short.run, printed)
        manifest.write(job, whole, short.run, manifest.inputs(job, whole), seconds=1.0, peak_bytes=1)
        promote.adopt(short)
        return promote.promote(short)[1][LATE.replace("llava", "qwen")]

    job = matrix.jobs(whole)[LATE]
    ran(whole.reference, "0.25")
    (clone / "eraser_lib" / "own.py").write_text("x = 0 + 1\n")
    if printed == "0.25":
        assert neighbour() == "confirmed"
        return
    assert neighbour() == "what 12_push prints has changed: run it again"
    # the reference prints it now, which says nothing about the job from before
    (clone / "eraser_lib" / "own.py").write_text("x = 2 - 1\n")
    assert neighbour() == "what 12_push prints changed after it ran: run it again"


def test_logs_are_the_same_up_to_rounding_in_what_gates_say_and_in_nothing_else(tmp_path: Path) -> None:
    log = pd.DataFrame(
        {
            "output": ["a", "b"], "answer_prob": [0.5, 0.25], "gate_value": [800.0, -3.0],
            "gate_values": [[800.0, 1.0], [-3.0, -4.0]], "opened": [True, False], "seconds": [1.0, 2.0],
        }
    )  # fmt: skip
    closed = log.assign(gate_value=[None, None], gate_values=[None, None])

    def same(first: pd.DataFrame, second: pd.DataFrame) -> bool:
        for name, table in (("a", first), ("b", second)):
            table.to_parquet(tmp_path / name)
        return confirm._same(tmp_path / "a", tmp_path / "b")

    assert same(log, log.assign(seconds=9.0, gate_value=log["gate_value"] + 1e-4))
    assert same(log, log.assign(gate_values=[[800.0, 1.0001], [-3.0, -4.0]])) and same(closed, closed)
    for other in (
        log.assign(gate_value=log["gate_value"] + 1e-2),
        log.assign(gate_values=[[800.0, 1.0], [-3.0]]),
        log.assign(answer_prob=log["answer_prob"] + 1e-12),
        log.assign(opened=[True, True]),
        log.drop(columns="gate_value"),
        closed,
    ):
        assert not same(log, other)
