"""The peak of a part of a process: what was larger before it, and what comes after it, does not count."""

from __future__ import annotations

import threading
import time

import pytest

from eraser_lib.experiments import memory

MEGABYTE = 2**20


def test_the_peak_is_that_of_the_part() -> None:
    before = bytearray(b"1") * (400 * MEGABYTE)
    del before
    with memory.peak() as little:
        pass
    with memory.peak() as much:
        inside = bytearray(b"1") * (150 * MEGABYTE)
        time.sleep(20 * memory.EVERY)
        del inside
    after = bytearray(b"1") * (400 * MEGABYTE)
    del after
    grown = much["peak_memory_bytes"] - little["peak_memory_bytes"]
    assert 140 * MEGABYTE < grown < 160 * MEGABYTE


def test_an_error_passes_through_and_nobody_goes_on_watching() -> None:
    running = threading.active_count()
    with pytest.raises(KeyError), memory.peak() as found:
        raise KeyError
    assert found["peak_memory_bytes"] > 0 and threading.active_count() == running
