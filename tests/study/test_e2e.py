"""The micro study end to end: every notebook through papermill for both families, by the command of `make study`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd
import pytest

from eraser_lib.study import check, matrix, preset, report
from tests.study.toys import HERE


def _from_nothing(name: str) -> preset.Preset:
    """A preset after a run from nothing."""
    found = preset.load(name)
    shutil.rmtree(found.run.path, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "eraser_lib.study", "study", "--preset", name, "--cores", "2"],
        cwd=HERE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return found


@pytest.fixture(scope="module")
def micro() -> Iterator[preset.Preset]:
    """The preset ``micro`` after a run."""
    previous = os.getcwd()
    os.chdir(HERE)
    try:
        yield _from_nothing("micro")
    finally:
        os.chdir(previous)


@pytest.fixture(scope="module")
def published(micro: preset.Preset) -> preset.Preset:
    """``micro-bench``, the path of ``paper``, which reads the world of ``micro`` as a published benchmark."""
    return _from_nothing("micro-bench")


@pytest.mark.e2e
def test_every_job_is_complete_and_current(micro: preset.Preset) -> None:
    assert check.stale(micro, micro.run) == []
    assert not list((micro.run.path / "failed").glob("*.ipynb"))


@pytest.mark.e2e
def test_executed_notebooks_ran_to_their_end(micro: preset.Preset) -> None:
    for name in matrix.jobs(micro):
        content = json.loads(micro.run.notebook(name).read_text())
        assert content["metadata"]["papermill"]["exception"] is None
        assert all(o["output_type"] != "error" for cell in content["cells"] for o in cell.get("outputs", []))
        assert str(HERE) not in json.dumps(content), f"{name} holds a path of this machine"


@pytest.mark.e2e
def test_every_log_belongs_to_the_job_that_says_so(micro: preset.Preset) -> None:
    """What a job declares is dropped before it runs on other code; an undeclared log would be resumed."""
    found = {path.parent.relative_to(micro.run.logs).as_posix() for path in micro.run.logs.rglob("seed*.parquet")}
    declared = {name for job in matrix.jobs(micro).values() for name in job.logs}
    assert found <= declared


@pytest.mark.e2e
def test_the_summary_is_tidy(micro: preset.Preset) -> None:
    table = pd.read_csv(micro.run.summary, dtype={"split": str, "seed": str})
    wanted = [
        "preset",
        "model",
        "split",
        "method",
        "seed",
        "subset",
        "modality",
        "task",
        "metric",
        "value",
        "ci_low",
        "ci_high",
        "n",
        "n_people",
    ]
    assert set(wanted) <= set(table.columns)
    assert set(table["preset"]) == {"micro"}
    assert set(table["model"]) == {"llava", "qwen"}
    assert not table.duplicated(wanted[:9]).any()
    # a gate value is a number of its own scale, not a rate
    fractions = table[~table["metric"].str.contains("logprob|truth|seconds|ratio|gate_value")]
    assert fractions["value"].dropna().between(0, 1).all()


@pytest.mark.e2e
def test_a_run_reproduces_itself(micro: preset.Preset) -> None:
    assert report.compare(micro.run, micro.run, trained=micro.trained).reproduced


@pytest.mark.e2e
def test_a_published_benchmark_goes_the_same_way(published: preset.Preset) -> None:
    assert check.stale(published, published.run) == []
    described = json.loads((published.run.path / "world" / "world.json").read_text())
    assert described["protocol"] == "zero_shot"
    table = pd.read_csv(published.run.summary)
    assert set(table["split"]) == {10}
    assert {"vanilla", "mllmeraser", "npo", "rmu", "leace"} <= set(table["method"])
    assert "same_photo" not in set(table["subset"]), "nobody wrote down what is to be seen on a published picture"


def test_the_study_of_the_paper_is_that_of_the_micro_benchmark_and_more() -> None:
    """Each notebook that `paper` runs is run by `micro-bench`: one trained method with adapters, one that has none."""
    small, large = (matrix.jobs(preset.load(name)) for name in ("micro-bench", "paper"))
    assert {job.notebook for job in large.values()} == {job.notebook for job in small.values()}
    assert {job.split for job in large.values()} == {None, 5, 10, 15}
    assert {job.memory_mb for job in large.values() if job.on_device} == {96000}
    assert max(job.memory_mb for job in large.values() if not job.on_device) == 24000, "two fit into 120 GB"
    assert {job.kind.name for job in large.values() if not job.on_device} == {"01_world", "07_compare", "20_sizes"}
    assert large["llava-10-08_npo"].parameters["lora"] == 16
    assert large["llava-10-08_rmu"].parameters["lora"] == 0
    assert not [name for name in large if name.endswith("05_pca") and "-5-" not in name]
