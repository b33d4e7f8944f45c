from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eraser_lib.study import kept, manifest, matrix, preset, progress, runner
from eraser_lib.study.paths import StudyError
from tests.study.toys import notebook

Command = Callable[..., "subprocess.CompletedProcess[str]"]
CELL = 'model: str = "llava"\nstrength: float = 1.0\n'
MANIFEST_KEYS = {
    "notebook", "parameters", "sources", "world", "checkpoint", "git_commit", "device", "machine", "python",
    "packages", "seconds", "peak_memory_bytes", "created",
}  # fmt: skip


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., Path]:
    """Runs cells as a notebook; returns the folder with ``out.ipynb`` and ``failed.ipynb``, if any."""

    def run(*cells: str, **given: Any) -> Path:
        source = tmp_path / "source.ipynb"
        source.write_text(notebook(*cells, parameters=CELL))
        runner.execute(
            source, tmp_path / "made" / "out.ipynb", given, failed=tmp_path / "made" / "failed.ipynb",
            working_directory=tmp_path,
        )  # fmt: skip
        return tmp_path / "made"

    return run


def test_an_executed_notebook_holds_outputs_and_no_path_of_this_machine(execute: Callable[..., Path]) -> None:
    where = "import site; print(f'{site.getsitepackages()[0]}/tqdm/auto.py: a warning')"
    here = "import os; print(f'in {os.getcwd()}/eraser_lib/x.py')"
    made = execute("print(model, strength)", where, here, model="qwen", strength=2)
    text = (made / "out.ipynb").read_text()
    assert "qwen 2" in text
    assert "tqdm/auto.py: a warning" in text
    assert "in eraser_lib/x.py" in text
    assert str(made.parent) not in text
    assert sys.prefix not in text
    assert sorted(path.name for path in made.iterdir()) == ["out.ipynb"]


def test_a_mistyped_or_wrong_parameter_never_starts(execute: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="Did you mean 'strength'"):
        execute("open('ran', 'w')", strenght=2.0)
    with pytest.raises(StudyError, match="strength must be float"):
        execute("open('ran', 'w')", strength="1e-3")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "made").exists()


def test_a_failed_cell_leaves_the_old_result_and_keeps_the_notebook(execute: Callable[..., Path]) -> None:
    made = execute("print('good')")
    with pytest.raises(StudyError, match=r"cell \d+ of source.ipynb failed: ZeroDivisionError") as caught:
        execute("1 / 0")
    assert str(made / "failed.ipynb") in str(caught.value)
    assert "ZeroDivisionError" in (made / "failed.ipynb").read_text()
    assert "good" in (made / "out.ipynb").read_text()
    execute("print('better')")
    assert sorted(path.name for path in made.iterdir()) == ["out.ipynb"]


def test_a_job_writes_its_manifest_last_and_complete(clone: Path, command: Command) -> None:
    done = command("run", "--job", "all-all-01_world")
    assert done.returncode == 0, done.stderr
    written = json.loads((clone / "runs/toy/manifests/all-all-01_world.json").read_text())
    assert set(written) >= MANIFEST_KEYS
    assert written["notebook"] == "01_world"
    assert written["parameters"] == {"preset": "toy", "seed": 0, "out": "runs/toy"}
    assert written["peak_memory_bytes"] > 10e6
    assert written["seconds"] > 0
    assert str(clone) not in json.dumps(written)
    progress = json.loads((clone / "runs/toy/.study/progress/all-all-01_world.json").read_text())
    assert progress["state"] == "done"


def test_what_a_job_kept_is_there_for_its_next_run_and_gone_after_it(clone: Path, command: Command) -> None:
    path = clone / "notebooks" / "01_world.ipynb"
    made = clone / "made"
    cells = f"""import pathlib
from eraser_lib.study.kept import kept
def make(): print("made", file=open({str(made)!r}, "a")); return [1.5, {{"b": None, "a": True}}]
assert kept("a part", make) == [1.5, {{"b": None, "a": True}}]
assert pathlib.Path({str(clone / "go")!r}).exists(), 'stopped'"""
    path.write_text(notebook(cells, parameters='preset: str = "toy"\nseed: int = 0\nout: str = "runs/toy"\n'))
    folder = clone / "runs/toy/.study/kept/all-all-01_world"
    for _ in range(2):
        assert command("run", "--job", "all-all-01_world").returncode == 2
        assert made.read_text() == "made\n", "once"
    assert list(folder.iterdir())
    path.write_text(path.read_text().replace("1.5", "2.5"))
    assert command("run", "--job", "all-all-01_world").returncode == 2
    assert made.read_text() == "made\nmade\n", "other code"
    (clone / "go").touch()
    assert command("run", "--job", "all-all-01_world").returncode == 0
    assert not folder.exists() and made.read_text() == "made\nmade\n"


