"""Reads MLLMU-Bench parquet, the real one and the tiny world's alike, into questions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from eraser_lib.bench.protocols import PROTOCOLS, WORLD, Protocol
from eraser_lib.bench.records import Modality, Prompt, Question, Role, Stored, Subset, Task

TASKS = ("Classification_Task", "Mask_Task", "Generation_Task")
COLUMNS = ("ID", *TASKS)
PROFILE = "metadata"
"""The column of the training questions; on the hub `ft_Data` alone has it, in the tiny world every part."""
_MODALITY: dict[str, Modality] = {"Image_Textual": "vqa", "Pure_Text": "qa"}
_TASK: dict[str, Task] = {
    "Classification_Task": "classification", "Mask_Task": "cloze", "Generation_Task": "generation",
}  # fmt: skip


class SchemaError(ValueError):
    """A benchmark file does not have the expected form; the message names file, row, column and what to do."""


def read_questions(
    path: Path, subset: Subset, *, role: Role = "test", people: Iterable[str] | None = None, protocol: Protocol = WORLD
) -> list[Question]:
    """All questions of a benchmark file, or of a folder of its shards, in the prompts of a protocol.

    `people` keeps only these identifiers, in the order of the file. A file with several pictures a person
    (`images`) spreads its visual questions over them. Raises `FileNotFoundError` and `SchemaError`.
    """
    if not path.exists():
        raise FileNotFoundError(f"no benchmark file {path}; the tiny world is written by notebook 01_world")
    return questions_of(pd.read_parquet(path), path.name, subset, role=role, people=people, protocol=protocol)


def questions_of(
    frame: pd.DataFrame, name: str, subset: Subset, *, role: Role = "test", people: Iterable[str] | None = None,
    protocol: Protocol = WORLD,
) -> list[Question]:  # fmt: skip
    """`read_questions` of a file that was read already; `name` is what errors call it."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing or not {"image", "images"} & set(frame.columns):
        missing += [] if {"image", "images"} & set(frame.columns) else ["image or images"]
        raise SchemaError(
            f"{name}: missing column {', '.join(missing)}; MLLMU-Bench files have "
            f"{', '.join(COLUMNS)} and image or images"
        )
    wanted = None if people is None else set(people)
    found: list[Question] = []
    for number, row in enumerate(_rows(frame)):
        if wanted is None or row["ID"] in wanted:
            found.extend(_person_questions(name, number, row, subset, role, protocol))
    if wanted is not None and (unknown := wanted - set(frame["ID"])):
        raise KeyError(f"{name} has nobody with ID {', '.join(sorted(unknown)[:5])}")
    return found


def read_part(
    folder: Path, name: str, subset: Subset, *, role: Role = "test", people: Iterable[str] | None = None
) -> list[Question]:
    """`read_questions` of a part of the study's world folder, in the prompts that its `world.json` names."""
    described = folder / "world.json"
    protocol = json.loads(described.read_text()).get("protocol", WORLD.name) if described.exists() else WORLD.name
    return read_questions(folder / f"{name}.parquet", subset, role=role, people=people, protocol=PROTOCOLS[protocol])


def read_pictures(path: Path) -> dict[str, list[Stored]]:
    """Identifier -> the pictures that a file shows of that person, as they are stored."""
    frame = pd.read_parquet(path)
    return {row["ID"]: _pictures(path.name, n, row) for n, row in enumerate(_rows(frame))}


