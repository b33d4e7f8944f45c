"""Results that were not made again after the code changed, and why they may stand.

An edit of a module makes every job stale that imports it. Hours of training are then run again to show what minutes can
show as well: that the edit changed no number. So when a run is promoted, and every log that it made is identical with
the reference's (up to rounding in what gates say: `ROUNDED`), a job that was not run again is *confirmed* where all
that changed of its inputs are modules which the jobs that were run import too. Of jobs that are run again by themselves
those count that wrote the same logs, or, where they write none, printed the same, up to that rounding. Its manifest
keeps the commit that made it and says beside it which jobs confirmed it, at which commit. This is evidence and no proof
(a line of a shared module that only the old job reaches was not run); a changed notebook, parameter, setting or
checkpoint, or a module of its own, is never confirmed. The committed results of other studies (larger models, other
widths) are held to the same rule, since the machine that made them may not be at hand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eraser_lib.study import manifest, summary
from eraser_lib.study.matrix import Job, jobs
from eraser_lib.study.paths import RunFolder, read_json, root, sha256, write_json
from eraser_lib.study.preset import Preset, load

if TYPE_CHECKING:
    import pandas as pd

REFUTED = "refuted"
"""In a manifest: what came out otherwise after the job had run, a log or what a notebook prints, so that only the job
itself can settle it."""
UNLIKE = ("seconds",)
"""Columns of a log that no two runs share."""
ROUNDED = ("gate_value", "gate_values")
"""Columns whose last digits another processor's linear algebra moves; what opens is compared exactly."""
ROUNDING = 1e-6
"""By how much, at most, as a share of the largest value; of a number that was printed, as a share of itself."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def differing(preset: Preset) -> list[str]:
    """Logs of the preset's own jobs that are not identical with the reference's, or that it lacks."""
    run, reference = preset.run, preset.reference
    others = {path for pattern in preset.from_reference for path in run.path.glob(pattern)}
    own = [path.relative_to(run.path) for path in sorted(run.logs.rglob("seed*.parquet")) if path not in others]
    return [name.as_posix() for name in own if not _same(run.path / name, reference.path / name)]


def _same(mine: Path, theirs: Path) -> bool:
    import pandas as pd  # takes longer to load than the other commands to run

    if not theirs.is_file():
        return False
    first, second = (pd.read_parquet(path).drop(columns=list(UNLIKE), errors="ignore") for path in (mine, theirs))
    mine_but, theirs_but = (table.drop(columns=list(ROUNDED), errors="ignore") for table in (first, second))
    return mine_but.equals(theirs_but) and all(_rounded(first, second, name) for name in ROUNDED)


def _rounded(first: pd.DataFrame, second: pd.DataFrame, name: str) -> bool:
    """Whether a column of numbers, or of rows of numbers, is the same up to `ROUNDING`."""
    import numpy as np

    if name not in first or name not in second:
        return (name in first) == (name in second)
    if not first[name].isna().equals(second[name].isna()):
        return False
    one, other = (
        [np.atleast_1d(np.asarray(value, dtype=float)) for value in table[name].dropna()] for table in (first, second)
    )
    if [len(row) for row in one] != [len(row) for row in other]:
        return False
    mine, theirs = (np.concatenate([np.zeros(0), *rows]) for rows in (one, other))
    scale = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0))
    return bool(np.allclose(mine, theirs, rtol=0, atol=ROUNDING * scale, equal_nan=True))


def _presets() -> list[Preset]:
    return [load(path.stem) for path in sorted((root() / "presets").glob("*.yml"))]


def relatives(preset: Preset) -> dict[str, tuple[Job, Preset]]:
    """Jobs of other presets of the same study, which are none of the preset's own."""
    own = jobs(preset)
    found: dict[str, tuple[Job, Preset]] = {}
    for other in _presets():
        if other.study == preset.study:
            found |= {name: (job, other) for name, job in jobs(other).items() if name not in own}
    return found


