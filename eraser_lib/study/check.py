"""``make check``: what no longer belongs to the code, told from manifests alone; nothing is run."""

from __future__ import annotations

from eraser_lib.study import manifest, summary
from eraser_lib.study.matrix import jobs
from eraser_lib.study.paths import RunFolder, read_json, sha256
from eraser_lib.study.preset import Preset


def stale(preset: Preset, folder: RunFolder) -> list[str]:
    """What is missing or stale in a run folder, one line each; empty if it is complete and current.

    Raises:
        StudyError: a notebook or module is not valid Python.
    """
    found: list[str] = []
    for name, job in jobs(preset).items():
        path = folder.manifest(name)
        if not path.is_file():
            found.append(f"{name}: never run (no manifest)")
            continue
        if not folder.notebook(name).is_file():
            found.append(f"{name}: its executed notebook is missing")
        found += [
            f"{name}: {reason}" for reason in manifest.stale_reasons(read_json(path), manifest.inputs(job, preset))
        ]
    return found + _summary(folder) + _adopted(folder)


def _summary(folder: RunFolder) -> list[str]:
    path = folder.manifest("summary")
    if not path.is_file() or not folder.summary.is_file():
        return ["summary.csv: missing"]
    then, now = read_json(path), summary.inputs(folder)
    found = []
    for name in sorted({*then["logs"], *now["logs"]}):
        if then["logs"].get(name) != now["logs"].get(name):
            found.append(f"summary.csv: {name} changed")
    for module in sorted({*then["modules"], *now["modules"]}):
        if then["modules"].get(module) != now["modules"].get(module):
            found.append(f"summary.csv: {module} changed")
    return found


def _adopted(folder: RunFolder) -> list[str]:
    if not folder.adopted.is_file():
        return []
    adopted = read_json(folder.adopted)
    return [
        f"{name}: recorded as taken from the reference, but it is another file"
        for name, digest in sorted(adopted.items())
        if not (folder.path / name).is_file() or sha256(folder.path / name) != digest
    ]
