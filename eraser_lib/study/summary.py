"""``summary.csv``: every figure of a run in one tidy table, made from the per-question logs."""

from __future__ import annotations

from typing import Any

from eraser_lib.study.paths import RunFolder, StudyError, root, sha256, write_atomic, write_json
from eraser_lib.study.preset import Preset
from eraser_lib.study.sources import module_hashes

CODE = "from eraser_lib.evaluate.summary import summarise"
"""What the table depends on besides the logs."""


def write(preset: Preset, folder: RunFolder) -> None:
    """Summarise the logs of a run into ``summary.csv`` and a manifest that says which logs it was made from.

    Raises:
        StudyError: there are no logs.
    """
    made_from = inputs(folder)
    if not made_from["logs"]:
        raise StudyError(f"{folder.logs} holds no logs. Run the study first: make study PRESET={preset.name}.")
    from eraser_lib.evaluate.summary import summarise

    table = summarise(folder.logs)
    # 6 significant digits: equal runs give equal files
    write_atomic(folder.summary, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_json(folder.manifest("summary"), made_from | {"rows": len(table)})


def inputs(folder: RunFolder) -> dict[str, Any]:
    """Hashes of the logs and of the code that summarises them."""
    logs = sorted(path for path in folder.logs.rglob("seed*.parquet") if ".parts" not in path.parent.name)
    return {
        "logs": {path.relative_to(folder.path).as_posix(): sha256(path) for path in logs},
        "modules": module_hashes([CODE], root=root()),
    }
