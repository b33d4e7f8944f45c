"""Manifests: what a result was made from, so that anyone can tell whether it is still current.

The *inputs* of a job (code, parameters, settings, checkpoints) are known before it runs. Snakemake watches a small
file with them that is rewritten only when they change; the manifest of the finished job repeats them and adds
where, when and how long it ran. So Snakemake and ``make check`` can never disagree, and a touched file, an edited
comment or a fresh clone makes nothing stale.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from eraser_lib.study.matrix import Job
from eraser_lib.study.paths import RunFolder, canonical, read_json, root, sha256, write_json
from eraser_lib.study.preset import Preset
from eraser_lib.study.sources import notebook_sources

SCHEMA = 1
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas", "pillow", "matplotlib",
            "scikit-learn", "papermill", "jupyter-book")  # fmt: skip


def inputs(job: Job, preset: Preset) -> dict[str, Any]:
    """What a job would be made from now.

    Raises:
        StudyError: the notebook does not exist, or code it depends on is not valid Python.
    """
    base = root()
    # where a run lies changes nothing about its numbers, and results/ must compare equal to runs/
    parameters = {name: value for name, value in job.parameters.items() if name != "out"}
    branches = job.branches if preset.checkpoints else ()
    others = {"studies": results_hashes(parameters["studies"], base / "results")} if "studies" in parameters else {}
    return {
        **others,
        "notebook": job.notebook,
        "parameters": parameters,
        "settings": sha256(canonical(dict(preset.settings))),
        "sources": notebook_sources(base / "notebooks" / f"{job.notebook}.ipynb", job.kind.code, root=base),
        "checkpoint": _checkpoint(preset, job, branches) if branches else None,
    }


def _checkpoint(preset: Preset, job: Job, branches: Iterable[str]) -> str | None:
    """Fingerprint of the weights that a job reads; where there are none, of those that the reference was made from."""
    there = checkpoint_hash(root() / preset.checkpoints, job.model, branches)
    return there or checkpoint_hash(preset.records, job.model, branches)


def checkpoint_hash(folder: Path, model: str | None, branches: Iterable[str]) -> str | None:
    """One fingerprint of the weights of ``folder/<model>/<branch>`` (all models if ``None``); ``None`` without any.

    What a training writes beside a branch, ``<branch>.partial`` and the like, is no branch. A manifest without weights
    stands for those that it names (`Preset.records`).
    """
    base = folder / (model or "*")
    made = sorted({path for pattern in branches for path in base.parent.glob(f"{base.name}/{pattern}")})
    weights = {name: digest for path in made if not path.suffix for name, digest in _weights(path, folder).items()}
    return sha256("".join(f"{name} {digest}\n" for name, digest in sorted(weights.items()))) if weights else None


def _weights(branch: Path, folder: Path) -> dict[str, str]:
    """Hashes of a checkpoint's files of weights, by their paths from `folder`."""
    files = {path: _file_hash(path, path.stat().st_mtime_ns) for path in branch.glob("*.safetensors")}
    if not files and (branch / "manifest.json").is_file():
        recorded = read_json(branch / "manifest.json")["files"]
        files = {branch / name: digest for name, digest in recorded.items() if name.endswith(".safetensors")}
    return {path.relative_to(folder).as_posix(): digest for path, digest in files.items()}


COMPARED = ("summary.csv", "figures/*/*.json")
"""What a job may read of the committed results of another study: numbers, no pictures and no manifests."""


def results_hashes(names: Iterable[str], folder: Path) -> dict[str, str | None]:
    """Preset -> one fingerprint of its committed numbers (`COMPARED`); ``None`` where there are none."""
    found: dict[str, str | None] = {}
    for name in names:
        files = sorted(path for pattern in COMPARED for path in (folder / name).glob(pattern))
        lines = [f"{p.relative_to(folder).as_posix()} {_file_hash(p, p.stat().st_mtime_ns)}\n" for p in files]
        found[name] = sha256("".join(lines)) if lines else None
    return found


@cache
def _file_hash(path: Path, changed: int) -> str:
    return sha256(path)


def refresh_inputs(jobs: Mapping[str, Job], preset: Preset, folder: RunFolder) -> list[str]:
    """Write the inputs of every job where they changed; returns the names of those jobs."""
    changed = []
    for job in jobs.values():
        now = inputs(job, preset)
        path = folder.inputs(job.name)
        if not path.is_file() or read_json(path) != now:
            write_json(path, now)
            changed.append(job.name)
        done = folder.manifest(job.name)
        if not done.is_file():
            continue
        finished = done.stat().st_mtime
        if not stale_reasons(read_json(done), now):
            # an edit that was taken back leaves the result current: Snakemake judges by time
            os.utime(path, (finished, finished))
        elif path.stat().st_mtime <= finished:
            os.utime(path)  # the code was edited, and read, while the job still ran on the old one
    return changed


