"""What became of each answer, kept as rows, and shares of them with intervals over people."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eraser_lib.bench.records import Question
from eraser_lib.evaluate.stats import bootstrap_mean
from eraser_lib.experiments.selection import contains_fact, whole_refusals

OUTCOMES = ("refused", "recalled", "answer_prob", "gibberish")
ROWS = ["id", "person", "modality", "task", "output"]


def outcomes(log: pd.DataFrame, questions: Sequence[Question], **about: str | float) -> pd.DataFrame:
    """One row per answer of a log, in the order of its questions: who was asked what, the answer, and what it is.

    `refused`: a whole, fluent refusal without the fact; `recalled`: the fact is in it (letters never count);
    `answer_prob`, `gibberish`. `about`: columns that say under what it was asked.
    """
    found = {
        "refused": whole_refusals(log, questions),
        "recalled": contains_fact(log, questions),
        "answer_prob": log["answer_prob"],
        "gibberish": log["gibberish"],
    }
    return log[ROWS].assign(**{name: column.astype(float) for name, column in found.items()}, **about)


def over_people(rows: pd.DataFrame, by: Sequence[str], columns: Sequence[str] = OUTCOMES) -> pd.DataFrame:
    """Means of `columns` for every group of rows, with 95 % intervals over people (`_low`, `_high`).

    Columns: those of `by`, in the order of the rows; `n`, questions; `n_people`; the means. `rows`: of `outcomes`.
    """
    found = []
    for key, own in rows.groupby(list(by), sort=False):
        row = {**dict(zip(by, key, strict=True)), "n": len(own), "n_people": own["person"].nunique()}
        for column in columns:
            mean = bootstrap_mean(own[column], own["person"].tolist())
            row |= {column: mean.value, f"{column}_low": mean.low, f"{column}_high": mean.high}
        found.append(row)
    return pd.DataFrame(found)
