"""The workflows of continuous integration: they call what exists here, and a failed book is never deployed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eraser_lib.study import preset

HERE = Path(__file__).parents[2]
FILES = sorted((HERE / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step_calls_a_target_or_a_program_of_the_repository(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (HERE / "Makefile").read_text(), re.MULTILINE))
    for name, job in jobs(path).items():
        assert job["runs-on"] in ("ubuntu-latest", ["self-hosted", "gpu"]), name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]), "only actions of the platform itself"
                continue
            for line in step["run"].splitlines():
                program, *words = line.split()
                if program == "make":
                    assert words[0] in targets
                else:
                    assert os.access(HERE / program, os.X_OK), f"{program} is no program of this repository"


@pytest.mark.skipif(sys.platform != "linux", reason="installed on Linux alone")
def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    def lint(folder: Path) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("actionlint")
        return subprocess.run([program, "-oneline"], cwd=folder, capture_output=True, text=True, check=False)

    done = lint(HERE)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    broken = tmp_path / ".github" / "workflows" / "broken.yml"
    broken.parent.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    broken.write_text("on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    needs: b\n    steps:\n      - run: ls\n")
    assert 'job "a" needs job "b"' in lint(tmp_path).stdout


def test_nothing_is_deployed_that_did_not_build() -> None:
    book = jobs(HERE / ".github" / "workflows" / "book.yml")
    assert book["deploy"]["needs"] == "build" and "if" not in book["deploy"]
    steps = book["build"]["steps"]
    assert not any(step.get("continue-on-error") or "if" in step for step in steps)
    built, uploaded = (
        next(number for number, step in enumerate(steps) if text in str(step.get("run", step.get("uses"))))
        for text in ("make book", "upload-pages-artifact")
    )
    assert built < uploaded and steps[uploaded]["with"]["path"] == "_build/html"


def test_a_gpu_runner_installs_for_a_gpu_and_publishes_nothing() -> None:
    path = HERE / ".github" / "workflows" / "gpu.yml"
    content = yaml.safe_load(path.read_text())
    (job,) = content["jobs"].values()
    assert job["runs-on"] == ["self-hosted", "gpu"]
    assert (HERE / content["env"]["REQUIREMENTS"]).is_file(), "make reads the variable from the environment"
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make setup", "make models", "make study"]
    (kept,) = (step for step in job["steps"] if "upload-artifact" in str(step.get("uses")))
    assert kept["with"]["if-no-files-found"] == "error"
    assert kept["with"]["include-hidden-files"] and "runs" in kept["with"]["path"].split(), "consoles of killed jobs"
    (asked,) = content[True]["workflow_dispatch"]["inputs"].values()  # yaml reads `on` as true
    assert asked["type"] == "choice", "make puts the name of a preset into a shell"
    assert all(preset.load(name).device == "cuda" for name in asked["options"])
    assert "pages" not in path.read_text()


def test_a_pull_request_reruns_the_study_beside_the_tests() -> None:
    path = HERE / ".github" / "workflows" / "test.yml"
    assert "pull_request" in yaml.safe_load(path.read_text())[True]
    found = jobs(path)
    assert [step["run"] for job in found.values() for step in job["steps"] if "run" in step] == [
        ".ci/run",
        "make study",
    ]
    assert "PRESET" not in found["study"]["env"], "tiny, whose figures are compared with the reference"
    assert not any("needs" in job or job.get("continue-on-error") for job in found.values())


def test_permissions_are_the_least() -> None:
    for path in FILES:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
