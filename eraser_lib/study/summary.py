"""``summary.csv``: every figure of a run in one tidy table, made from the per-question logs."""

from __future__ import annotations

from typing import Any

from eraser_lib.study.paths import RunFolder, StudyError, read_json, root, sha256, write_atomic, write_json
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
    text, rows = _table(folder)
    write_atomic(folder.summary, text)
    write_json(folder.manifest("summary"), made_from | {"rows": rows})


def renew(folder: RunFolder) -> str | None:
    """Summarise the logs again where the code that does it has changed, and leave any other table alone.

    Returns:
        ``"confirmed"`` where the same table came out, whose manifest then names the present code; what speaks against
        it; ``None`` where nothing changed or there is no table.
    """
    path = folder.manifest("summary")
    if not path.is_file() or not folder.summary.is_file():
        return None
    then, now = read_json(path), inputs(folder)
    if then["modules"] == now["modules"]:
        return None
    if then["logs"] != now["logs"]:
        return "its logs are not those that it was made from"
    if _table(folder)[0] != folder.summary.read_text(encoding="utf-8"):
        return "another table comes out of the same logs"
    write_json(path, then | now)
    return "confirmed"


def _table(folder: RunFolder) -> tuple[str, int]:
    """The text of ``summary.csv``, and its number of rows."""
    from eraser_lib.evaluate.summary import summarise  # takes longer to load than other commands to run

    table = summarise(folder.logs)
    # 6 significant digits: equal runs give equal files
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n"), len(table)


def inputs(folder: RunFolder) -> dict[str, Any]:
    """Hashes of the logs and of the code that summarises them."""
    logs = sorted(path for path in folder.logs.rglob("seed*.parquet") if ".parts" not in path.parent.name)
    return {
        "logs": {path.relative_to(folder.path).as_posix(): sha256(path) for path in logs},
        "modules": module_hashes([CODE], root=root()),
    }