def test_a_failed_job_has_neither_notebook_nor_manifest(clone: Path, command: Command) -> None:
    path = clone / "notebooks" / "01_world.ipynb"
    cell = 'preset: str = "toy"\nseed: int = 0\nout: str = "runs/toy"\n'
    path.write_text(notebook("raise RuntimeError('no world')", parameters=cell))
    done = command("run", "--job", "all-all-01_world")
    assert done.returncode == 2
    assert "RuntimeError: no world" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p for p in (clone / "runs/toy").rglob("*.ipynb") if p.parent.name != "failed"] == []
    assert not list((clone / "runs/toy/manifests").glob("*"))
    assert (clone / "runs/toy/failed/all-all-01_world.ipynb").is_file()


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("llama-5-03_direction", "no job 'llama-5-03_direction'"),
        ("llava-5-03_direction", "needs llava-all-02_models"),
    ],
)
def test_an_unknown_job_and_one_that_comes_too_early_are_refused(command: Command, job: str, message: str) -> None:
    done = command("run", "--job", job)
    assert done.returncode == 2
    assert message in done.stderr


def test_inputs_change_with_code_and_parameters_but_not_with_text(clone: Path) -> None:
    found = preset.load("toy")
    job = matrix.jobs(found)["all-all-01_world"]
    before = manifest.inputs(job, found)
    path = clone / "notebooks" / "01_world.ipynb"
    path.write_text(path.read_text().replace("A title", "Another title"))
    assert manifest.inputs(job, found) == before
    path.write_text(path.read_text().replace("seed + 1", "seed + 2"))
    now = manifest.inputs(job, found)
    reasons = manifest.stale_reasons({**before, "inputs_parameters": before["parameters"]}, now)
    assert reasons == ["the code of notebooks/01_world.ipynb changed"]


def test_every_kind_of_staleness_is_named() -> None:
    sources = {"notebook": "n", "modules": {"a": "1", "b": "1"}}
    now = {"notebook": "x", "sources": sources, "parameters": {"seed": 1}, "settings": "s", "checkpoint": "c"}
    then = {
        "sources": {"notebook": "n", "modules": {"a": "2", "c": "1"}}, "inputs_parameters": {"seed": 0},
        "settings": "t", "checkpoint": None,
    }  # fmt: skip
    assert manifest.stale_reasons(then, now) == [
        "a changed",
        "b is newly used",
        "c is no longer used",
        "parameter seed: 0 then, 1 now",
        "the preset's settings changed",
        "the checkpoints changed",
    ]


