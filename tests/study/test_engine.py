"""The whole front end with toy notebooks: resume, kill, locks. Real processes, so each test takes seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from eraser_lib.study import checkpoints, engine, matrix, preset, progress, runner
from eraser_lib.study.paths import StudyError, read_json, write_json
from tests.study.toys import HERE, PRESET, notebook

# the toy notebooks write no logs, so there is nothing to summarise
FRONT = """
import signal
import sys
from eraser_lib.study import summary
summary.write = lambda *arguments: None
from eraser_lib.study.__main__ import main
# a shell ignores Ctrl-C for what it starts in the background, and so would every process below it
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(["study", "--preset", "toy", "--cores", "2"]))
"""
CELL = 'preset: str = "toy"\nseed: int = 0\nout: str = "runs/toy"\n'
MODEL = CELL + 'model: str = "llava"\n'


@pytest.fixture
def start(clone: Path) -> Callable[[], subprocess.Popen[str]]:
    """Starts the front end over three jobs: the world, then both models."""
    (clone / "presets" / "toy.yml").write_text(PRESET + "jobs: [01_world, 02_models]\n")

    def run() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", FRONT],
            cwd=clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return run


def written(clone: Path) -> list[str]:
    return sorted(path.stem for path in (clone / "runs/toy/manifests").glob("*.json"))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.time() + seconds
    while not condition():
        assert time.time() < until, "waited in vain"
        time.sleep(0.1)


def slow_models(clone: Path) -> Path:
    """Make the second row last until a file appears."""
    gate = clone / "go"
    cell = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.1)"
    (clone / "notebooks" / "02_models.ipynb").write_text(notebook(cell, parameters=MODEL))
    return gate


@pytest.mark.slow
def test_a_finished_run_repeats_nothing_and_an_edit_reruns_what_depends_on_it(
    clone: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    output, _ = start().communicate(timeout=120)
    assert "All 3 jobs are complete" in output, output
    assert written(clone) == ["all-all-01_world", "llava-all-02_models", "qwen-all-02_models"]
    times = {path: path.stat().st_mtime for path in (clone / "runs/toy/notebooks").iterdir()}

    for path in (clone / "notebooks").iterdir():
        os.utime(path)  # a fresh clone has fresh times: they must not count
    output, _ = start().communicate(timeout=120)
    assert "3 jobs, 3 complete" in output
    assert {path: path.stat().st_mtime for path in times} == times
    found = preset.load("toy")
    assert engine.plan(found, cores=2) == ["0 of 3 jobs to run: about 0 s, 2 at a time (0 s of work)."]

    path = clone / "notebooks" / "02_models.ipynb"
    path.write_text(path.read_text().replace("seed + 1", "seed + 2"))
    before = sorted(path.stat().st_mtime for path in (clone / "runs").rglob("*"))
    *lines, total = engine.plan(found, cores=2)
    assert [line.split()[0] for line in lines] == ["llava-all-02_models", "qwen-all-02_models"]
    assert total == "2 of 3 jobs to run: about 60 s, 2 at a time (2 min of work)."
    assert sorted(path.stat().st_mtime for path in (clone / "runs").rglob("*")) == before, "nothing is written"
    output, _ = start().communicate(timeout=120)
    assert "3 jobs, 1 complete" in output
    assert "all-all-01_world: started" not in output
    assert "qwen-all-02_models: done" in output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_stopped_run_leaves_no_process_and_resumes(
    clone: Path, start: Callable[[], subprocess.Popen[str]], number: signal.Signals
) -> None:
    gate = slow_models(clone)
    front = start()
    wait_for(lambda: (clone / "runs/toy/.study/progress/qwen-all-02_models.json").is_file())
    front.send_signal(number)
    output, _ = front.communicate(timeout=60)
    assert front.returncode == (-9 if number == signal.SIGKILL else 130), output
    assert written(clone) == ["all-all-01_world"]

    def at_work() -> bool:
        return any(
            process.info["cmdline"] and str(clone) in " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cmdline"])
        )

    wait_for(lambda: not at_work())
    gate.touch()
    output, _ = start().communicate(timeout=120)
    assert "3 jobs, 1 complete" in output
    assert "All 3 jobs are complete" in output, output


@pytest.mark.slow
def test_a_second_run_at_the_same_time_is_refused(clone: Path, start: Callable[[], subprocess.Popen[str]]) -> None:
    gate = slow_models(clone)
    first = start()
    wait_for(lambda: (clone / "runs/toy/manifests/all-all-01_world.json").is_file())
    second = start()
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "Another study is at work" in output
    gate.touch()
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output


@pytest.mark.slow
def test_a_failed_cell_is_shown_and_the_other_jobs_go_on(
    clone: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    cell = "if model == 'qwen':\n    raise ValueError('no such eye')"
    (clone / "notebooks" / "02_models.ipynb").write_text(notebook(cell, parameters=MODEL))
    front = start()
    output, _ = front.communicate(timeout=120)
    assert front.returncode == 2
    assert "ValueError: no such eye" in output
    assert "Failed (messages above): qwen-all-02_models" in output
    assert written(clone) == ["all-all-01_world", "llava-all-02_models"]


def lock(base: Path) -> Path:
    folder = base / ".snakemake" / "locks"
    folder.mkdir(parents=True)
    (folder / "0.input.lock").write_text("x")
    return folder


def test_a_lock_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    folder = lock(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", ""])
    created = psutil.Process(process.pid).create_time()
    process.wait()
    write_json(tmp_path / ".snakemake" / "study.json", {"pid": process.pid, "created": created})
    assert engine.free_snakemake(tmp_path)
    assert not folder.exists()
    assert not engine.free_snakemake(tmp_path)


def test_a_lock_of_a_living_snakemake_stays(tmp_path: Path) -> None:
    folder = lock(tmp_path)
    command = ["bash", "-c", "exec -a snakemake sleep 30"]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        try:
            wait_for(lambda: psutil.Process(process.pid).cmdline()[:1] == ["snakemake"])
            with pytest.raises(StudyError, match=f"process {process.pid}"):
                engine.free_snakemake(tmp_path)
        finally:
            process.kill()
    assert folder.exists()


def test_a_reused_process_number_is_not_the_process() -> None:
    me = psutil.Process()
    assert runner.alive(me.pid, me.create_time())
    assert not runner.alive(me.pid, me.create_time() - 100)


def test_records_are_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "x.json", {"b": 1, "a": [1.5, None]})
    assert json.loads((tmp_path / "a" / "x.json").read_text()) == {"a": [1.5, None], "b": 1}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.json"]


PROFILES = sorted(path.parent.name for path in (HERE / "profiles").glob("*/config.yaml"))


@pytest.mark.parametrize(
    ("profile", "name"), [("default", "toy"), *((one, name) for one in PROFILES for name in ("gpu", "paper"))]
)
def test_every_profile_plans_the_whole_matrix(clone: Path, profile: str, name: str) -> None:
    """A dry run: the profile's options exist, its executor is installed, and every job gets its resources."""
    if name != "toy":
        shutil.copy(HERE / "presets" / f"{name}.yml", clone / "presets")
    command = [sys.executable, "-m", "snakemake", "-n", "--profile", f"profiles/{profile}"]
    command += ["--config", f"preset={name}"]
    if profile == "default":
        command += ["--cores", "2"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = preset.load(name)
    jobs, trained = matrix.jobs(found), checkpoints.fine_tunings(found)
    on_gpu = [job for job in jobs.values() if job.on_device] if found.device == "cuda" else []
    assert (len(trained), bool(on_gpu)) == {"toy": (0, False), "gpu": (0, True), "paper": (12, True)}[name]
    text = done.stdout + done.stderr
    assert re.search(rf"^total +{len(jobs) + len(trained) + 1}$", text, re.MULTILINE)
    asked = re.findall(r"^ *resources: .*mem_mb=(\d+).*$", text, re.MULTILINE)
    wanted = [job.memory_mb for job in jobs.values()] + len(trained) * [found.fine_tuning.get("memory_mb")]
    assert sorted(map(int, asked)) == sorted(wanted)
    limits = [max(10, int(4 * job.minutes)) for job in jobs.values()]
    limits += len(trained) * [4 * found.fine_tuning.get("minutes", 0)]
    assert sorted(map(int, re.findall(r"^ *resources: .*\bruntime=(\d+)", text, re.MULTILINE))) == sorted(limits)
    assert len(re.findall(r"^ *resources: .*\bgpu=1\b", text, re.MULTILINE)) == len(on_gpu) + len(trained)


@pytest.mark.parametrize("name", ["tiny-full", "tiny-64", "tiny-128", "gpu"])
def test_a_job_asks_for_the_memory_that_it_took(name: str) -> None:
    """A batch system ends one that takes more; in `gpu` the device's own share of the process counts as well."""
    found = preset.load(name)
    done = {job: found.reference.manifest(job) for job in matrix.jobs(found)}
    took = {job: read_json(path)["peak_memory_bytes"] / 2**20 for job, path in done.items() if path.is_file()}
    assert len(took) >= 5
    assert {job: mb for job, mb in took.items() if mb > matrix.jobs(found)[job].memory_mb} == {}


def test_no_option_of_a_profile_is_overridden_by_the_default_profile() -> None:
    """Snakemake takes an option that stands in both from ``profiles/default``, whichever profile is named."""
    options = {name: set(yaml.safe_load((HERE / "profiles" / name / "config.yaml").read_text())) for name in PROFILES}
    assert {name: options[name] & options["default"] for name in PROFILES if name != "default"} == {
        "kubernetes": set(),
        "one-gpu": set(),
        "slurm": set(),
    }


def test_profiles_of_machines_that_die_try_again() -> None:
    """A failed cell fails again, so not on one's own machine; but on a GPU or a cluster jobs die of other things."""
    found = {name: yaml.safe_load((HERE / "profiles" / name / "config.yaml").read_text()) for name in PROFILES}
    assert {name: options.get("retries", 0) for name, options in found.items()} == {
        "default": 0,
        "kubernetes": 2,
        "one-gpu": 1,
        "slurm": 2,
    }


def test_a_plan_tells_what_queues_for_the_gpu_and_what_is_fine_tuned_before() -> None:
    paper = preset.load("paper")
    *_, total, tunings = engine.plan(paper, cores=16)
    left = progress.in_words(60 * sum(job.minutes for job in matrix.jobs(paper).values() if job.on_device))
    assert f"jobs to run: about {left}, 16 at a time, of those with a model 1 (" in total
    assert tunings == "Before them 'make models' has 12 fine-tunings to do, one after the other: about 24 h 00 min."
