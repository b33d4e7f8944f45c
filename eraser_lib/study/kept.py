"""Parts of a long job that are worked out once, also when the job is stopped in between and run again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from eraser_lib.study.paths import read_json, sha256, write_atomic

VARIABLE = "ERASER_KEPT"
"""Environment variable that names the folder for them. The runner sets it for the kernel of its notebook, empties the
folder where code, parameters or checkpoints have changed since, and removes it when the job is complete."""
T = TypeVar("T")


def kept(key: str, make: Callable[[], T]) -> T:
    """What `make()` returns; or, if the job was stopped after it had returned, what it returned then.

    Args:
        key: tells the parts of one job apart.
        make: the work. What it returns must be plain JSON: no tuples, no NaN, texts as keys.

    Raises:
        TypeError, ValueError: it is not.
    """
    if VARIABLE not in os.environ:
        return make()
    path = Path(os.environ[VARIABLE]) / f"{sha256(key)[:16]}.json"
    if path.is_file():
        found: T = read_json(path)["value"]
        return found
    began = time.perf_counter()
    value = make()
    part = {"key": key, "seconds": time.perf_counter() - began, "value": value}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(part, allow_nan=False))  # columns stay in order
    return value


def seconds(folder: Path) -> float:
    """How long the parts of a job took that its earlier runs left in `folder`; 0 where there are none."""
    return sum(float(read_json(part).get("seconds", 0.0)) for part in folder.glob("*.json"))
