"""The count of pages with which `make book` ends: a page that is missing or empty stops it, and is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from book_fixtures import REPOSITORY
from pages import contents, main, missing

TOC = """
format: jb-book
root: book/index
parts:
  - caption: First
    chapters:
      - file: book/method
        sections:
          - file: book/run/notebooks/llava-5-04_gate
            title: "Gate"
  - caption: Last
    chapters:
      - file: book/references
"""
NAMES = ["book/index", "book/method", "book/run/notebooks/llava-5-04_gate", "book/references"]


@pytest.fixture
def toc(tmp_path: Path) -> Path:
    """A table of contents of four pages, all of them built into ``html`` beside it."""
    (tmp_path / "_toc.yml").write_text(TOC)
    for name in ["index", *NAMES]:
        page = tmp_path / "html" / f"{name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<html><h1>A page</h1></html>")
    return tmp_path / "_toc.yml"


def test_the_contents_are_read_in_order_with_their_sections(toc: Path) -> None:
    assert contents(toc) == NAMES
    listed = contents(REPOSITORY / "_toc.yml")
    entries = re.findall(r"^root: |^ *- file: ", (REPOSITORY / "_toc.yml").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed)) == len(entries) > 100


def test_every_entry_needs_a_page_with_a_heading(toc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = toc.with_name("html")
    assert main([str(toc), str(html)]) == 0
    assert "4 pages" in capsys.readouterr().out
    (html / "book" / "method.html").write_text("")
    (html / "book" / "run" / "notebooks" / "llava-5-04_gate.html").unlink()
    assert missing(toc, html) == NAMES[1:3]
    assert main([str(toc), str(html)]) == 2
    said = capsys.readouterr().err
    assert "2 of 4 pages" in said and "book/method, book/run/notebooks/llava-5-04_gate" in said


def test_a_book_without_its_front_page_is_none(toc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = toc.with_name("html")
    (html / "index.html").unlink()
    assert main([str(toc), str(html)]) == 2
    assert "index.html" in capsys.readouterr().err


def test_the_count_is_the_last_that_make_book_does() -> None:
    command = ["make", "-n", "book", f"PY={sys.executable}"]
    lines = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    (built,) = (number for number, line in enumerate(lines) if "jupyter_book" in line)
    (counted,) = (number for number, line in enumerate(lines) if "book/_ext/pages.py _toc.yml _build/html" in line)
    assert built < counted and "||" not in lines[counted]
