"""The roles `result` and `value`: inline numbers from `summary.csv` and from the JSON beside a figure."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from docutils import nodes
from results_nodes import missing, text_of
from results_reader import MissingResult, Results
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

logger = logging.getLogger(__name__)


def words(text: str | None) -> list[str]:
    """The values of an option: words separated by blanks, commas or line ends."""
    return [word for word in re.split(r"[\s,]+", text or "") if word]


def pairs(text: str) -> dict[str, str]:
    """The `name=value` words of a role or option; raises `MissingResult` on any other word."""
    found = {}
    for word in words(text):
        name, sign, value = word.partition("=")
        if not sign:
            raise MissingResult(f"{word!r} is not of the form name=value")
        found[name] = value
    return found


def open_results(env: BuildEnvironment) -> Results:
    """The results that the book shows: one reader while `summary.csv` is unchanged, parsed once."""
    root = Path(env.srcdir) / env.config.results_dir
    summary = root / "summary.csv"
    return _reader(root, summary.stat().st_mtime_ns if summary.is_file() else 0)


@lru_cache(maxsize=1)
def _reader(root: Path, changed_ns: int) -> Results:
    return Results(root)


class ResultRole(SphinxRole):
    """An inline number, from `summary.csv` (`result`) or from the JSON beside a figure (`value`)."""

    def __init__(self, look_up: Callable[[Results, str], str]) -> None:
        super().__init__()
        self.look_up = look_up

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number as text, or a warning and a mark."""
        results = open_results(self.env)
        self.env.note_dependency(str(results.summary_path))
        try:
            return [nodes.inline("", self.look_up(results, self.text), classes=["result"])], []
        except MissingResult as error:
            logger.warning("%s", error, location=self.get_location())
            return [missing(str(error))], []


def result_text(results: Results, text: str) -> str:
    """`model=llava method=vanilla ... [show=value|interval|both] [digits=3]`; `split=5` by default."""
    query = {"split": "5", **pairs(text)}
    show, digits = query.pop("show", "both"), int(query.pop("digits", "3"))
    if show not in ("value", "interval", "both"):
        raise MissingResult(f"show={show} is unknown; choose value, interval or both")
    return results.one(query).number(show, digits)


def value_text(results: Results, text: str) -> str:
    """`<model>/<figure>#<dotted path>`, optionally followed by ` digits=3`."""
    address, _, rest = text.strip().partition(" ")
    name, _, key = address.partition("#")
    model, _, figure = name.partition("/")
    found = results.figure_data(model, figure, key)
    return text_of(found, int(pairs(rest).get("digits", "3")))
