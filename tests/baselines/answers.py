"""What becomes of answers while something is attached to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pandas as pd

from eraser_lib.bench.records import Question
from eraser_lib.evaluate.generate import evaluate
from eraser_lib.families import Loaded


def gained(
    loaded: Loaded, rows: Sequence[Question], attach: Callable[[], AbstractContextManager[Any]]
) -> pd.Series[float]:
    """Log-probability that the answer of every row gains, in nats; below 0 where it loses."""
    before, after = (
        evaluate(loaded, rows, context=context, max_new_tokens=1)["answer_logprob"].astype(float)
        for context in (None, attach)
    )
    return after - before
