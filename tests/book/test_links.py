"""The weekly check of links, as its workflow runs it: it asks every address, here of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from book_fixtures import REPOSITORY

ASKED: list[str] = []


class Site(BaseHTTPRequestHandler):
    """A page that is there; no other is. What is asked for is noted in `ASKED`."""

    def do_HEAD(self) -> None:
        """Answers without the page."""
        ASKED.append(self.path)
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """The address of a site on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def pamphlet(tmp_path: Path) -> Path:
    """A book of one page with the settings of the book."""
    (tmp_path / "book").mkdir()
    for name in ("Makefile", "_config.yml", "requirements-cpu.txt", "requirements-book.txt", "book/references.bib"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in ("_ext", "_static"):
        shutil.copytree(REPOSITORY / "book" / name, tmp_path / "book" / name)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    return tmp_path


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """The one command of the workflow."""
    steps = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "links.yml").read_text())["jobs"]["links"]["steps"]
    (command,) = (step["run"] for step in steps if "run" in step)
    around = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ASKED.clear()
    return subprocess.run(
        [*command.split(), f"PY={sys.executable}"], cwd=folder,
        env={**around, "NO_COLOR": "1", "NO_PROXY": "127.0.0.1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_an_address_that_does_not_answer_is_named_and_fails_the_check(pamphlet: Path, site: str) -> None:
    page = pamphlet / "book" / "page.md"
    page.write_text(f"# A page\n\n[One]({site}/there) and [another]({site}/gone).\n")
    done = check(pamphlet)
    assert done.returncode != 0
    assert f"broken link: {site}/gone (404" in done.stderr and f"{site}/there" not in done.stderr
    page.write_text(f"# A page\n\n[One]({site}/there).\n")
    done = check(pamphlet)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(ASKED) == {"/there"}
