"""Folders of fixture results for the tests of the book."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "book" / "_ext"), str(Path(__file__).parent)]

from book_fixtures import MANIFEST, PICTURE, summary_row, write_results  # noqa: E402


@pytest.fixture
def results_root(tmp_path: Path) -> Path:
    """A small results folder for the units of the extension."""
    root = tmp_path / "results"
    (root / "figures" / "llava").mkdir(parents=True)
    (root / "figures" / "llava" / "pca.svg").write_text(PICTURE)
    (root / "figures" / "llava" / "cost.json").write_text(json.dumps({"fit": [{"solver": "ridge", "seconds": 0.111}]}))
    (root / "manifests").mkdir()
    (root / "manifests" / "llava-5-06_erase.json").write_text(json.dumps(MANIFEST))
    rows = [
        summary_row(seed=0, value=0.5),
        summary_row(value=0.9, ci_low=0.85, ci_high=0.95),
        summary_row(method="constant", value=0.3, ci_low=0.25, ci_high=0.35),
        summary_row(method="mllmeraser", value=0.1, ci_low=0.05, ci_high=0.15),
        summary_row(method="prompt", value=None, ci_low=None, ci_high=None),
    ]
    pd.DataFrame(rows).to_csv(root / "summary.csv", index=False)
    return root


@pytest.fixture(scope="session")
def book_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that the book needs, with fixture results behind the link `book/run`."""
    copy = tmp_path_factory.mktemp("book") / "repository"
    copy.mkdir()
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(REPOSITORY / name, copy)
    shutil.copytree(REPOSITORY / "book", copy / "book", ignore=shutil.ignore_patterns("run", "__pycache__"))
    shutil.copytree(REPOSITORY / "eraser_lib", copy / "eraser_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "results").mkdir()
    # a run, as `make study` shows it: what was measured apart from it lies in results/ all the same
    write_results(copy / "runs" / "fixture", book=copy / "book", toc=copy / "_toc.yml")
    taken = ["logs/llava/5/ga_diff/seed0.parquet", "manifests/llava-5-09_closed.json", "logs/qwen/15/idk/seed0.parquet"]
    (copy / "runs" / "fixture" / "from_reference.json").write_text(json.dumps(dict.fromkeys(taken, "0" * 64)))
    for name in ("cost.csv", "cost.json", "cost_profile.csv", "hours.csv"):
        shutil.copy(REPOSITORY / "results" / name, copy / "results")
    (copy / "book" / "run").symlink_to(Path("..") / "runs" / "fixture")
    return copy
