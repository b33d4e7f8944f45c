"""One process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eraser_lib.study.paths import StudyError


@contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """Hold a lock; the system frees it when the process dies, so it never goes stale.

    Args:
        path: the lock's file; its folder is made.
        message: of the error.

    Raises:
        StudyError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(message) from None
        yield