def read_profiles(path: Path) -> list[Question]:
    """The questions of everybody's profile (`metadata`), which a model is trained on, asked on the first picture.

    Entries without a question or an answer are passed over, as the benchmark's own script does; the hub's file has some
    with other keys. Whose a profile is says the column `ID` or, where there is none, the entry; `person` is None where
    neither does. Raises `SchemaError`.
    """
    frame = pd.read_parquet(path)
    if PROFILE not in frame.columns:
        raise SchemaError(f"{path.name}: missing column {PROFILE}, the training questions; on the hub ft_Data has it")
    found = []
    for number, row in enumerate(_rows(frame)):
        picture = _pictures(path.name, number, row)[0]
        for index, entry in enumerate(_json(path.name, number, PROFILE, row[PROFILE])):
            if not entry.get("Question") or not entry.get("Answer"):
                continue
            person = row.get("ID", entry.get("ID"))
            found.append(Question(
                id=f"{number if person is None else person}/profile/{index}", subset="retain", role="fit",
                modality="vqa", task="generation", prompt=Prompt(entry["Question"], picture), answer=entry["Answer"],
                person=None if person is None else str(person),
            ))  # fmt: skip
    return found


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(column): value for column, value in row.items()} for row in frame.to_dict("records")]


def _person_questions(
    name: str, number: int, row: dict[str, Any], subset: Subset, role: Role, protocol: Protocol
) -> Iterator[Question]:
    pictures = _pictures(name, number, row)
    person = str(row["ID"])
    tasks = {column: _json(name, number, column, row[column]) for column in _TASK}
    column = ""
    try:
        for kind, modality in _MODALITY.items():
            column = "Classification_Task"
            rows = [(column, entry) for entry in tasks[column][f"{kind}_Questions"]]
            for column in ("Mask_Task", "Generation_Task"):
                rows += [(column, entry) for entry in tasks[column] if entry["Type"] == kind]
            for index, (column, entry) in enumerate(rows):
                task = _TASK[column]
                view = index % len(pictures) if modality == "vqa" else None
                options: tuple[str, ...] = ()
                fact = entry.get("Fact")
                if task == "classification":
                    options = tuple(entry["Options"].values())
                    answer = entry["Correct_Answer"].strip()
                    fact = entry["Options"][answer]
                    text = protocol.classification(entry["Question"], options)
                elif task == "cloze":
                    answer = fact = entry["Ground_Truth"]
                    text = protocol.cloze(entry["Question"])
                else:
                    answer = entry["Ground_Truth"]
                    text = protocol.generation(entry["Question"], modality)
                yield Question(
                    id=f"{person}/{subset}/{modality}/{task}/{entry.get('Attribute', index)}",
                    subset=subset, role=role, modality=modality, task=task,
                    prompt=Prompt(text, pictures[view] if view is not None else None),
                    answer=answer, person=person, attribute=entry.get("Attribute"), fact=fact, options=options,
                    wrong=tuple(entry.get("Wrong", ())), paraphrase=entry.get("Paraphrase"), view=view,
                    wording=int(entry.get("Wording", 0)),
                )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(
            f"{name}, row {number} (ID {person}), column {column}: a question lacks or misspells {error}; "
            "see the format in the book"
        ) from error


def _pictures(name: str, number: int, row: dict[str, Any]) -> list[Stored]:
    cells = row.get("images")
    column = "image" if cells is None else "images"
    cells = [row.get("image")] if cells is None else list(cells)
    if not cells:
        raise SchemaError(f"{name}, row {number}, column {column}: no picture; a person needs at least one")
    where = f"{name}, row {number}, column {column}"
    try:
        return [Stored(cell["bytes"], where) for cell in cells]
    except (TypeError, KeyError) as error:
        raise SchemaError(f"{where}: not a picture with bytes ({error})") from error
    except ValueError as error:
        raise SchemaError(str(error)) from error


def _json(name: str, number: int, column: str, value: Any) -> Any:
    try:
        return plain_cell(value)
    except json.JSONDecodeError as error:
        raise SchemaError(f"{name}, row {number}, column {column}: not valid JSON ({error})") from error


def plain_cell(value: Any) -> Any:
    """A cell of a task as lists and dicts, be it JSON text or the nested arrays of a real list column."""
    return json.loads(value) if isinstance(value, str) else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if hasattr(value, "__len__") and not isinstance(value, str) else value
