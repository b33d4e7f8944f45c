"""Rows that a user writes: a JSON object per line with a question and, perhaps, a picture, a person and an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eraser_lib.bench import own
from eraser_lib.bench.records import Prompt, Question, Role, Stored, Subset
from eraser_lib.cli import EXAMPLE

KEYS = {"question": "what is asked", "image": "a picture, by its path from the file", "person": "who it is about",
        "answer": "what the model says today"}  # fmt: skip
"""Keys of a row; only `question` is needed."""


class RowsError(ValueError):
    """A file of rows that cannot be used; the message names the file, the line and what to do."""


def read_rows(path: Path, subset: Subset, *, role: Role = "fit") -> list[Question]:
    """Read a file of rows, one JSON object per line, empty lines skipped; or a folder of people, see `bench.own`.

    Raises:
        SchemaError: the folder's people cannot be used.
        RowsError: no such file, a YAML file (the folder of which is meant), a table, no row, a line that is no object,
            an unknown key or one that is there twice, a value that is no text, no question, or a picture that is
            missing or unreadable.
    """
    if path.is_dir():
        return own.read_people(path, subset, role=role)
    if path.suffix in (".yml", ".yaml"):
        raise RowsError(f"{path} is YAML: if it lists people with their pictures, pass its folder, {path.parent}")
    if path.suffix in (".csv", ".tsv", ".xlsx"):
        raise RowsError(f"{path} is a table; write it as a JSON object per line, such as {EXAMPLE}")
    if not path.is_file():
        raise RowsError(f"{path} does not exist. It should hold a JSON object per line, such as {EXAMPLE}")
    pictures: dict[Path, Stored] = {}  # a picture that many rows show is held once
    rows = [
        _row(path, number, line, subset, role, pictures)
        for number, line in enumerate(own.read_text(path, error=RowsError).split("\n"), 1)
        if line.strip()
    ]
    if not rows:
        raise RowsError(f"{path} has no rows. Write a JSON object per line, such as {EXAMPLE}")
    return rows


def _row(path: Path, number: int, line: str, subset: Subset, role: Role, pictures: dict[Path, Stored]) -> Question:
    where = f"{path}, line {number}"
    row: Any = own.read_line(line, where, EXAMPLE, error=RowsError)
    if not isinstance(row, dict):
        raise RowsError(f"{where}: a {type(row).__name__}, not an object. Expected {EXAMPLE}")
    for key, value in row.items():
        if key not in KEYS:
            known = "; ".join(f"{name}: {what}" for name, what in KEYS.items())
            raise RowsError(f"{where}: unknown key {key!r}. Known are {known}.")
        if value is not None and not isinstance(value, str):
            raise RowsError(f"{where}: {key} must be a text; it is {value!r}.")
    row = {key: value for key, value in row.items() if value is not None}  # tables write null where there is nothing
    if not row.get("question", "").strip():
        raise RowsError(f"{where}: no question. Expected {EXAMPLE}")
    image = None
    if "image" in row:
        file = path.parent / row["image"]
        image = pictures[file] = pictures.get(file) or read_image(file, where)
    return Question(
        id=f"{path.stem}/{number}", subset=subset, role=role, modality="qa" if image is None else "vqa",
        task="generation", prompt=Prompt(row["question"], image), answer=row.get("answer", ""),
        person=row.get("person", "").strip() or None,
    )  # fmt: skip


def read_image(path: Path, where: str = "the picture") -> Stored:
    """A picture, see `own.read_image`. `RowsError` that names `where` for one that is missing or unreadable."""
    return own.read_image(path, where, error=RowsError)
