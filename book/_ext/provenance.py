"""Sphinx extension of the book: shows results files with their provenance and refuses unsound notebooks.

Directives `results-table`, `results-figure`, `results-json`, `results-cost`, `results-profile`, `results-targets`,
`provenance`; roles `result` and `value`; their syntax is on the page "How to rerun anything". A row, file or key that
does not exist becomes a warning that names it, which fails the strict build, and a visible mark on the page. The same
holds for a notebook that did not run to its end under papermill.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

# tables and the API page take the library from the tree, installed or not
sys.path.insert(0, str(Path(__file__).parents[2]))

from cost_directive import ResultsCost, ResultsProfile
from cost_targets import ResultsTargets
from results_directives import Explorer, Provenance, ResultsFigure, ResultsJson, ResultsTable
from results_reader import failure_of_notebook
from results_roles import ResultRole, result_text, value_text

logger = logging.getLogger(__name__)


def check_notebooks(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Warns about every notebook of the book that failed, was interrupted or never ran under papermill.

    All notebooks are looked at, not only the changed ones: an incremental build must not hide a failure.
    """
    for docname in sorted(env.found_docs):
        path = Path(env.doc2path(docname))
        if path.suffix == ".ipynb" and (reason := failure_of_notebook(path)):
            logger.warning("notebook %s %s; rerun it before building the book", path.name, reason, location=docname)


def drop_live_code(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Leaves out the scripts for running code in the page (thebe), which name another host."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if "thebe" not in _content(file).lower()]


def _content(file: Any) -> str:
    return f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', {}).get('body', '')}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives, roles and the notebook check."""
    app.add_config_value("results_dir", "book/run", "env")
    app.add_directive("results-table", ResultsTable)
    app.add_directive("results-figure", ResultsFigure)
    app.add_directive("results-json", ResultsJson)
    app.add_directive("results-explorer", Explorer)
    app.add_directive("results-cost", ResultsCost)
    app.add_directive("results-profile", ResultsProfile)
    app.add_directive("results-targets", ResultsTargets)
    app.add_directive("provenance", Provenance)
    app.add_role("result", ResultRole(result_text))
    app.add_role("value", ResultRole(value_text))
    app.connect("env-before-read-docs", check_notebooks)
    app.connect("html-page-context", drop_live_code, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