def test_results_that_a_job_reads_are_part_of_what_it_is_made_from(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert manifest.results_hashes(["a", "b"], tmp_path) == {"a": None, "b": None}
    write("a/summary.csv", "1")
    write("a/figures/llava/width.json", "{}")
    first = manifest.results_hashes(["a"], tmp_path)
    write("a/figures/llava/width.svg", "a picture")
    write("a/manifests/x.json", "a time")
    assert manifest.results_hashes(["a"], tmp_path) == first
    write("a/figures/llava/width.json", '{"auc": 1}')
    assert manifest.results_hashes(["a"], tmp_path) != first
    then = {"sources": {"notebook": "n", "modules": {}}, "settings": "s", "checkpoint": None}
    now = {**then, "notebook": "x", "parameters": {}, "studies": {"a": "2"}}
    assert manifest.stale_reasons({**then, "studies": {"a": "2"}}, now) == []
    assert manifest.stale_reasons({**then, "studies": {"a": "1"}}, now) == ["results/a changed"]
    assert manifest.stale_reasons(then, now) == ["results/a changed"], "one that had read none"


def test_only_a_job_that_compares_studies_is_told_of_them() -> None:
    jobs = matrix.jobs(preset.load("tiny-full"))
    told = {name: job.parameters["studies"] for name, job in jobs.items() if "studies" in job.parameters}
    others = ["tiny-64", "tiny-128", "gpu"]
    assert told == {"all-all-20_sizes": others}
    assert list(manifest.inputs(jobs["all-all-20_sizes"], preset.load("tiny-full"))["studies"]) == others
    assert "studies" not in manifest.inputs(jobs["llava-5-15_width"], preset.load("tiny-full"))


def test_new_weights_change_the_fingerprint_of_the_branches_that_a_job_reads(tmp_path: Path) -> None:
    def fingerprint(model: str | None, *branches: str) -> str | None:
        return manifest.checkpoint_hash(tmp_path, model, branches or ("vanilla",))

    def write(branch: str, content: bytes) -> None:
        (tmp_path / "llava" / branch).mkdir(parents=True, exist_ok=True)
        (tmp_path / "llava" / branch / "model.safetensors").write_bytes(content)

    assert fingerprint("llava") is None
    write("vanilla", b"1")
    first = fingerprint("llava")
    assert fingerprint(None) == first
    assert fingerprint("qwen") is None
    write("retain_only_5", b"3")
    assert fingerprint("llava") == first, "a job that reads vanilla alone does not depend on the references"
    assert fingerprint("llava", "vanilla", "retain_only_*") != first
    write("vanilla", b"22")
    assert fingerprint("llava") != first


def test_a_job_reads_the_references_of_its_own_share() -> None:
    jobs = matrix.jobs(preset.load("tiny-full"))
    assert jobs["llava-5-06_baselines"].branches == ("vanilla", "retain_only_5*")
    assert jobs["llava-10-06_baselines"].branches == ("vanilla", "retain_only_10*")
    assert jobs["llava-5-06_erase"].branches == ("vanilla",)


def test_logs_of_other_code_are_not_resumed(clone: Path) -> None:
    found = preset.load("toy")
    job = matrix.jobs(found)["llava-5-06_erase"]
    made_from = manifest.inputs(job, found)
    logs = {name: found.run.logs / "llava" / "5" / name / "seed0.parquet" for name in ("mllmeraser", "ga_diff")}
    for path in logs.values():
        path.parent.mkdir(parents=True)
        path.write_text("answers")
    runner.drop_old(job, found.run, made_from)
    assert not logs["mllmeraser"].exists(), "nobody knows which code made it"
    assert logs["ga_diff"].exists(), "the log of another job"
    logs["mllmeraser"].parent.mkdir()
    logs["mllmeraser"].write_text("answers")
    runner.drop_old(job, found.run, made_from)
    assert logs["mllmeraser"].exists(), "the same job goes on where it was stopped"
    runner.drop_old(job, found.run, {**made_from, "sources": {"notebook": "x", "modules": {}}})
    assert not logs["mllmeraser"].exists()


def test_a_manifest_names_the_commit_that_the_job_began_with(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        done = subprocess.run(["git", *who, *arguments], cwd=clone, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    first = git("rev-parse", "HEAD")
    monkeypatch.setattr(runner, "execute", lambda *_, **__: git("commit", "--allow-empty", "-m", "meanwhile"))
    toy = preset.load("toy")
    job = next(iter(matrix.jobs(toy).values()))
    manifest.git_state.cache_clear()
    try:
        runner.run(job, toy, toy.run)
    finally:
        manifest.git_state.cache_clear()
    assert git("rev-parse", "HEAD") != first
    assert json.loads(toy.run.manifest(job.name).read_text())["git_commit"] == first


def test_a_job_leaves_the_environment_as_it_was(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(manifest, "git_state", lambda: {"git_commit": "0" * 40, "git_dirty": False})
    monkeypatch.setattr(runner, "execute", lambda *_, **__: seen.update(os.environ))
    monkeypatch.setenv(progress.VARIABLE, "somewhere")
    monkeypatch.delenv(kept.VARIABLE, raising=False)
    toy = preset.load("toy")
    job = next(iter(matrix.jobs(toy).values()))
    before = dict(os.environ)
    runner.run(job, toy, toy.run)
    assert seen[kept.VARIABLE] == str(toy.run.kept(job.name)) and seen[progress.VARIABLE] != "somewhere"
    assert dict(os.environ) == before


def test_a_job_that_goes_on_counts_the_seconds_of_what_it_found(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "git_state", lambda: {"git_commit": "0" * 40, "git_dirty": False})
    toy = preset.load("toy")
    job = next(iter(matrix.jobs(toy).values()))
    folder = toy.run.kept(job.name)

    def part(*_: object, fail: bool, **__: object) -> None:
        kept.kept("a training", lambda: time.sleep(0.01))
        if fail:
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "execute", partial(part, fail=True))
    with pytest.raises(KeyboardInterrupt):
        runner.run(job, toy, toy.run)
    (path,) = folder.glob("*.json")
    found = json.loads(path.read_text())
    assert found["seconds"] >= 0.01
    path.write_text(json.dumps({**found, "seconds": 5000.0}))
    monkeypatch.setattr(runner, "execute", partial(part, fail=False))
    runner.run(job, toy, toy.run)
    assert 5000 <= json.loads(toy.run.manifest(job.name).read_text())["seconds"] < 5600
    assert not folder.exists() and kept.seconds(folder) == 0
