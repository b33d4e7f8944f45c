"""Brings changed text cells into executed notebooks, so that better wording costs no rerun."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eraser_lib.study.matrix import Job
from eraser_lib.study.paths import RunFolder, write_atomic


def refresh(jobs: Mapping[str, Job], folder: RunFolder, notebooks: Path) -> list[str]:
    """Replace the text cells of executed notebooks whose code is still that of their source.

    Returns:
        Names of the jobs whose notebook changed.
    """
    changed = []
    for name, job in jobs.items():
        path = folder.notebook(name)
        if not path.is_file():
            continue
        executed = json.loads(path.read_text())
        cells = merged(executed["cells"], json.loads((notebooks / f"{job.notebook}.ipynb").read_text())["cells"])
        if cells is not None and cells != executed["cells"]:
            write_atomic(path, json.dumps({**executed, "cells": cells}, indent=1, ensure_ascii=False) + "\n")
            changed.append(name)
    return changed


def merged(executed: list[dict[str, Any]], source: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The source's text cells around the executed code cells, or ``None`` if the code differs."""
    code = [cell for cell in executed if cell["cell_type"] == "code"]
    injected = [cell for cell in code if "injected-parameters" in _tags(cell)]
    code = [cell for cell in code if cell not in injected]
    if [_text(cell) for cell in code] != [_text(cell) for cell in source if cell["cell_type"] == "code"]:
        return None
    remaining, cells = iter(code), list[dict[str, Any]]()
    for cell in source:
        cells.append(next(remaining) if cell["cell_type"] == "code" else cell)
        if "parameters" in _tags(cell):
            cells += injected
    return cells


def _tags(cell: Mapping[str, Any]) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def _text(cell: Mapping[str, Any]) -> str:
    return "".join(cell["source"])