def other_jobs(preset: Preset) -> dict[str, tuple[Job, Preset]]:
    """Those of `relatives` that have a manifest in the run folder."""
    return {name: pair for name, pair in relatives(preset).items() if preset.run.manifest(name).is_file()}


def _run_again(preset: Preset, name: str) -> bool:
    """Whether a job's manifest is not the one of the reference: a copy is no evidence."""
    run, reference = preset.run.manifest(name), preset.reference.manifest(name)
    return not reference.is_file() or read_json(run)["created"] != read_json(reference)["created"]


def repeated(preset: Preset, stale: set[str]) -> dict[str, bool]:
    """Jobs of other presets that were run again on the present code, and whether they came out the same.

    By their logs; where they write none, by what their notebooks printed. Those that did confirm as well.
    """
    run, reference = preset.run, preset.reference
    found = {}
    for name, (job, _) in other_jobs(preset).items():
        if name in stale or not _run_again(preset, name):
            continue
        logs = [path.relative_to(run.path) for folder in job.logs for path in (run.logs / folder).glob("seed*.parquet")]
        if logs:
            found[name] = all(_same(run.path / log, reference.path / log) for log in logs)
        else:
            mine, theirs = (_printed(folder.notebook(name)) for folder in (run, reference))
            found[name] = bool(mine) and len(mine) == len(theirs) and all(map(_reads_alike, mine, theirs))
    return found


def _reads_alike(mine: str, theirs: str) -> bool:
    """Whether two texts are the same but for the last digits of their numbers."""
    numbers = [_NUMBER.findall(text) for text in (mine, theirs)]
    same_words = _NUMBER.sub("", mine) == _NUMBER.sub("", theirs) and len(numbers[0]) == len(numbers[1])
    return same_words and all(
        one == other or abs(float(one) - float(other)) <= ROUNDING * max(abs(float(one)), abs(float(other)))
        for one, other in zip(*numbers, strict=True)
    )


def _printed(path: Path) -> list[str]:
    """What the cells of an executed notebook printed and showed as text; nothing where there is none."""
    if not path.is_file():
        return []
    outputs = [output for cell in read_json(path)["cells"] for output in cell.get("outputs", [])]
    told = [output["text"] for output in outputs if output.get("name") == "stdout"]
    told += [output["data"]["text/plain"] for output in outputs if "text/plain" in output.get("data", {})]
    return ["".join(text) for text in told]


@dataclass(frozen=True)
class Evidence:
    """What a run shows about the code that it ran on."""

    by: list[str]
    """Jobs that were run again."""
    modules: Mapping[str, str]
    """Fingerprints of what they went through."""
    unequal: list[str]
    """Logs that are not those of the reference, or that it lacks."""
    moved: list[str]
    """Those of them that the reference has."""
    reworded: frozenset[str] = frozenset()
    """Notebooks without logs that printed something else than in the reference."""


def evidence(preset: Preset) -> Evidence:
    """What a complete run shows, beside the reference as it was before the run takes its place."""
    others = other_jobs(preset)
    stale = {
        name
        for name, (job, owner) in others.items()
        if manifest.stale_reasons(read_json(preset.run.manifest(name)), manifest.inputs(job, owner))
    }
    unequal = differing(preset)
    again = repeated(preset, stale)
    made = [*(name for name in jobs(preset) if _run_again(preset, name)), *(name for name in again if again[name])]
    modules: dict[str, str] = {}
    for name in made:
        modules |= read_json(preset.run.manifest(name))["sources"]["modules"]
    moved = [name for name in unequal if (preset.reference.path / name).is_file()]
    known = [name for name in again if not others[name][0].logs and _printed(preset.reference.notebook(name))]
    reworded = frozenset(others[name][0].notebook for name in known if not again[name])
    return Evidence(sorted(made), modules, unequal, moved, reworded)


def confirm(preset: Preset, shown: Evidence) -> dict[str, str]:
    """Confirm, in the run's copies of their manifests, the jobs that a complete run did not make again.

    Returns:
        Stale job -> "confirmed", or why it is not.
    """
    run = preset.run
    others = other_jobs(preset).items()
    verdicts = _judge({name: (run.manifest(name), job, owner) for name, (job, owner) in others}, preset, shown)
    _record(run, list(verdicts))
    return verdicts


