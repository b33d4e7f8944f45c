"""``python book/_ext/pages.py _toc.yml _build/html``: whether a build left a page for every entry of the contents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml


def contents(toc: Path) -> list[str]:
    """The document names of a jb-book table of contents, in order."""
    tree = yaml.safe_load(toc.read_text())
    found: list[str] = [tree["root"]]

    def walk(node: Any) -> None:
        if isinstance(node, dict) and "file" in node:
            found.append(node["file"])
        for item in node if isinstance(node, list) else node.values():
            if isinstance(item, dict | list):
                walk(item)

    walk(tree["parts"])
    return found


def missing(toc: Path, html: Path) -> list[str]:
    """Entries of the contents without a page below `html`; a page without a heading is none."""
    pages = {name: html / f"{name}.html" for name in contents(toc)}
    return [
        name
        for name, page in pages.items()
        if not page.is_file() or "<h1" not in page.read_text(encoding="utf-8", errors="replace")
    ]


def main(arguments: list[str]) -> int:
    """Count the pages; returns 2, as other errors of the build do, where one is missing."""
    toc, html = map(Path, arguments)
    gone, wanted = missing(toc, html), len(contents(toc))
    if gone or not (html / "index.html").is_file():
        listed = ", ".join(gone) or "index.html"
        print(f"Error: the build left {wanted - len(gone)} of {wanted} pages. Missing: {listed}.", file=sys.stderr)
        return 2
    print(f"{wanted} pages, one for every entry of {toc}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
