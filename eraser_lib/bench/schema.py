"""Checks of tables cell by cell, whose errors name columns and rows: what the readers of published benchmarks share."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import pandera.pandas as pa
from PIL import Image

from eraser_lib.bench.reader import SchemaError


def cells(what: str, holds: Callable[[Any], object], **options: Any) -> pa.Column:
    """A column of whose every cell something `holds`; `what` is said of those of which it does not.

    `options`: of `pandera.Column`, such as `nullable` and `required`.
    """

    def checked(cell: Any) -> bool:
        try:
            return bool(holds(cell))
        except (TypeError, KeyError, ValueError, AttributeError, OSError):
            return False  # a cell of another form is no error of the check

    return pa.Column(None, pa.Check(checked, element_wise=True, error=what), **options)


def validate(frame: pd.DataFrame, schema: pa.DataFrameSchema, what: str) -> None:
    """Check a table. `SchemaError` that begins with `what` and names columns and rows, at most five of them."""
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        where = [
            f"column {case['column'] or case['failure_case']}"
            + ("" if pd.isna(case["index"]) else f", row {case['index']}")
            + f": {case['check']}"
            for case in errors.failure_cases.to_dict("records")
        ]
        raise SchemaError(f"{what}: {some(where)}") from errors


def some(texts: Sequence[str], count: int = 5) -> str:
    """The first of them, and how many more there are."""
    return "; ".join(texts[:count]) + (f"; and {len(texts) - count} more" if len(texts) > count else "")


def is_picture(cell: Mapping[str, Any]) -> bool:
    """Whether a cell holds a picture with bytes; may raise what `cells` takes for no."""
    Image.open(io.BytesIO(cell["bytes"])).verify()
    return True
