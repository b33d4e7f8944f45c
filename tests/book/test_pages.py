"""The look at all pages with which `make book` ends: what is missing or empty stops it, and is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from book_fixtures import REPOSITORY
from pages import contents, loaded, main, missing

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
PAGE = f"<html><article><h1>A page</h1>{'<p>Some text.</p>' * 50}</article></html>"
NAMES = ["book/index", "book/method", "book/run/notebooks/llava-5-04_gate", "book/references"]


@pytest.fixture
def toc(tmp_path: Path) -> Path:
    """A table of contents of four pages, all of them built into ``html`` beside it."""
    (tmp_path / "_toc.yml").write_text(TOC)
    for name in ["index", *NAMES]:
        page = tmp_path / "html" / f"{name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(PAGE if name != "index" else "<meta http-equiv=refresh>")
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
    assert "of 4 pages" in said and "book/method, book/run/notebooks/llava-5-04_gate." in said


def test_a_heading_alone_is_no_chapter(toc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = toc.with_name("html")
    around = "<nav>" + "other pages " * 100 + "</nav><script>" + "code " * 200 + "</script>"
    (html / "book" / "method.html").write_text(f"{around}<article><h1>Method</h1>{around[-100:]}</article>")
    assert main([str(toc), str(html)]) == 2
    assert "book/method." in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", " "])
def test_a_book_without_its_front_page_is_none(
    content: str | None, toc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = toc.with_name("html") / "index.html"
    page.unlink() if content is None else page.write_text(content)
    assert main([str(toc), str(page.parent)]) == 2
    assert "index.html" in capsys.readouterr().err


@pytest.mark.parametrize("parts", ["parts: []", "", "parts:\n  - caption: Empty"])
def test_contents_without_a_chapter_are_no_book(parts: str, toc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toc.write_text(f"root: book/index\n{parts}\n")
    assert main([str(toc), str(toc.with_name("html"))]) == 2
    assert "lists no chapter" in capsys.readouterr().err


def test_what_a_page_loads_is_there_and_not_empty(toc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = toc.with_name("html")
    loads = """<link rel="stylesheet" href="../_static/a%20b.css?v=1"><link rel="next" href="none.html">
        <script defer src="../_static/x.js"></script><img alt="" src="../_images/f.svg"><a href="gone.html">no</a>
        <img src="data:image/png;base64,AA"><script src="https://example.org/y.js"></script>"""
    page = html / "book" / "method.html"
    page.write_text(PAGE.replace("<article>", f"<article>{loads}"))
    assert loaded(page.read_text()) == {"../_static/a b.css", "../_static/x.js", "../_images/f.svg"}
    for name in ("_static/a b.css", "_static/x.js", "_images/f.svg"):
        assert main([str(toc), str(html)]) == 2
        assert f"{name} (on book/method)" in capsys.readouterr().err
        (html / name).parent.mkdir(exist_ok=True)
        (html / name).write_text("content")
    assert main([str(toc), str(html)]) == 0
    (html / "_images" / "f.svg").write_text("")
    assert main([str(toc), str(html)]) == 2, "a picture of no bytes"


def test_the_count_is_the_last_that_make_book_does() -> None:
    command = ["make", "-n", "book", f"PY={sys.executable}"]
    lines = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    (built,) = (number for number, line in enumerate(lines) if "jupyter_book" in line)
    (counted,) = (number for number, line in enumerate(lines) if "book/_ext/pages.py _toc.yml _build/html" in line)
    assert built < counted and "||" not in lines[counted]
