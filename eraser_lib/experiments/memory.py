"""The largest memory of this process while some of its work is done, for methods that share one process."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

EVERY = 0.005
"""Seconds between two looks: memory that is held for less may be missed."""


@contextmanager
def peak() -> Iterator[dict[str, int]]:
    """Watch the resident set of the process, everything that it holds included, until the context ends.

    What earlier work no longer needs is given back to the system first, so that it does not count here. (The kernel
    keeps a peak of its own, but beginning it anew would take it from the manifest of the job.)

    Yields a dictionary that gets `peak_memory_bytes` at the end.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed memory, others give it back
    if trim is not None:
        trim(0)
    process, over = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not over.wait(EVERY):
            seen[0] = max(seen[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    found: dict[str, int] = {}
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found["peak_memory_bytes"] = max(seen[0], process.memory_info().rss)
