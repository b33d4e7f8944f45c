"""The workflows of continuous integration: they call what exists here, and a failed book is never deployed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eraser_lib.study import preset

HERE = Path(__file__).parents[2]
FILES = sorted((HERE / ".github" / "workflows").glob("*.yml"))


def whole(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((HERE / ".github" / "workflows" / f"{name}.yml").read_text())
    content["on"] = content.pop(True)  # yaml reads `on` as true
    return content


def test_an_action_is_one_commit_everywhere_and_says_its_version() -> None:
    text = "\n".join(path.read_text() for path in FILES)
    named = re.findall(r"uses: *(\S+)@(.*)", text)
    assert len(named) > 10 and len(set(named)) == len({action for action, _ in named})
    assert all(re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+", version) for _, version in named)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step_calls_a_target_or_a_program_of_the_repository(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (HERE / "Makefile").read_text(), re.MULTILINE))
    for name, job in whole(path.stem)["jobs"].items():
        assert job["runs-on"] in ("ubuntu-latest", ["self-hosted", "gpu"]), name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]), "the platform's own, by its commit"
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
    book = whole("book")
    assert book["on"]["push"] == {"branches": ["main"]}
    build, deploy = book["jobs"]["build"], book["jobs"]["deploy"]
    assert deploy["needs"] == "build" and deploy["if"] == "github.ref == 'refs/heads/main'"
    assert [step.get("uses", "").partition("@")[0] for step in deploy["steps"]] == ["actions/deploy-pages"]
    steps = build["steps"]
    assert not any("if" in step for step in steps), "nothing is done after a step that failed"
    done = [step.get("run", step.get("uses", "").partition("@")[0]) for step in steps]
    assert done[-3:] == ["make book", "make check PRESET=tiny-full", "actions/upload-pages-artifact"]
    assert steps[-1]["with"]["path"] == "_build/html"
    others = [path.stem for path in FILES if "deploy-pages" in path.read_text()]
    assert others == ["book"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_job_runs_without_end_or_hides_a_failure(path: Path) -> None:
    assert "continue-on-error" not in path.read_text()
    content = whole(path.stem)
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        assert max(map(int, re.findall(r"\d+", str(job["timeout-minutes"])))) > 0
        wanted = {"pages": "write", "id-token": "write"} if name == "deploy" else {}
        assert job.get("permissions", {}) == wanted, "the least"
        for step in job["steps"]:
            if "actions/checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
    if path.stem != "links":
        assert content["concurrency"]["cancel-in-progress"] is (path.stem == "test"), "a study is never cut short"


@pytest.mark.parametrize(("name", "folder"), [("gpu", "gpu"), ("test", "tiny")])
def test_what_a_run_made_is_kept_though_it_failed(name: str, folder: str) -> None:
    steps = [step for job in whole(name)["jobs"].values() for step in job["steps"]]
    (kept,) = (step for step in steps if "upload-artifact" in step.get("uses", ""))
    assert kept["if"] == "always()" and kept["with"]["if-no-files-found"] == "error"
    assert kept["with"]["include-hidden-files"], "consoles of killed jobs"
    assert "run_attempt" in kept["with"]["name"], "a second attempt has an artifact of its own"
    run = preset.load(folder).run
    taken = kept["with"]["path"].replace("${{ env.PRESET }}", folder).split()
    names = {str(path.relative_to(HERE)) for path in (run.path, run.state / "console", run.path / "failed")}
    assert names & set(taken) and all(line.startswith((f"runs/{folder}", "!runs/", "checkpoints/")) for line in taken)


def test_a_gpu_runner_installs_for_a_gpu_and_publishes_nothing() -> None:
    content = whole("gpu")
    (job,) = content["jobs"].values()
    assert job["runs-on"] == ["self-hosted", "gpu"]
    assert (HERE / content["env"]["REQUIREMENTS"]).is_file(), "make reads the variable from the environment"
    assert content["env"]["HF_HOME"], "the hub's cache outlives a job"
    steps = {step["run"]: step.get("if") for step in job["steps"] if "run" in step}
    assert list(steps) == ["make setup", "make afresh", "make models", "make study"]
    assert content["on"]["schedule"] and steps.pop("make afresh") == "github.event_name == 'schedule' || inputs.afresh"
    assert set(steps.values()) == {None}
    (taken,) = (step for step in job["steps"] if "checkout" in step.get("uses", ""))
    assert taken["with"]["clean"] is False, "a stopped run goes on"
    asked, afresh = content["on"]["workflow_dispatch"]["inputs"].values()
    assert asked["type"] == "choice", "make puts the name of a preset into a shell"
    assert all(preset.load(name).device == "cuda" for name in asked["options"])
    assert (afresh["type"], afresh["default"]) == ("boolean", False)
    assert "pages" not in str(content)


def test_afresh_forgets_one_run_and_what_is_not_committed(tmp_path: Path) -> None:
    shutil.copy(HERE / "Makefile", tmp_path)
    (tmp_path / ".gitignore").write_text("/runs/\n/checkpoints/gpu/\n")
    (tmp_path / "requirements-cpu.txt").touch()
    for name in ("presets/gpu.yml", "presets/paper.yml", "checkpoints/tiny/kept"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for words in ("init -q", "add -A"):
        subprocess.run(["git", *words.split()], cwd=tmp_path, check=True)
    for name in ("runs/gpu/logs/a", "runs/paper/logs/a", "checkpoints/gpu/llava/model"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("gpu", "tiny"):
        subprocess.run(["make", "afresh", f"PRESET={name}", "PY=python"], cwd=tmp_path, check=True)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("[rc]*/**/*") if path.is_file())
    assert left == ["checkpoints/tiny/kept", "runs/paper/logs/a"]


def test_a_pull_request_reruns_the_study_beside_the_tests() -> None:
    content = whole("test")
    assert "pull_request" in content["on"] and content["on"]["push"] == {"branches": ["main"]}
    found = content["jobs"]
    assert [step["run"] for job in found.values() for step in job["steps"] if "run" in step] == [
        ".ci/run",
        "make study",
    ]
    assert "PRESET" not in found["study"]["env"], "tiny, whose figures are compared with the reference"
    assert not any("needs" in job for job in found.values())
