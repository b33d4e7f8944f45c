"""``python -m eraser_lib.study``: the commands behind the Makefile and the Snakefile."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from eraser_lib.study import check, checkpoints, engine, promote, prose, runner, summary
from eraser_lib.study.matrix import find, jobs
from eraser_lib.study.paths import RunFolder, StudyError, root
from eraser_lib.study.preset import Preset, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 good, 1 the answer is no, 2 an error, 130 stopped)."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(load(options.preset), options))
    except StudyError as error:
        print(f"\nError: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command resumes where it was.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eraser_lib.study", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--preset", default="tiny", help="name of a file in presets/ (default: tiny)")
        command.set_defaults(command=globals()[f"_{name}"])
        return command

    study = add("study", "run every job of the matrix that is not complete, then the summary")
    study.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="jobs at a time (default: all cores)")
    study.add_argument("--dry-run", action="store_true", help="say what would run and how long it takes; run nothing")
    run = add("run", "run one job of the matrix (the Snakefile calls this)")
    run.add_argument("--job", required=True, help="such as llava-5-03_direction")
    add("list", "list the jobs, what they need and what they are expected to take")
    add("summary", "write summary.csv from the logs of the run")
    add("report", "compare the run with the committed reference")
    for name, text in (
        ("check", "say what is stale"),
        ("link", "let the book show a folder"),
        ("prose", "bring changed text cells into executed notebooks without running them"),
    ):
        command = add(name, text)
        command.add_argument("--folder", type=Path, help="a run folder (default: the committed reference)")
    add("promote", "make the complete run the committed reference")
    add("checkpoints", "check that the shipped checkpoints belong to the code")
    add("retire", "move models with a stale checkpoint out of the way, before training them afresh")
    add("record", "write the manifests of freshly trained checkpoints")
    return parser


def _study(preset: Preset, options: argparse.Namespace) -> int:
    cores = max(1, options.cores)
    if options.dry_run:
        print("\n".join(engine.plan(preset, cores=cores)))
    else:
        engine.study(preset, cores=cores)
    return 0


def _run(preset: Preset, options: argparse.Namespace) -> int:
    runner.run(find(jobs(preset), options.job), preset, preset.run)
    return 0


def _list(preset: Preset, options: argparse.Namespace) -> int:
    for job in jobs(preset).values():
        extra = {k: v for k, v in job.parameters.items() if k not in ("preset", "model", "split", "seed", "out")}
        print(f"{job.name:32} {job.minutes:5.1f} min  needs {', '.join(job.needs) or 'nothing'}  {extra or ''}")
    return 0


def _summary(preset: Preset, options: argparse.Namespace) -> int:
    summary.write(preset, preset.run)
    print(preset.run.summary)
    return 0


def _report(preset: Preset, options: argparse.Namespace) -> int:
    from eraser_lib.study import report  # pandas takes longer to load than the other commands to run

    return 0 if report.write(preset) else 1


def _check(preset: Preset, options: argparse.Namespace) -> int:
    folder = _folder(preset, options)
    found = [*checkpoints.problems(preset, to_run=False), *check.stale(preset, folder)]
    for line in found:
        print(line)
    print(f"{len(found)} things are stale or missing." if found else f"Everything in {folder.path} is current.")
    return 1 if found else 0


def _promote(preset: Preset, options: argparse.Namespace) -> int:
    path, verdicts = promote.promote(preset)
    for name, verdict in verdicts.items():
        print(f"{name}: not run again; {verdict if verdict == 'confirmed' else 'stays stale: ' + verdict}")
    print(f"The run is now the reference: {path}. Look at it, then commit it.")
    return 0


def _link(preset: Preset, options: argparse.Namespace) -> int:
    print(promote.link(_folder(preset, options)))
    return 0


def _prose(preset: Preset, options: argparse.Namespace) -> int:
    for name in prose.refresh(jobs(preset), _folder(preset, options), root() / "notebooks"):
        print(f"{name}: text brought up to date")
    return 0


def _checkpoints(preset: Preset, options: argparse.Namespace) -> int:
    checkpoints.require(preset)
    return 0


def _retire(preset: Preset, options: argparse.Namespace) -> int:
    for name in checkpoints.retire(preset):
        print(f"Stale checkpoints were moved to {name}")
    return 0


def _record(preset: Preset, options: argparse.Namespace) -> int:
    for name in checkpoints.record(preset):
        print(f"{name}/manifest.json written")
    return 0


def _folder(preset: Preset, options: argparse.Namespace) -> RunFolder:
    return RunFolder((root() / options.folder).resolve()) if options.folder else preset.reference


if __name__ == "__main__":
    sys.exit(main())
