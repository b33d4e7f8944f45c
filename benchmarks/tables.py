"""Tables of measurements, where what is measured again takes the place of what was there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def replace_rows(path: Path, new: pd.DataFrame, *, keys: Sequence[str], columns: Sequence[str], digits: int) -> None:
    """Write a CSV file anew: its rows that share no `keys` with `new`, then those of `new`.

    `columns`: of the file; `digits`: significant ones of its numbers.
    """
    old = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(columns))
    replaced = set(new[list(keys)].itertuples(index=False, name=None))
    old = old[[row not in replaced for row in old[list(keys)].itertuples(index=False, name=None)]]
    path.parent.mkdir(exist_ok=True)
    pd.concat([old, new[list(columns)]]).to_csv(path, index=False, float_format=f"%.{digits}g")
