"""When a changed model counts as collapsed: it babbles, about the people to forget or about others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BABBLE = 0.05
"""A share of gibberish above this, on dev or on kept rows, counts as collapse."""


def judged(score: Mapping[str, float]) -> dict[str, Any]:
    """A score of `DevRows.score` with `collapsed` beside."""
    return {**score, "collapsed": max(score["gibberish"], score["kept_gibberish"]) > BABBLE}
