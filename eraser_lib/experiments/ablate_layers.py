"""Which blocks, and how many in a row: the gate read there, and the push added there. Nothing is chosen here.

Everything else is as in the study. All are measured on the forgotten people's test prompts; the push is tried without a
gate, on which what an opened prompt answers does not depend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from eraser_lib import Direction
from eraser_lib.bench.records import Question
from eraser_lib.experiments.ablate import Bench
from eraser_lib.experiments.ablate_push import pushed
from eraser_lib.experiments.gates import fit_joined, looked_at
from eraser_lib.experiments.methods import Decision, Push
from eraser_lib.experiments.study import Study

WIDEST = 4
"""Blocks that a gate reads side by side at most, as in the study: its algebra grows with the cube of their width."""
STRENGTHS = (0.25, 1.0)
"""Weak ones, since a strong push works from anywhere."""


def stretches(count: int, widest: int = 0) -> list[tuple[int, ...]]:
    """Blocks in a row, of a model of `count`: from each of `gates.looked_at` to itself and to each later one.

    `widest`: how many at most; 0 sets no bound. Of a deep model only the blocks looked at are in it.
    """
    places = looked_at(count)
    return [
        tuple(places[first : last + 1])
        for first in range(len(places))
        for last in range(first, len(places))
        if not widest or last - first < widest
    ]


def read_at(bench: Bench, decision: Decision, blocks: Iterable[Sequence[int]]) -> pd.DataFrame:
    """The gate of the study, fitted and calibrated anew on each of the stretches `blocks`.

    Columns: `first, last` (block, counted from 0) and those of `Bench.judge`.
    """
    rows = []
    for layers in blocks:
        gate = fit_joined(decision.solver, bench.read["fit"], bench.rows, layers)
        rows.append(bench.judge(gate, layers, first=layers[0], last=layers[-1]))
    return pd.DataFrame(rows)


def pushed_at(
    study: Study,
    questions: Sequence[Question],
    directions: Mapping[str, Direction],
    push: Push,
    blocks: Iterable[Sequence[int]],
    strengths: Sequence[float] = STRENGTHS,
) -> pd.DataFrame:
    """The direction of the study, added to every prompt at each of the stretches `blocks`: one row per answer, as of
    `ablate_push.pushed`, with columns `first, last`."""
    found = []
    for layers in blocks:
        own = replace(push, layers=tuple(layers))
        table = pushed(study, questions, directions, own, names=(push.direction,), strengths=strengths)
        found.append(table.assign(first=layers[0], last=layers[-1]))
    return pd.concat(found, ignore_index=True)
