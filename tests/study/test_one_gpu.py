"""The profile of one machine with one GPU, without it: jobs run to their end, those that ask for it in turn."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eraser_lib.study import matrix, preset
from tests.study.conftest import CELL
from tests.study.toys import HERE, PRESET, notebook

pytestmark = pytest.mark.slow
WORLD = "all-all-01_world"
ALONE = """\
import time, pathlib
gpu = pathlib.Path("gpu")
gpu.touch(exist_ok=False)  # where another job holds it, this one fails
time.sleep(1)
gpu.unlink()
"""


def snakemake(clone: Path, name: str, *options: str) -> str:
    """Runs jobs of a preset under the profile; returns what was said."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/one-gpu", "--config", f"preset={name}"]
    done = subprocess.run([*command, *options], cwd=clone, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_job_of_the_micro_study_runs_to_its_end(clone: Path) -> None:
    # the notebooks of the other jobs stay toys: they are planned and not run
    shutil.copy(HERE / "notebooks" / "01_world.ipynb", clone / "notebooks")
    shutil.copy(HERE / "presets" / "micro.yml", clone / "presets")
    said = snakemake(clone, "micro", "--", f"runs/micro/manifests/{WORLD}.json")
    assert "Using profiles profiles/one-gpu " in said and "1 of 1 steps (100%) done" in said
    written = json.loads((clone / "runs/micro/manifests" / f"{WORLD}.json").read_text())
    assert written["parameters"] == dict(matrix.jobs(preset.load("micro"))[WORLD].parameters)
    assert written["world"] == json.loads((clone / "runs/micro/world/world.json").read_text())["content_hash"]
    assert [path.name for path in (clone / "runs/micro/manifests").iterdir()] == [f"{WORLD}.json"]


def test_jobs_that_ask_for_the_gpu_run_one_at_a_time(clone: Path) -> None:
    """Toys that ask for it and use none, where two cores would let both run."""
    (clone / "presets" / "toy.yml").write_text(PRESET + "device: cuda\njobs: [01_world, 02_models]\n")
    text = notebook("#md A title", ALONE, parameters=CELL + 'model: str = "llava"\n')
    (clone / "notebooks" / "02_models.ipynb").write_text(text)
    said = snakemake(clone, "toy", "--cores", "2", "--retries", "0")
    assert said.count("localrule notebook:") == 2
    names = {path.stem for path in (clone / "runs/toy/manifests").iterdir()}
    assert names == {WORLD, "llava-all-02_models", "qwen-all-02_models"}


def test_a_job_that_died_is_tried_again_with_more_minutes(clone: Path) -> None:
    asks = "device: cuda\njobs: [01_world, 02_models]\nminutes: {02_models: 5}\n"
    (clone / "presets" / "toy.yml").write_text(PRESET + asks)
    dies = (
        "import os, pathlib\nif not pathlib.Path('tried').exists():\n    pathlib.Path('tried').touch()\n    os._exit(1)"
    )
    text = notebook("#md A title", dies, parameters=CELL + 'model: str = "llava"\n')
    (clone / "notebooks" / "02_models.ipynb").write_text(text)
    # of one job, with what it needs; no job may ask for more than half an hour
    said = snakemake(clone, "toy", "longest=30", "--", "runs/toy/manifests/qwen-all-02_models.json")
    assert "Trying to restart job" in said
    asked = re.findall(r"runtime=(\d+)", said)
    assert "20" in asked, "four times what is expected"
    assert asked[-1] == "30", "then twice as many, but for the longest that a partition takes"
    assert (clone / "runs/toy/manifests/qwen-all-02_models.json").is_file()
