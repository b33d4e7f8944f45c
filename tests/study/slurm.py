"""A SLURM cluster of one machine: the commands that Snakemake's executor calls, as far as it calls them.

A submitted job starts at once, in the background. Nothing is limited: what a job asks for is only written down. An
option that the executor was not seen to use is an error, as it would be for a real cluster that does not know it.
`install` writes the commands into a folder; `test_slurm.py` puts that folder first on ``PATH``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ACCOUNT = "study"
"""The one account that the cluster knows: that of the profile."""
FOLDER = "STAND_IN_SLURM"
"""Environment variable: the folder with the record of calls and one folder for each job."""
INSTEAD = "STAND_IN_SLURM_RUNS"
"""Environment variable: a shell command that every job runs in the place of its own, where it is set."""
PATIENCE = 50
"""Seconds for which ``sacct`` waits for a job's end; the executor waits 60 for ``sacct``."""


def install(folder: Path, *, instead: str | None = None) -> dict[str, str]:
    """Make a cluster without jobs in a new folder; returns the variables by which its commands are found."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in COMMANDS:
        # without installed packages Python starts in no time
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -ES "{__file__}" {name} "$@"\n')
        (programs / name).chmod(0o755)
    variables = {FOLDER: str(folder), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    return variables if instead is None else {**variables, INSTEAD: instead}


def calls(folder: Path, command: str) -> list[dict[str, Any]]:
    """The options of every call of a command, in order; those of ``srun`` with the job that it was called in."""
    record = folder / "calls.jsonl"
    lines = record.read_text().splitlines() if record.is_file() else []
    return [entry["options"] for entry in map(json.loads, lines) if entry["command"] == command]


def cancel(folder: Path) -> None:
    """End a job that still runs, with all of its processes."""
    if _state(folder) == "RUNNING":
        with suppress(ProcessLookupError):
            os.killpg(int((folder / "process").read_text()), signal.SIGTERM)
        (folder / "state").write_text("CANCELLED")


def jobs(folder: Path) -> list[Path]:
    """The folders of all jobs; the last part is the job's number."""
    return sorted(path.parent for path in folder.glob("*/process"))


def _state(folder: Path) -> str:
    path = folder / "state"
    return (path.read_text().strip() if path.is_file() else "") or "RUNNING"


def _here() -> Path:
    return Path(os.environ[FOLDER])


def _note(command: str, options: argparse.Namespace, **more: str) -> None:
    with (_here() / "calls.jsonl").open("a") as record:
        record.write(json.dumps({"command": command, "options": {**vars(options), **more}}) + "\n")


def _new_job() -> Path:
    """The folder of the next free number; two jobs may be submitted at a time."""
    number = 1
    while True:
        try:
            (_here() / str(number)).mkdir()
            return _here() / str(number)
        except FileExistsError:
            number += 1


def _sbatch(words: list[str]) -> None:
    """Start a job in the background, and print its number."""
    parser = argparse.ArgumentParser("sbatch", allow_abbrev=False)
    parser.add_argument("--parsable", action="store_true", required=True)
    for option in ("--job-name", "--output", "--export", "--comment", "--wrap"):
        parser.add_argument(option, required=True)
    for option in ("--mem", "--ntasks", "--cpus-per-task", "--gpus"):
        parser.add_argument(option, type=int)
    parser.add_argument("-A", dest="account")
    parser.add_argument("-p", dest="partition")
    parser.add_argument("-t", dest="minutes", type=int)
    parser.add_argument("-D", dest="directory", required=True)
    options = parser.parse_args(words)
    _note("sbatch", options)
    job = _new_job()
    (job / "name").write_text(options.job_name)
    script = f"({os.environ.get(INSTEAD, options.wrap)}\n) && end=COMPLETED || end=FAILED\necho $end > '{job}/state'"
    with open(options.output.replace("%j", job.name), "w") as output:
        process = subprocess.Popen(
            ["sh", "-c", script], cwd=options.directory, env={**os.environ, "SLURM_JOB_ID": job.name},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    (job / "process").write_text(str(process.pid))
    print(job.name)


def _srun(words: list[str]) -> None:
    """Run a step of the job that this is called in."""
    parser = argparse.ArgumentParser("srun", allow_abbrev=False)
    parser.add_argument("-n", dest="tasks", type=int)
    parser.add_argument("--cpu-bind")
    for option in ("--cpus-per-task", "--gpus", "--nodes"):
        parser.add_argument(option, type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(words)
    _note("srun", options, job=os.environ["SLURM_JOB_ID"])
    os.execvp(options.command[0], options.command)


def _sacct(words: list[str]) -> None:
    """Print the states of the jobs of one name. Asked why a step ended, it prints nothing.

    The executor asks ever more rarely. So the first answer comes at once, and later ones when no job runs any more.
    """
    parser = argparse.ArgumentParser("sacct", allow_abbrev=False)
    parser.add_argument("-X", dest="whole", action="store_true")
    parser.add_argument("-j", dest="step")
    for option in ("--parsable2", "--noheader"):
        parser.add_argument(option, action="store_true")
    for option in ("--clusters", "--starttime", "--endtime", "--name"):
        parser.add_argument(option)
    parser.add_argument("--format", choices=["JobIdRaw,State", "Reason"], required=True)
    options = parser.parse_args(words)
    until = time.monotonic() + (PATIENCE if calls(_here(), "sacct") else 0)
    _note("sacct", options)
    if options.format == "Reason":
        return
    asked = [job for job in jobs(_here()) if (job / "name").read_text() == options.name]
    while any(_state(job) == "RUNNING" for job in asked) and time.monotonic() < until:
        time.sleep(0.1)
    for job in asked:
        print(f"{job.name}|{_state(job)}")


def _scancel(words: list[str]) -> None:
    """End jobs, named by their numbers."""
    for number in words:
        cancel(_here() / number)


def _sacctmgr(words: list[str]) -> None:
    """Print the accounts that a user may name."""
    print(ACCOUNT)


def _scontrol(words: list[str]) -> None:
    """Print of the configuration what the executor reads."""
    print("MaxArraySize            = 1001\nMinJobAge               = 300 sec")


def _sinfo(words: list[str]) -> None:
    """Print the partitions. The executor never asks here: it takes a machine for a cluster that has this command."""
    print("PARTITION\ngpu*")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "sbatch": _sbatch,
    "srun": _srun,
    "sacct": _sacct,
    "scancel": _scancel,
    "sacctmgr": _sacctmgr,
    "scontrol": _scontrol,
    "sinfo": _sinfo,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](sys.argv[2:])
