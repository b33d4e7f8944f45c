"""The front end of a whole run: checks, Snakemake over the matrix, progress, summary.

Snakemake decides what is to be done; this module adds what it lacks on a laptop: an estimate of the time left,
readable failures, and locks that a killed run does not leave behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from eraser_lib.study import checkpoints, manifest, promote, runner, summary
from eraser_lib.study.lock import locked
from eraser_lib.study.matrix import Job, jobs
from eraser_lib.study.paths import StudyError, read_json, root, write_json
from eraser_lib.study.preset import Preset
from eraser_lib.study.progress import Estimate, Monitor, expected_seconds, in_words

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""One thread per job: several jobs share the cores, and the thread count is part of what makes logs identical."""


def study(preset: Preset, *, cores: int) -> None:
    """Run every job of a preset that is not complete, then write the summary.

    Raises:
        StudyError: stale checkpoints, a job that failed, or another run at work in this clone.
        KeyboardInterrupt: stopped by the user; what was complete stays so.
    """
    begun = time.time()
    checkpoints.require(preset)
    matrix = jobs(preset)
    folder = preset.run
    busy = f"Another study is at work in {root()}. Wait for it, or stop it with Ctrl-C."
    with locked(root() / ".snakemake" / "study.lock", busy):
        free_snakemake(root())
        copied = promote.adopt(preset)
        manifest.refresh_inputs(matrix, preset, folder)
        complete = runner.complete(matrix, folder)
        estimate = _estimate(preset, matrix, cores)
        left = estimate.left(dict.fromkeys(complete, 0.0), {})
        print(f"Preset {preset.name}: {len(matrix)} jobs, {len(complete)} complete, {_at_a_time(estimate)}; "
              f"about {in_words(left)} to go. Stop with Ctrl-C; the same command resumes.", flush=True)  # fmt: skip
        if copied:
            print(f"{len(copied)} files of methods that this preset does not run are from {preset.reference.path}.",
                  flush=True)  # fmt: skip
        monitor = Monitor(matrix, folder, estimate)
        monitor.already_complete(complete)
        code = _snakemake(preset, cores, monitor, folder.console("snakemake"))
        failed = [name for name, state in monitor.states.items() if state == "failed"]
        now_complete = runner.complete(matrix, folder)
        missing = [name for name in matrix if name not in now_complete]
        if missing:
            raise StudyError(_explain(failed, missing, folder.console("snakemake"), code))
        summary.write(preset, folder)
        print(
            f"All {len(matrix)} jobs are complete after {in_words(time.time() - begun)}: {folder.path}",
            flush=True,
        )


def plan(preset: Preset, *, cores: int) -> list[str]:
    """What `study` would run, one line per job with its expected time, and how long all of it takes. Runs nothing."""
    matrix, folder = jobs(preset), preset.run
    estimate = _estimate(preset, matrix, cores)
    complete = runner.complete(matrix, folder, inputs=lambda job: manifest.inputs(job, preset))
    again = [name for name in matrix if name not in complete]
    left = in_words(estimate.left(dict.fromkeys(complete, 0.0), {}))
    work = in_words(sum(estimate.expected[name] for name in again))
    lines = [f"{name:32} about {in_words(estimate.expected[name])}" for name in again]
    lines.append(f"{len(again)} of {len(matrix)} jobs to run: about {left}, {_at_a_time(estimate)} ({work} of work).")
    if untrained := [one for one in checkpoints.fine_tunings(preset).values() if not one.there]:
        each = preset.fine_tuning["minutes"]
        lines.append(f"Before them 'make models' has {len(untrained)} fine-tunings to do, one after the other: "
                     f"about {in_words(60 * each * len(untrained))}.")  # fmt: skip
    return lines


def _estimate(preset: Preset, matrix: Mapping[str, Job], cores: int) -> Estimate:
    on_gpu = preset.on_gpu if preset.device == "cuda" else 0
    return Estimate(matrix, expected_seconds(matrix, preset.reference), cores, on_gpu)


