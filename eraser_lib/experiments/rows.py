"""Rows of answers that are no log of the comparison and stand behind a result all the same: kept beside the logs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from eraser_lib.experiments.study import Study


def path(study: Study, name: str) -> Path:
    """Where they are: `rows/<model>/<split>/<name>.parquet`."""
    return study.out / "rows" / study.model / str(study.split) / f"{name}.parquet"


def keep(study: Study, name: str, table: pd.DataFrame) -> None:
    """Write them, a whole file at once."""
    target = path(study, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}")
    table.to_parquet(part, index=False, compression="zstd")
    part.replace(target)
