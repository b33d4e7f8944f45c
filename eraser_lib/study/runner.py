"""Runs one notebook: parameters checked, executed into a temporary file, moved when done, manifest last."""

from __future__ import annotations

import os
import resource
import shutil
import site
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from eraser_lib.study import kept, manifest, parameters, progress
from eraser_lib.study.lock import locked
from eraser_lib.study.matrix import Job
from eraser_lib.study.paths import RunFolder, StudyError, read_json, root, write_json
from eraser_lib.study.preset import Preset

if TYPE_CHECKING:
    from nbformat import NotebookNode

DRIVER = "ERASER_DRIVER"
"""Environment variable ``<pid>:<creation time>`` of the front end; a job ends itself when that process is gone."""


def execute(
    notebook: Path,
    output: Path,
    given: Mapping[str, Any],
    *,
    failed: Path,
    working_directory: Path,
    name: str = "",
) -> None:
    """Run a notebook through papermill; ``output`` appears whole or not at all.

    Args:
        notebook: source, with a cell tagged ``parameters``.
        output: executed notebook.
        given: parameters; each must be declared there, with a value of the declared type.
        failed: where a notebook with a failed cell is kept for reading.
        working_directory: of the kernel.
        name: how to call the run in errors.

    Raises:
        StudyError: a parameter is unknown or of the wrong type, or a cell failed.
    """
    import nbformat
    import papermill

    parameters.check(parameters.of_notebook(notebook), given, notebook=notebook.name)
    label = name or notebook.stem
    partial = output.parent / f".{output.stem}.partial.ipynb"
    for folder in (output.parent, failed.parent):
        folder.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook), str(partial), dict(given), cwd=str(working_directory), kernel_name="python3",
            progress_bar=False, log_output=False,
            shutdown_kernel="immediate",  # every cell has ended: taking modules apart would add two seconds to each job
        )  # fmt: skip
        executed = nbformat.read(partial, as_version=4)
        # neither the temporary name nor a path of this machine belongs into a committed file
        executed.metadata.papermill["output_path"] = output.name
        executed.metadata.papermill["input_path"] = notebook.name
        _without_paths(executed, working_directory)
        nbformat.write(executed, partial)
        os.replace(partial, output)
    except papermill.PapermillExecutionError as error:
        os.replace(partial, failed)
        raise StudyError(
            f"{label}: cell {error.exec_count} of {notebook.name} failed: {error.ename}: {error.evalue}\n"
            f"The notebook with its traceback was kept as {failed}."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _without_paths(executed: NotebookNode, working_directory: Path) -> None:
    """Cut paths of the checkout and of installed packages out of what cells printed: warnings hold them."""
    places = sorted({str(working_directory.resolve()), *site.getsitepackages(), sys.prefix}, key=len, reverse=True)
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                for place in places:
                    output["text"] = output["text"].replace(f"{place}/", "")


def run(job: Job, preset: Preset, folder: RunFolder) -> None:
    """Run one job of the matrix and write its manifest.

    Raises:
        StudyError: as `execute`, a job that it needs is not complete, or the same job is running already.
    """
    for need in job.needs:
        if not folder.manifest(need).is_file():
            raise StudyError(f"{job.name} needs {need}, which is not complete. Run it first, or use 'make study'.")
    busy = f"{job.name} is running already. Wait for it, or stop that process."
    note = folder.progress(f"{job.name}.note")
    variables = {
        progress.VARIABLE: str(note),
        kept.VARIABLE: str(folder.kept(job.name)),
        # the kernel has no widgets, and needs none: progress goes to the front end
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore:IProgress not found"),
    }
    with locked(folder.state / "locks" / job.name, busy), _variables(variables):
        _follow_driver()
        started = time.time()
        state: dict[str, Any] = {"state": "running", "started": started}
        write_json(folder.progress(job.name), state)
        note.unlink(missing_ok=True)
        # a manifest says "complete", so the old one goes before the work begins
        folder.manifest(job.name).unlink(missing_ok=True)
        try:
            made_from = manifest.inputs(job, preset)
            manifest.note_checkpoint(made_from, folder.inputs(job.name))
            manifest.git_state()  # remembered: by the end of a long job there may be another commit
            drop_old(job, folder, made_from)
            before = kept.seconds(folder.kept(job.name))  # a run that goes on says what the whole job takes
            execute(
                root() / "notebooks" / f"{job.notebook}.ipynb",
                folder.notebook(job.name),
                job.parameters,
                failed=folder.failed(job.name),
                working_directory=root(),
                name=job.name,
            )
            seconds = before + time.time() - started
            manifest.write(job, preset, folder, made_from, seconds=seconds, peak_bytes=_peak_bytes())
            shutil.rmtree(folder.kept(job.name), ignore_errors=True)
        except BaseException as error:
            write_json(folder.progress(job.name), {**state, "state": "failed", "error": _in_words(error)})
            raise
        write_json(folder.progress(job.name), {**state, "state": "done", "seconds": seconds})


@contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the kernel, which inherits them; afterwards they are as they were."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def drop_old(job: Job, folder: RunFolder, made_from: Mapping[str, Any]) -> None:
    """Remove logs, parts of logs and what was `kept`, if the job began them with other code, parameters or checkpoints.

    A log is resumed where questions, weights and eraser are the same; it cannot see that the code which asks and scores
    has changed since.
    """
    mark = folder.state / "logs" / f"{job.name}.json"
    if mark.is_file() and read_json(mark) == dict(made_from):
        return
    for name in job.logs:
        shutil.rmtree(folder.logs / name, ignore_errors=True)
    shutil.rmtree(folder.kept(job.name), ignore_errors=True)
    write_json(mark, dict(made_from))


def complete(
    matrix: Mapping[str, Job], folder: RunFolder, *, inputs: Callable[[Job], Mapping[str, Any]] | None = None
) -> list[str]:
    """Jobs that need no run: made from the inputs last written, and not older than the jobs that they need.

    `inputs`: other inputs to compare with than those last written.
    """
    found: list[str] = []
    for name, job in matrix.items():
        path = folder.manifest(name)
        if not path.is_file() or not folder.notebook(name).is_file():
            continue
        if inputs is None and not folder.inputs(name).is_file():
            continue
        older = any(
            need not in found or folder.manifest(need).stat().st_mtime > path.stat().st_mtime for need in job.needs
        )
        now = read_json(folder.inputs(name)) if inputs is None else inputs(job)
        if not older and not manifest.stale_reasons(read_json(path), now):
            found.append(name)
    return found


def _in_words(error: BaseException) -> str:
    return "stopped" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__


def _peak_bytes() -> int:
    """Largest resident set of the kernel, which is a finished child of this process."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _follow_driver() -> None:
    """End this process soon after the front end that started the matrix is gone, even by SIGKILL."""
    pid, _, created = os.environ.get(DRIVER, "").partition(":")
    if not pid:
        return

    def watch() -> None:
        while alive(int(pid), float(created)):
            time.sleep(1)
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()


def alive(pid: int, created: float) -> bool:
    """Whether the very process (not a later one of the same number) still runs."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