def note_checkpoint(made_from: Mapping[str, Any], path: Path) -> None:
    """Bring the inputs of a job that begins up to date, in their file `path`, if they lack but the checkpoint.

    One that is fine-tuned in the same run was not there when they were written. Snakemake remembers them as they are
    when the job ends, and would take a later loss of the checkpoint for how it had been.
    """
    then = read_json(path) if path.is_file() else made_from
    if then != made_from and {**then, "checkpoint": made_from["checkpoint"]} == made_from:
        write_json(path, made_from)


def stale_reasons(manifest: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Why a result made from ``manifest`` differs from one made ``now``, in words; empty if it does not.

    Code by which the result was confirmed (see `eraser_lib.study.confirm`) counts as the code that made it: what has
    changed is told from whichever of the two is nearer.
    """
    made, confirmed = manifest.get("sources", {}), manifest.get("confirmed", {}).get("sources")
    reasons = _code_reasons(made, now)
    if confirmed is not None:
        reasons = min(reasons, _code_reasons(confirmed, now), key=len)
    then, current = manifest.get("inputs_parameters", {}), now["parameters"]
    for name in sorted({*then, *current}):
        if then.get(name) != current.get(name):
            reasons.append(f"parameter {name}: {then.get(name)!r} then, {current.get(name)!r} now")
    if manifest.get("settings") != now["settings"]:
        reasons.append("the preset's settings changed")
    if manifest.get("checkpoint") != now["checkpoint"]:
        reasons.append("the checkpoints changed")
    read, there = manifest.get("studies", {}), now.get("studies", {})
    reasons += [f"results/{name} changed" for name in sorted({*read, *there}) if read.get(name) != there.get(name)]
    return reasons


def _code_reasons(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the code ``then`` and that of the inputs ``now``."""
    sources = now["sources"]
    reasons = []
    if then.get("notebook") != sources["notebook"]:
        reasons.append(f"the code of notebooks/{now['notebook']}.ipynb changed")
    before, current = then.get("modules", {}), sources["modules"]
    for module in sorted({*before, *current}):
        if module not in current:
            reasons.append(f"{module} is no longer used")
        elif module not in before:
            reasons.append(f"{module} is newly used")
        elif before[module] != current[module]:
            reasons.append(f"{module} changed")
    return reasons


def write(
    job: Job,
    preset: Preset,
    folder: RunFolder,
    made_from: Mapping[str, Any],
    *,
    seconds: float,
    peak_bytes: int,
) -> None:
    """Write the manifest of a finished job; its presence marks the job as complete."""
    write_json(
        folder.manifest(job.name),
        {
            "schema": SCHEMA,
            "job": job.name,
            "notebook": job.notebook,
            "parameters": dict(job.parameters),
            "inputs_parameters": made_from["parameters"],
            "settings": made_from["settings"],
            "sources": made_from["sources"],
            "checkpoint": made_from["checkpoint"],
            **({"studies": made_from["studies"]} if "studies" in made_from else {}),
            "world": world_hash(preset, folder),
            **provenance(preset.device),
            "seconds": round(seconds, 1),
            "peak_memory_bytes": peak_bytes,
        },
    )


def provenance(device: str) -> dict[str, Any]:
    """Commit, machine, versions and time; no name of host or user."""
    return {
        **git_state(),
        "device": device,
        "machine": {"cpu": cpu_model(), "cores": psutil.cpu_count(), "system": platform.system(),
                    "architecture": platform.machine()},
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES if version(name)},
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }  # fmt: skip


def world_hash(preset: Preset, folder: RunFolder) -> str | None:
    """Content hash of the world: from the run (``world.json``), else from a checkpoint's manifest."""
    candidates = [folder.path / "world.json", folder.path / "world" / "world.json"]
    if preset.checkpoints:
        for made in (root() / preset.checkpoints, preset.records):
            candidates += sorted(made.glob("*/vanilla/manifest.json"))
    for path in candidates:
        if path.is_file():
            content = read_json(path)
            for key in ("world", "world_hash", "hash", "content_hash"):
                if isinstance(content.get(key), str):
                    return str(content[key])
    return None


@cache
def git_state() -> dict[str, Any]:
    """Commit of the working tree, and whether files differ from it, results apart: no job is made of them.

    Files that git does not track count where jobs are made of them: in library, notebooks and presets. Where git does
    not answer (it is not there, or it does not trust a clone of somebody else's), neither is known: None.
    """

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=root(), capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        changes = [
            git("status", "--porcelain", "-uno", "--", ":/", ":!/results"),
            git("status", "--porcelain", "-uall", "--", ":/eraser_lib", ":/notebooks", ":/presets"),
        ]
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if None in changes else any(changes)}
    except FileNotFoundError:
        return {"git_commit": None, "git_dirty": None}


@cache
def cpu_model() -> str:
    """The processor's name in words."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """A device's name in words: the GPU's, or the processor's."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return cpu_model()


@cache
def version(package: str) -> str | None:
    """The installed version of a package, if it is installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
