"""The book of the committed results, built strictly as readers get it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from book_fixtures import REPOSITORY


@pytest.mark.slow
def test_make_book_builds_the_committed_results() -> None:
    done = subprocess.run(
        ["make", "book", f"PY={sys.executable}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert (REPOSITORY / "_build" / "html" / "index.html").is_file()
    assert "The book of results/tiny: " in done.stdout
