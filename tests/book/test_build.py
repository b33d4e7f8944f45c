"""The book builds strictly, works offline, and refuses unsound notebooks and missing results."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from book_fixtures import REPOSITORY, fixture_notebook
from pages import contents, missing, not_there

pytestmark = pytest.mark.slow

LOADING = {
    **dict.fromkeys(("script", "img", "iframe", "source", "video", "audio", "embed"), "src"),
    "link": "href",
}
NOT_LOADED = {"next", "prev", "search", "index", "genindex", "canonical", "author", "license"}


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """The strict build, as `make book` runs it, on a machine where torch cannot be imported."""
    without_torch = folder / "_without_torch" / "torch"
    without_torch.mkdir(parents=True, exist_ok=True)
    (without_torch / "__init__.py").write_text("raise ImportError('the book must not need torch')\n")
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", ".", "-W", "-n", "--keep-going", "--all"]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(without_torch.parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def built(book_copy: Path) -> Path:
    """The HTML of a strict build of the book."""
    # of the notebooks, which are all alike, those of two kinds: `test_make.py` builds every page
    toc = book_copy / "_toc.yml"
    whole = toc.read_text()
    toc.write_text(re.sub(r" *- file: book/run/notebooks/(?!\S*(?:04_gate|07_compare))\S+\n *title: .*\n", "", whole))
    done = build(book_copy)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return book_copy / "_build" / "html"


class Loads(HTMLParser):
    """Collects what a page loads by itself: scripts, styles and pictures, not the links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the address that a tag loads."""
        values = dict(attrs)
        if tag == "link" and set((values.get("rel") or "").split()) <= NOT_LOADED:
            return
        addresses = [values.get(LOADING[tag])] if tag in LOADING else []
        addresses += re.findall(r"url\(([^)]*)\)", values.get("style") or "")
        self.found += [address for address in addresses if address]


def foreign(html: Path) -> Iterator[str]:
    """Every address on another host that a page or style sheet below `html` loads."""
    for page in sorted(html.rglob("*.html")):
        parser = Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        yield from (f"{page.name}: {a}" for a in parser.found if re.match(r"\s*['\"]?(https?:)?//", a))
    for style in sorted(html.rglob("*.css")):
        text = style.read_text(encoding="utf-8")
        yield from (
            f"{style.name}: {a}" for a in re.findall(r"(?:url\(|@import\s)\s*['\"]?((?:https?:)?//[^'\")\s]+)", text)
        )


def test_every_page_of_the_contents_exists(built: Path, book_copy: Path) -> None:
    assert len(contents(book_copy / "_toc.yml")) > 20
    assert missing(book_copy / "_toc.yml", built) == []
    assert not_there(book_copy / "_toc.yml", built) == []


def test_no_page_loads_anything_from_another_host(built: Path) -> None:
    assert list(foreign(built)) == []
    for page in built.rglob("*.html"):
        assert not re.search(r"unpkg\.com|jsdelivr|cdnjs|googleapis|gstatic", page.read_text(encoding="utf-8")), page


def test_equations_use_the_local_file(built: Path) -> None:
    assert (built / "_static" / "mathjax" / "tex-svg.js").is_file()
    page = (built / "book" / "method.html").read_text(encoding="utf-8")
    assert re.search(r'<script[^>]*src="\.\./_static/mathjax/tex-svg\.js', page)


def test_tables_figures_and_provenance_are_on_the_pages(built: Path) -> None:
    comparison = (built / "book" / "comparison.html").read_text(encoding="utf-8")
    assert ".111" in comparison and ".100\N{EN DASH}.122" in comparison
    assert "MLLMEraser (corrected)" in comparison
    assert "Fixture processor" in comparison
    gate = (built / "book" / "gate.html").read_text(encoding="utf-8")
    assert gate.count("results-image") >= 6
    assert "Not shown: 4 further rows of the file." in gate  # two of each model
    cost = (built / "book" / "cost.html").read_text(encoding="utf-8")
    measured = list(csv.DictReader((REPOSITORY / "results" / "cost.csv").open()))
    (row,) = [r for r in measured if r["machine"].startswith("AMD")
              and (r["model"], r["phase"], r["layers"], r["batch"], r["method"], r["reference"])
              == ("tiny-qwen", "prefill", "6", "1", "bare hook", "unsteered")]  # fmt: skip
    assert f"{float(row['ratio']):.2f} [" in cost
    assert "hidden size 4096, 100 forget, 10000 retain prompts" in cost
    assert "Source: results/cost_profile.csv" in cost and "everything else" in cost
    explorer = (built / "book" / "explorer.html").read_text(encoding="utf-8")
    assert explorer.count('id="explorer-app"') == 1, "the script must find its own place and no heading"
    (inlined,) = re.findall(r'<script type="application/json" id="explorer-data">(.*?)</script>', explorer)
    assert json.loads(inlined)["questions"] == {"made up": "</script>"}, "no text can end the data early"
    (script,) = re.findall(r'<script src="(\S+explorer.js)"', explorer)
    assert (built / "book" / script).resolve().is_file()
    for page in (built / "book").rglob("*.html"):
        assert 'class="missing-result"' not in page.read_text(encoding="utf-8"), page.name


def test_what_a_run_did_not_make_is_marked_wherever_it_is_shown(built: Path) -> None:
    """Tables of the summary and of notes, pictures, the explorer and the lists of runs."""
    said = "not rerun but from the committed reference"
    lines = {
        page: re.findall(r'<p class="provenance-line">(.*?)</p>', (built / "book" / f"{page}.html").read_text())
        for page in ("comparison", "which", "shares", "explorer")
    }

    def marked(page: str, source: str) -> list[bool]:
        return [f"; {said}: GA_Diff." in line for line in lines[page] if source in line]

    assert any(marked("comparison", "summary.csv")), "those that show it"
    for page, source in (("which", "/ledger.json"), ("which", "/verdicts.json"), ("comparison", "/tradeoff"),
                         ("explorer", "/explorer.json")):  # fmt: skip
        assert marked(page, source) and all(marked(page, source)), source
    assert not any(marked("shares", "")), "at other shares it was made here"
    assert any("IdkNLL" in line and said in line for line in lines["shares"])
    comparison = (built / "book" / "comparison.html").read_text()
    assert f"llava-5-09_closed ({said})" in comparison and f"qwen-5-09_closed ({said})" not in comparison


def test_strict_build_fails_on_unsound_notebooks_and_missing_results(book_copy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "repository"
    shutil.copytree(book_copy, broken, symlinks=True, ignore=shutil.ignore_patterns("_build"))
    run = broken / "runs" / "fixture"
    failed = fixture_notebook(exception=True)
    failed["cells"][1]["outputs"] = [{"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}]
    (run / "notebooks" / "llava-5-04_gate.ipynb").write_text(json.dumps(failed))
    unrun = fixture_notebook()
    del unrun["metadata"]["papermill"]
    (run / "notebooks" / "qwen-5-04_gate.ipynb").write_text(json.dumps(unrun))
    (run / "figures" / "qwen" / "pca.svg").unlink()
    (run / "manifests" / "llava-5-05_pca.json").unlink()
    summary = (run / "summary.csv").read_text().splitlines()
    gone = "fixture,qwen,5,mllmeraser,all,test,vqa,generation,fact_recall"
    # and of one measure nothing but empty fields, as where it does not apply
    blank = re.compile(r",gibberish_rate,[^,]*,[^,]*,[^,]*,")
    (run / "summary.csv").write_text(
        "\n".join(blank.sub(",gibberish_rate,,,,", line) for line in summary if not line.startswith(gone))
    )

    costs = (broken / "results" / "cost.csv").read_text().splitlines()
    left = [line for line in costs if ",decode," not in line or "tiny-qwen" not in line]
    (broken / "results" / "cost.csv").write_text("\n".join(left))
    # the pages of what was broken, without those that take longest
    pages = ["gate", "pca", "comparison", "cost", *(f"run/notebooks/{model}-5-04_gate" for model in ("llava", "qwen"))]
    shown = {"format": "jb-book", "root": "book/index", "chapters": [{"file": f"book/{page}"} for page in pages]}
    (broken / "_toc.yml").write_text(yaml.safe_dump(shown))

    done = build(broken)

    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "llava-5-04_gate.ipynb stopped with an exception" in said
    assert "qwen-5-04_gate.ipynb has no papermill metadata" in said
    assert re.search(r"figures/qwen/pca exists neither", said)
    assert re.search(r"llava-5-05_pca\.json does not exist", said)
    assert "results/cost.csv has no rows of phase decode for tiny-qwen" in said
    assert "no row for the table cell method=mllmeraser model=qwen subset=test" in said
    assert "summary.csv has rows for this table and not one value" in said
    assert re.search(r"no row with .*method=mllmeraser subset=test modality=vqa", said)
