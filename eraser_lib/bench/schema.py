"""Tables of published benchmarks: read, and checked cell by cell, with errors that name file, columns and rows."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet
from PIL import Image

from eraser_lib.bench.reader import SchemaError

SAID = {
    "not_nullable": "is empty", "field_uniqueness": "is there more than once", "column_in_dataframe": "is missing",
}  # fmt: skip
"""What is said where checks that pandera brings along find something."""
SHARD = re.compile(r"(?P<split>.*-)?(?P<number>\d+)-of-(?P<count>\d+)")
"""How the hub calls shards: they are numbered from 0 on, and each says how many there are."""


def check_whole(folder: Path, fetch: str) -> None:
    """Check that no shard of a folder is missing, as far as names such as ``train-00000-of-00002.parquet`` tell.

    Raises:
        SchemaError: some are; names them, and ends with how to `fetch` them.
    """
    there: dict[tuple[str, str], set[int]] = {}
    for path in folder.glob("*.parquet"):
        if found := SHARD.match(path.name):
            there.setdefault((found["split"] or "", found["count"]), set()).add(int(found["number"]))
    missing = [
        f"{split}{number:0{len(count)}}-of-{count}.parquet"
        for (split, count), numbers in sorted(there.items())
        for number in range(int(count))
        if number not in numbers
    ]
    if missing:
        raise SchemaError(f"{folder} is not whole, it lacks {some(missing)}\n{fetch}")


def read_table(path: Path, columns: Collection[str] | None = None) -> pd.DataFrame:
    """A parquet file, or a folder of shards, as a table; of `columns` those that are there, and nothing else is read.

    Raises:
        SchemaError: it cannot be read as parquet, or has no rows.
    """
    try:
        if columns is not None:
            there = pyarrow.parquet.ParquetDataset(path).schema.names
            columns = [name for name in columns if name in there]
        frame = pd.read_parquet(path, columns=columns)
    except (pyarrow.ArrowException, OSError) as error:  # of a file cut short it is an OSError that names no file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SchemaError(
            f"{path} cannot be read as parquet ({reason}); where it was fetched in part, or is a pointer of git LFS, "
            "fetch it again"
        ) from error
    if columns != [] and not len(frame):  # without columns there is nothing to count
        raise SchemaError(f"{path} has no rows; fetch it again")
    return frame


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
    """Check a table. `SchemaError` that begins with `what` and names columns and rows, at most five of them.

    Rows are counted from 0 on, whatever index the file was written with.
    """
    try:
        schema.validate(frame.reset_index(drop=True), lazy=True)
    except pa.errors.SchemaErrors as errors:
        where = [
            f"column {case['column'] or case['failure_case']}"
            + ("" if pd.isna(case["index"]) else f", row {case['index']}")
            + f": {SAID.get(case['check'], case['check'])}"
            for case in errors.failure_cases.to_dict("records")
        ]
        raise SchemaError(f"{what}: {some(where)}. Mend the file, or fetch it again") from errors


def some(texts: Sequence[str], count: int = 5) -> str:
    """The first of them, and how many more there are."""
    return "; ".join(texts[:count]) + (f"; and {len(texts) - count} more" if len(texts) > count else "")


def is_picture(cell: Mapping[str, Any]) -> bool:
    """Whether a cell holds a picture with bytes, which are decoded; may raise what `cells` takes for no."""
    encoded = io.BytesIO(cell["bytes"])
    try:
        Image.open(encoded).load()
    except Exception:  # of many kinds, by format and fault: of a file cut short, say, that verify() passes
        return False
    return True
