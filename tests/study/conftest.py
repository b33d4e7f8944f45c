"""A throwaway repository with seven tiny notebooks, and its command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eraser_lib.study import manifest
from tests.study.toys import HERE, PRESET, notebook

CELL = 'preset: str = "toy"\nseed: int = 0\nout: str = "runs/toy"\n'


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a preset ``toy`` and a notebook for each row of the matrix, current directory inside."""
    from eraser_lib.study.matrix import KINDS

    base = tmp_path / "clone"
    for name in ("notebooks", "presets", "book"):
        (base / name).mkdir(parents=True)
    (base / "presets" / "toy.yml").write_text(PRESET)
    (base / "notebooks" / "01_benchmark.ipynb").write_text(notebook("#md A title", parameters=CELL))
    for kind in KINDS:
        axes = "".join({"model": 'model: str = "llava"\n', "split": "split: int = 5\n"}[axis] for axis in kind.over)
        text = CELL + axes
        path = base / "notebooks" / f"{kind.notebook or kind.name}.ipynb"
        path.write_text(notebook("#md A title", "total = seed + 1\ntotal", parameters=text))
    shutil.copy(HERE / "Snakefile", base)
    shutil.copytree(HERE / "profiles", base / "profiles")
    monkeypatch.chdir(base)
    monkeypatch.delenv("ERASER_ROOT", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    return base


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the throwaway repository were a clean commit: what ran on anything else is not promoted."""
    monkeypatch.setattr(manifest, "git_state", lambda: {"git_commit": "0" * 40, "git_dirty": False})


@pytest.fixture
def command(clone: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m eraser_lib.study`` in the throwaway repository."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "eraser_lib.study", *arguments, "--preset", "toy"],
            cwd=clone, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run