def _at_a_time(estimate: Estimate) -> str:
    return f"{estimate.cores} at a time" + f", of those with a model {estimate.on_gpu}" * bool(estimate.on_gpu)


def _explain(failed: list[str], missing: list[str], console: Path, code: int) -> str:
    waiting = [name for name in missing if name not in failed]
    parts = [f"{len(missing)} jobs are not complete."]
    if failed:
        parts.append(f"Failed (messages above): {', '.join(failed)}.")
    if waiting:
        parts.append(f"Not run: {', '.join(waiting)}.")
    if not failed:
        last = "\n    ".join(console.read_text().splitlines()[-15:]) if console.is_file() else ""
        parts.append(f"Snakemake ended with code {code}; the end of {console}:\n    {last}")
    return " ".join(parts) + "\nPut the cause right and run the same command again: it resumes."


def _snakemake(preset: Preset, cores: int, monitor: Monitor, console: Path) -> int:
    memory = int(memory_bytes() * 0.85 / 2**20)
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(root() / "Snakefile"), "--directory", str(root()),
        "--cores", str(cores), "--resources", f"mem_mb={memory}", f"gpu={preset.on_gpu}",
        "--config", f"preset={preset.name}",
        "models=given",  # they are made by `make models`, and checked before
    ]  # fmt: skip
    me = psutil.Process()
    environment = {**os.environ, **THREADS, runner.DRIVER: f"{me.pid}:{me.create_time()}"}
    console.parent.mkdir(parents=True, exist_ok=True)
    with console.open("w") as log:
        # a session of its own: one signal to the group reaches Snakemake and its jobs together
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=root(), start_new_session=True
        )
        write_json(_record(root()), {"pid": child.pid, "created": psutil.Process(child.pid).create_time()})
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while child.poll() is None:
                monitor.poll()
                time.sleep(0.5)
            monitor.poll()
            return child.returncode
        except KeyboardInterrupt:
            print("Stopping; complete jobs are kept.", flush=True)
            raise
        finally:
            if child.poll() is None:
                _end_group(child.pid)
                child.wait()
                free_snakemake(root())
            signal.signal(signal.SIGTERM, previous)


def memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Memory of the machine, or what a container may take of it."""
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    total = int(psutil.virtual_memory().total)
    return min(total, int(allowed)) if allowed.isdigit() else total


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end_group(pid: int) -> None:
    """End a process group: politely, then for good."""
    for number, seconds in ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0)):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        until = time.time() + seconds
        while time.time() < until and _group_alive(pid):
            time.sleep(0.1)


def _group_alive(pid: int) -> bool:
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return False


def _record(base: Path) -> Path:
    return base / ".snakemake" / "study.json"


def free_snakemake(base: Path) -> bool:
    """Remove a lock that Snakemake left behind, if and only if the process that took it is dead.

    A Snakemake that outlived its killed front end is ended first: the record names it by number and start time.

    Returns:
        Whether a lock was removed.

    Raises:
        StudyError: a Snakemake that we did not start is at work in this clone.
    """
    record = _record(base)
    if record.is_file():
        last = read_json(record)
        if runner.alive(last["pid"], last["created"]):
            _end_group(last["pid"])
        record.unlink()
    locks = base / ".snakemake" / "locks"
    if not locks.is_dir() or not any(locks.iterdir()):
        return False
    at_work = _snakemake_in(base)
    if at_work is not None:
        raise StudyError(f"Snakemake (process {at_work}) is at work in {base}. Wait for it, or stop it.")
    shutil.rmtree(locks)
    return True


def _snakemake_in(base: Path) -> int | None:
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            named = any(Path(word).name == "snakemake" for word in line[:3])
            if named and Path(process.cwd()) == base.resolve() and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
        except (psutil.Error, OSError):
            continue
    return None
