"""A Kubernetes cluster of one machine: the command ``kubectl``, as far as the profile calls it.

A created job starts at once, in the background. Its pod has the variables of the manifest, a home of its own and this
machine's files; nothing is limited, and what a job asks for is only written down. An option that the profile was not
seen to use is an error. `install` writes the command into a folder; `test_kubernetes.py` puts that first on ``PATH``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = "STAND_IN_KUBERNETES"
"""Environment variable: the folder with the record of calls and one folder for each job."""
INSTEAD = "STAND_IN_KUBERNETES_RUNS"
"""Environment variable: a shell command that every pod runs in the place of its own, where it is set."""


def install(folder: Path, *, instead: str | None = None) -> dict[str, str]:
    """Make a cluster without jobs in a new folder; returns the variables by which its command is found."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    (programs / "kubectl").write_text(f'#!/bin/sh\nexec "{sys.executable}" -E "{__file__}" "$@"\n')
    (programs / "kubectl").chmod(0o755)
    variables = {FOLDER: str(folder), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    return variables if instead is None else {**variables, INSTEAD: instead}


def calls(folder: Path, command: str) -> list[Any]:
    """Of every ``create`` the manifest, of every ``get`` or ``delete`` the names of jobs, in order."""
    record = folder / "calls.jsonl"
    lines = record.read_text().splitlines() if record.is_file() else []
    return [entry["about"] for entry in map(json.loads, lines) if entry["command"] == command]


def jobs(folder: Path) -> list[Path]:
    """The folders of the jobs that are there; the last part is the job's name."""
    return sorted(path.parent for path in folder.glob("*/process"))


def end(job: Path) -> None:
    """End a job's pod, with all of its processes, and forget the job."""
    with suppress(ProcessLookupError, FileNotFoundError):
        os.killpg(int((job / "process").read_text()), signal.SIGKILL)
    shutil.rmtree(job, ignore_errors=True)


def _create(here: Path, manifest: dict[str, Any]) -> int:
    job = here / manifest["metadata"]["name"]
    try:
        (job / "home").mkdir(parents=True)
    except FileExistsError:
        print(f'jobs.batch "{job.name}" already exists', file=sys.stderr)
        return 1
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    inside = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    # of the world outside only what takes the image's place
    inside |= {name: os.environ[name] for name in ("PYTHONPATH", "PYTHONWARNINGS") if name in os.environ}
    inside |= {"PATH": os.defpath, "HOME": str(job / "home")}
    command = ["sh", "-c", os.environ[INSTEAD]] if INSTEAD in os.environ else container["command"]
    script = f"\"$@\" && end=Complete || end=Failed\necho $end > '{job}/state'"
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", *command], cwd=job, env=inside, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    (job / "process").write_text(str(process.pid))
    print(f"job.batch/{job.name} created")
    return 0


def _get(job: Path) -> None:
    if job.is_dir():
        state = (job / "state").read_text().strip() if (job / "state").is_file() else ""
        conditions = [{"type": "Suspended", "status": "False"}, {"type": state, "status": "True"}]
        print(json.dumps({"kind": "Job", "status": {"conditions": conditions} if state else {"active": 1}}))


def main(words: list[str]) -> int:
    import yaml

    parser = argparse.ArgumentParser("kubectl", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    create, get, delete = (commands.add_parser(name, allow_abbrev=False) for name in ("create", "get", "delete"))
    create.add_argument("-f", choices=["-"], required=True)
    get.add_argument("-o", choices=["json"], required=True)
    delete.add_argument("--cascade", choices=["foreground"])
    delete.add_argument("--timeout", choices=["120s"])
    delete.add_argument("--wait", choices=["false"])
    for one in (get, delete):
        one.add_argument("kind", choices=["job"])
        one.add_argument("names", nargs="+")
        one.add_argument("--ignore-not-found", action="store_true", required=True)
    options = parser.parse_args(words)
    here = Path(os.environ[FOLDER])
    about = yaml.safe_load(sys.stdin) if options.command == "create" else options.names
    with (here / "calls.jsonl").open("a") as record:
        record.write(json.dumps({"command": options.command, "about": about}) + "\n")
    if options.command == "create":
        return _create(here, about)
    for name in options.names:
        if options.command == "get":
            _get(here / name)
        elif (here / name).is_dir():
            end(here / name)
            print(f'job.batch "{name}" deleted')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
