"""Progress of a run: notes by jobs into small files, and the estimate of the time left.

A bar inside a notebook would end up in the book's page; a note goes to a file that the front end reads.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eraser_lib.study.matrix import Job
from eraser_lib.study.paths import RunFolder, read_json, write_json

VARIABLE = "ERASER_PROGRESS"
"""Environment variable that names the file for notes; the runner sets it for the kernel of its notebook."""
T = TypeVar("T")
_last = 0.0


def note(text: str, done: int, total: int) -> None:
    """Say how far the work is, at most once a second (the last step always); silent when nobody listens."""
    global _last
    now = time.monotonic()
    if now - _last < 1 and done < total:
        return
    _last = now
    if VARIABLE in os.environ:
        write_json(Path(os.environ[VARIABLE]), {"text": text, "done": done, "total": total})
    elif sys.stderr.isatty():
        print(f"\r{text}: {done}/{total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)


def track(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Iterate and note each step; ``total`` is needed where the length of ``items`` is unknown."""
    size = total if total is not None else len(items) if isinstance(items, Sized) else 0
    for index, item in enumerate(items):
        note(text, index, size)
        yield item
    note(text, size, size)


@dataclass
class Estimate:
    """Time left of a matrix of jobs, from what each is expected to take and what the finished ones took."""

    jobs: Mapping[str, Job]
    expected: Mapping[str, float]
    """seconds per job"""
    cores: int
    on_gpu: int = 0
    """how many of the jobs that run a model share the GPU; 0: none of them needs one"""

    def left(self, took: Mapping[str, float], running: Mapping[str, float]) -> float:
        """Seconds left.

        Args:
            took: seconds of each finished job; 0 for one that was complete before.
            running: seconds since each running job began.
        """
        measured = {name: seconds for name, seconds in took.items() if seconds > 0}
        # one quick job says little about the machine, so the first minute of work counts as expected
        factor = (sum(measured.values()) + 60) / (sum(self.expected[name] for name in measured) + 60)
        work = with_model = 0.0
        chain: dict[str, float] = {}
        for name, job in self.jobs.items():
            remaining = 0.0 if name in took else self.expected[name] * factor
            if name in running:
                remaining = max(remaining - running[name], 0.05 * remaining)
            work += remaining
            with_model += remaining * job.on_device
            chain[name] = remaining + max((chain.get(need, 0.0) for need in job.needs), default=0.0)
        queue = with_model / self.on_gpu if self.on_gpu else 0.0
        return max(work / max(self.cores, 1), queue, max(chain.values(), default=0.0))


def expected_seconds(jobs: Mapping[str, Job], reference: RunFolder) -> dict[str, float]:
    """Seconds each job is expected to take: as in the reference, else as the matrix says."""
    found = {}
    for name, job in jobs.items():
        path = reference.manifest(name)
        seconds = read_json(path).get("seconds") if path.is_file() else None
        found[name] = float(seconds) if seconds else 60 * job.minutes
    return found


def in_words(seconds: float) -> str:
    """``45 s``, ``3 min``, ``1 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Monitor:
    """Prints what a running matrix does, from its files; `poll` it about once a second."""

    def __init__(self, jobs: Mapping[str, Job], folder: RunFolder, estimate: Estimate, *, every: float = 20.0) -> None:
        self.jobs, self.folder, self.estimate, self.every = jobs, folder, estimate, every
        self.begun = self.printed = time.time()
        self.states: dict[str, str] = {}
        self.took: dict[str, float] = {}

    def already_complete(self, names: Iterable[str]) -> None:
        """Jobs that need no run."""
        self.took |= dict.fromkeys(names, 0.0)

    def poll(self) -> None:
        """Print every change of state, and one line on the whole now and then."""
        running: dict[str, dict[str, Any]] = {}
        for name in self.jobs:
            path = self.folder.progress(name)
            if not path.is_file():
                continue
            state = read_json(path)
            if state["started"] < self.begun - 1:
                continue  # of an earlier run
            if state["state"] == "running":
                running[name] = state
            if self.states.get(name) != state["state"]:
                self.states[name] = state["state"]
                self._changed(name, state)
        if time.time() - self.printed >= self.every:
            self._line(running)

    def _changed(self, name: str, state: Mapping[str, Any]) -> None:
        if state["state"] == "running":
            seconds = self.estimate.expected[name]
            self._say(f"{name}: started (about {in_words(seconds)})")
        elif state["state"] == "done":
            self.took[name] = state["seconds"]
            self._say(f"{name}: done in {in_words(state['seconds'])}; {len(self.took)} of {len(self.jobs)} complete")
        else:
            self._say(f"{name}: FAILED\n    " + "\n    ".join(str(state.get("error", "")).splitlines()))

    def _line(self, running: Mapping[str, Mapping[str, Any]]) -> None:
        now = time.time()
        left = self.estimate.left(self.took, {name: now - state["started"] for name, state in running.items()})
        doing = []
        for name in running:
            path = self.folder.progress(f"{name}.note")
            step = read_json(path) if path.is_file() else None
            doing.append(f"{name} ({step['text']} {step['done']}/{step['total']})" if step else name)
        self._say(
            f"{len(self.took)} of {len(self.jobs)} complete, {in_words(now - self.begun)} passed, "
            f"about {in_words(left)} left; running: {', '.join(doing) or 'nothing yet'}"
        )

    def _say(self, text: str) -> None:
        self.printed = time.time()
        print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)