def confirm_elsewhere(preset: Preset, shown: Evidence) -> dict[str, str]:
    """The same for the committed results of other studies: models of other sizes, or of a machine that is not at hand.

    Returns:
        Stale job, behind the name of its study -> "confirmed", or why it is not. Their tables: `renew_summaries`.
    """
    found: dict[str, tuple[Path, Job, Preset]] = {}
    for other in _presets():
        if other.study == preset.study:
            continue
        for name, job in jobs(other).items():
            if (made := other.reference.manifest(name)).is_file():
                found[f"{other.study} {name}"] = (made, job, other)
    return _judge(found, preset, shown)


def renew_summaries(preset: Preset) -> dict[str, str]:
    """Summarise the committed logs of other studies again, where the code that does it has changed.

    Returns:
        `<study> summary.csv` -> "confirmed", or why it is not; see `summary.renew`.
    """
    others = {other.study: other.reference for other in _presets() if other.study != preset.study}
    found = {f"{study} summary.csv": summary.renew(folder) for study, folder in others.items()}
    return {name: verdict for name, verdict in found.items() if verdict is not None}


def _judge(found: Mapping[str, tuple[Path, Job, Preset]], preset: Preset, shown: Evidence) -> dict[str, str]:
    """Verdicts on those of the jobs that are stale, written into their manifests where there is something to say."""
    verdicts = {}
    for name, (path, job, owner) in found.items():
        content, now = read_json(path), manifest.inputs(job, owner)
        reasons = manifest.stale_reasons(content, now)
        if not reasons:
            continue
        own = [reason for reason in reasons if not _is_shared(reason, content, now, shown.modules)]
        if shown.unequal:
            verdicts[name] = (
                f"{len(shown.unequal)} logs of the run differ from the reference, such as {shown.unequal[0]}"
            )
            if shown.moved:  # the reference moves on, but nothing that is found later can speak for this job
                content[REFUTED] = shown.moved[0]
                _rewrite(path, content)
        elif not job.logs and job.notebook in shown.reworded:
            content[REFUTED] = f"what {job.notebook} prints"
            _rewrite(path, content)
            verdicts[name] = f"{content[REFUTED]} has changed: run it again"
        elif REFUTED in content:
            verdicts[name] = f"{content[REFUTED]} changed after it ran: run it again"
        elif own:
            verdicts[name] = "; ".join(own)
        else:
            state = manifest.provenance(preset.device)
            content["confirmed"] = {
                "sources": now["sources"],
                "by": shown.by if owner.study == preset.study else [f"{preset.study} {one}" for one in shown.by],
                "git_commit": state["git_commit"],
                "created": state["created"],
            }
            _rewrite(path, content)
            verdicts[name] = "confirmed"
    return verdicts


def _rewrite(path: Path, content: Mapping[str, Any]) -> None:
    """Write a manifest and keep its time, by which Snakemake tells what came after it."""
    before = path.stat()
    write_json(path, content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _is_shared(reason: str, content: Mapping[str, Any], now: Mapping[str, Any], modules: Mapping[str, str]) -> bool:
    """Whether a reason is about a module that the jobs which were run import in its present form, or that is gone."""
    name = reason.split(" ", 1)[0]
    current = now["sources"]["modules"]
    if name in current:
        return reason in (f"{name} changed", f"{name} is newly used") and modules.get(name) == current[name]
    return reason == f"{name} is no longer used"


def _record(run: RunFolder, names: list[str]) -> None:
    """Manifests that were copied from the reference are no longer copies; what stands in them was found in this run.

    They stay recorded as taken, with their present content.
    """
    adopted = read_json(run.adopted) if run.adopted.is_file() else {}
    changed = {f"manifests/{name}.json" for name in names} & adopted.keys()
    if changed:
        write_json(run.adopted, adopted | {name: sha256(run.path / name) for name in changed})
