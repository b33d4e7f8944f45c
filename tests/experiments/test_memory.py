"""The peak of a part of a process: what was larger before it, and what comes after it, does not count."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eraser_lib.experiments import memory

MEGABYTE = 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no peak that can be begun anew")
def test_the_peak_is_that_of_the_part() -> None:
    before = bytearray(400 * MEGABYTE)
    del before
    with memory.peak() as little:
        pass
    with memory.peak() as much:
        inside = bytearray(150 * MEGABYTE)
        del inside
    after = bytearray(400 * MEGABYTE)
    del after
    grown = much["peak_memory_bytes"] - little["peak_memory_bytes"]
    assert 140 * MEGABYTE < grown < 160 * MEGABYTE


def test_where_the_system_keeps_no_such_peak_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "none")
    with memory.peak() as found:
        pass
    assert found == {}


def test_an_error_passes_through_and_the_peak_is_noted() -> None:
    with pytest.raises(KeyError), memory.peak() as found:
        raise KeyError
    assert all(value > 0 for value in found.values())
