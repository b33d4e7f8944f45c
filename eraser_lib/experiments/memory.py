"""The largest memory of this process while some of its work is done, for methods that share one process."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESS = Path("/proc/self")


@contextmanager
def peak() -> Iterator[dict[str, int]]:
    """Measure the largest resident set of the process, everything that it holds included, until the context ends.

    What earlier work no longer needs is given back to the system first, so that it does not count here.

    Yields a dictionary that gets `peak_memory_bytes` at the end. It stays empty where the system does not keep a peak
    that can be begun anew (it does on Linux); the peak of the whole process is then all that is known.
    """
    found: dict[str, int] = {}
    gc.collect()
    begun = _begin()
    try:
        yield found
    finally:
        if begun:
            found["peak_memory_bytes"] = _peak()


def _begin() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed memory, others give it back
    if trim is not None:
        trim(0)
    try:
        (PROCESS / "clear_refs").write_text("5")  # the number that resets the peak: see proc(5)
    except OSError:
        return False
    return True


def _peak() -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
