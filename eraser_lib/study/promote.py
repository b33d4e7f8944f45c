"""Between ``runs/`` and ``results/``: promote a run to the reference, adopt files from it, link one into the book."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from eraser_lib.study import check, checkpoints, confirm
from eraser_lib.study.paths import RunFolder, StudyError, read_json, root, sha256, write_json
from eraser_lib.study.preset import Preset

LEFT_OUT = ("failed", "world", "cache", "reproduction.json", "reproduction.md", "from_reference.json")
"""Parts of a run that are no results: they stay behind, as does everything hidden or half-written (``.parts``)."""


def promote(preset: Preset) -> tuple[Path, dict[str, str]]:
    """Make the run the committed reference, as a whole or not at all.

    Returns:
        The reference, and of the jobs in it, and in other studies' references, that were neither run again nor are
        current, which are now confirmed and why the others are not (`eraser_lib.study.confirm`).

    Raises:
        StudyError: the run is not complete, something in it is stale, a job ran on files that were not committed, or
            the reference holds logs, manifests or erasers of other jobs which the run lacks.
    """
    reasons = check.stale(preset, preset.run)
    if reasons:
        raise StudyError(
            f"{preset.run.path} is not complete, so it cannot become the reference:\n  "
            + "\n  ".join(reasons)
            + f"\nRun 'make study PRESET={preset.name}' first."
        )
    ran = {path.stem: read_json(path) for path in sorted(preset.run.path.glob("manifests/*.json"))}
    edited = [name for name, content in ran.items() if content.get("git_dirty", False) is not False]
    if edited:
        raise StudyError(
            f"{', '.join(edited)} ran with changes that no commit holds, or where git could not be asked, so nobody "
            f"could repeat them. Commit, remove their manifests from {preset.run.path / 'manifests'}, and run 'make "
            f"study PRESET={preset.name}' again."
        )
    target = preset.reference.path
    if lost := _lost(preset):
        raise StudyError(
            f"{preset.run.path} lacks {len(lost)} files of the reference, such as {lost[0]}, which would be gone. They "
            f"belong to jobs that preset {preset.name!r} does not run: name them in from_reference of "
            f"presets/{preset.name}.yml, or promote a preset that runs them."
        )
    shown = confirm.evidence(preset) if preset.reference.summary.is_file() else None
    verdicts = confirm.confirm(preset, shown) if shown else {}
    target.parent.mkdir(exist_ok=True)
    new, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(preset.run.path, new, ignore=_left_out)
    checkpoints.keep_records(preset, new / preset.records.relative_to(target))
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
    elsewhere = confirm.confirm_elsewhere(preset, shown) if shown else {}
    return target, verdicts | elsewhere | confirm.renew_summaries(preset)


def _lost(preset: Preset) -> list[str]:
    """Manifests, logs, rows and erasers of the study's other jobs that the reference has and the run lacks."""
    reference = preset.reference.path
    found = list(reference.glob("rows/*/*/*.parquet"))
    for name, (job, _) in confirm.relatives(preset).items():
        found.append(preset.reference.manifest(name))
        found += [
            path for log in job.logs for kind in ("logs", "artifacts") for path in (reference / kind / log).glob("*")
        ]
    names = [path.relative_to(reference).as_posix() for path in found if path.is_file()]
    return sorted({name for name in names if not (preset.run.path / name).is_file()})


def _left_out(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in LEFT_OUT or name.startswith(".") or ".parts" in name}


def adopt(preset: Preset) -> list[str]:
    """Copy the reference's files that a preset does not make again, and record them in ``from_reference.json``.

    What was copied for another preset within the same study and is not wanted by this one goes: its jobs will make it.
    What has been made here since it was copied is the run's own, and is neither overwritten nor removed.

    Returns:
        Paths from the run folder.
    """
    run, reference = preset.run, preset.reference
    adopted: dict[str, str] = read_json(run.adopted) if run.adopted.is_file() else {}
    found = {path for pattern in preset.from_reference for path in reference.path.glob(pattern) if path.is_file()}
    wanted = {path.relative_to(reference.path).as_posix(): path for path in sorted(found)}
    for name, digest in list(adopted.items()):
        path = run.path / name
        if path.is_file() and sha256(path) != digest:
            del adopted[name]
        elif name not in wanted:
            path.unlink(missing_ok=True)
            del adopted[name]
    for name, source in wanted.items():
        target = run.path / name
        if name in adopted or not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = sha256(source)
            if not target.is_file() or sha256(target) != digest:
                shutil.copyfile(source, target)
            adopted[name] = digest
    if adopted or run.adopted.is_file():
        write_json(run.adopted, adopted)
    return sorted(adopted)


def link(folder: RunFolder, *, name: str = "book/run") -> Path:
    """Let the book show a run or the reference, through one git-ignored link.

    Raises:
        StudyError: the folder holds no summary, or a real file stands where the link belongs.
    """
    if not folder.summary.is_file():
        raise StudyError(f"{folder.summary} does not exist: there is nothing to show. Run 'make study' first.")
    path = root() / name
    if path.exists() and not path.is_symlink():
        raise StudyError(f"{path} is not a link. Move it away; the book's link belongs there.")
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(folder.path, path.parent))
    os.replace(fresh, path)
    return path
