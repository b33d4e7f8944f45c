"""Where things lie: the repository's root and the folders of one run.

A *run folder* is ``runs/<preset>`` (git-ignored) or ``results/<preset>`` (the committed reference); both have the
same shape, so everything that reads results takes the folder and never asks which of the two it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class StudyError(Exception):
    """Something that a person can put right; the message says what was wrong, what was expected, what to do."""


def root() -> Path:
    """The repository's root: the nearest folder, from the working directory upwards, that holds ``presets/``.

    ``ERASER_ROOT`` overrides the search.

    Raises:
        StudyError: no such folder.
    """
    if "ERASER_ROOT" in os.environ:
        return Path(os.environ["ERASER_ROOT"])
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "presets").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise StudyError(
        f"{here} is not inside the repository (no folder above it holds presets/ and notebooks/). "
        "Change into your clone, or set ERASER_ROOT to it."
    )


@dataclass(frozen=True)
class RunFolder:
    """The files of one run of a preset."""

    path: Path
    """``runs/<preset>`` or ``results/<preset>``"""

    def notebook(self, job: str) -> Path:
        """The executed notebook of a job."""
        return self.path / "notebooks" / f"{job}.ipynb"

    def manifest(self, job: str) -> Path:
        """What a job was made from. It is written last, so its presence means that the job is complete."""
        return self.path / "manifests" / f"{job}.json"

    def failed(self, job: str) -> Path:
        """The notebook of a job that failed, kept for reading."""
        return self.path / "failed" / f"{job}.ipynb"

    @property
    def logs(self) -> Path:
        """Per-question logs, ``<model>/<split>/<method>/seed<k>.parquet``."""
        return self.path / "logs"

    @property
    def summary(self) -> Path:
        """The tidy table of every figure."""
        return self.path / "summary.csv"

    @property
    def adopted(self) -> Path:
        """Which logs were copied from the reference instead of being made by this run: ``{path: sha256}``."""
        return self.path / "from_reference.json"

    @property
    def state(self) -> Path:
        """Housekeeping that is no result: inputs of jobs, progress, console output, locks."""
        return self.path / ".study"

    def inputs(self, job: str) -> Path:
        """What a job would be made from now; rewritten only when that changes (see ``manifest.refresh_inputs``)."""
        return self.state / "inputs" / f"{job}.json"

    def made(self, checkpoint: str) -> Path:
        """Stands for a fine-tuned checkpoint, ``<model>-<branch>``, that need not be made any more."""
        return self.state / "checkpoints" / checkpoint

    def progress(self, job: str) -> Path:
        """How far a running job is, one JSON object."""
        return self.state / "progress" / f"{job}.json"

    def kept(self, job: str) -> Path:
        """Parts of a job that is not complete, for its next run (`study.kept`)."""
        return self.state / "kept" / job

    def console(self, job: str) -> Path:
        """What a job wrote to the console."""
        return self.state / "console" / f"{job}.log"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, sorted and indented so that a diff stays readable."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        StudyError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise StudyError(f"{path} is not JSON ({error}). Delete it, and run the command again.") from error


def sha256(data: bytes | str | Path) -> str:
    """Hex digest of bytes, of a text, or of a file's content."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def canonical(value: Any) -> str:
    """One text per JSON value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
