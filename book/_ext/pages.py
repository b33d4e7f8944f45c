"""``python book/_ext/pages.py _toc.yml _build/html``: whether a build is whole. A page for every entry of the contents,
with text below its heading, and every picture, script and style sheet that a page loads."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

LEAST = 500
"""Characters of text on a page; the shortest chapter has about two thousand."""
_ARTICLE = re.compile(r"<article\b[^>]*>(.*?)</article>", re.DOTALL)
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.DOTALL)
_LOADED = re.compile(r"<(?:img|script)\b[^>]*?\ssrc=\"([^\"]+)\"|<link\b([^>]*)>")
_ADDRESS = re.compile(r"\bhref=\"([^\"]+)\"")


def contents(toc: Path) -> list[str]:
    """The document names of a jb-book table of contents, in order. `ValueError` where it lists no chapter."""
    tree = yaml.safe_load(toc.read_text())
    found: list[str] = [tree["root"]]

    def walk(node: Any) -> None:
        if isinstance(node, dict) and "file" in node:
            found.append(node["file"])
        for item in node if isinstance(node, list) else node.values():
            if isinstance(item, dict | list):
                walk(item)

    walk(tree.get("parts") or [])
    if len(found) == 1:
        raise ValueError(f"{toc} lists no chapter")
    return found


def missing(toc: Path, html: Path) -> list[str]:
    """Entries of the contents without a page below `html`; one without a heading, or without text below it, is none."""
    found = {name: _read(html / f"{name}.html") for name in contents(toc)}
    return [name for name, page in found.items() if "<h1" not in page or len(text_of(page)) < LEAST]


def text_of(page: str) -> str:
    """What a reader reads of a page, without what stands around every one of them."""
    article = _ARTICLE.search(page)
    return " ".join(_TAG.sub(" ", article[1]).split()) if article else ""


def loaded(page: str) -> set[str]:
    """The local files that a page loads, relative to it: pictures, scripts and style sheets."""
    found = set()
    for source, link in _LOADED.findall(page):
        address = _ADDRESS.search(link) if "stylesheet" in link else None
        name = source or (address[1] if address else "")
        parts = urlsplit(name)
        if parts.path and not parts.scheme and not parts.netloc:
            found.add(unquote(parts.path))
    return found


def not_there(toc: Path, html: Path) -> list[str]:
    """Files that a page of the contents loads and and that are missing or empty, with the first page that does."""
    asked: dict[Path, str] = {}
    for name in contents(toc):
        page = html / f"{name}.html"
        for file in loaded(_read(page)):
            asked.setdefault((page.parent / file).resolve(), name)
    return [
        f"{file.relative_to(html.resolve()) if file.is_relative_to(html.resolve()) else file} (on {name})"
        for file, name in sorted(asked.items())
        if not file.is_file() or not file.stat().st_size
    ]


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""


def main(arguments: list[str]) -> int:
    """Look through the pages; returns 2, as other errors of the build do, where something is missing."""
    toc, html = map(Path, arguments)
    try:
        wanted = len(contents(toc))
    except ValueError as error:
        print(f"Error: {error}, so there is no book.", file=sys.stderr)
        return 2
    gone = missing(toc, html) + ["index.html"] * (not _read(html / "index.html").strip())
    if gone:
        print(f"Error: of {wanted} pages these are missing, or empty: {', '.join(gone)}.", file=sys.stderr)
        return 2
    if absent := not_there(toc, html):
        print(f"Error: pages load what is missing, or empty: {', '.join(absent)}.", file=sys.stderr)
        return 2
    print(f"{wanted} pages, one for every entry of {toc}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
