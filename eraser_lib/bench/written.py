"""Questions written down as what the command `eraser` takes, so that a benchmark is handed over like one's own people.

What is asked is kept, with its answer, its picture and its person. What scores alone need is not: answers with one fact
changed, paraphrases, and options but in the text of the question.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eraser_lib.bench.records import Question

PEOPLE, ROWS, PICTURES = "people.jsonl", "rows.jsonl", "pictures"


@dataclass(frozen=True)
class Written:
    """Where questions were written, and how many."""

    path: Path
    """What `--forget` or `--retain` takes: the folder, or its `rows.jsonl`."""
    questions: int
    people: int
    """How many are named."""
    pictures: int


def write_questions(questions: Sequence[Question], folder: Path) -> Written:
    """Write questions as a folder for `eraser fit` and `eraser verify`, with their pictures, pixel for pixel, as PNG.

    Where each says whom it is about, the folder has a `people.jsonl`, see `eraser_lib.bench.own`: people in the order
    in which they appear, and the questions of each in theirs. Where one names nobody, it has a `rows.jsonl`, see
    `eraser_lib.cli.rows`, in the order of the questions.

    Args:
        questions: each about one picture or none.
        folder: a new or an empty one; it stays empty where the writing fails.

    Raises:
        ValueError: no questions; or one with a system instruction or examples, for which rows have no place.
        FileExistsError: the folder has something in it, or is a file.
    """
    if not questions:
        raise ValueError(f"there are no questions to write to {folder}")
    for question in questions:
        if question.prompt.system or question.prompt.shots:
            raise ValueError(f"{question.id} has a system instruction or examples, for which rows have no place")
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = [(question.person or "").strip() for question in questions]
    name, entries = (PEOPLE, _people) if all(names) else (ROWS, _rows)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        here = Path(unfinished)
        files = _save_pictures(questions, here / PICTURES)
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries(questions, names, files)]
        (here / name).write_text("".join(lines), encoding="utf-8")
        for made in list(here.iterdir()):
            made.rename(folder / made.name)
    given = folder if name == PEOPLE else folder / ROWS
    return Written(given, len(questions), len(set(names) - {""}), len(files))


def check_free(folder: Path) -> None:
    """`FileExistsError` where something is in a folder already, or where it is a file."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a folder")
    if others := sorted(path.name for path in folder.iterdir()) if folder.exists() else []:
        few = ", ".join(others[:5]) + (", ..." if others[5:] else "")
        raise FileExistsError(f"{folder} is not empty, it holds {few}; name another folder, or remove this one")


def _save_pictures(questions: Sequence[Question], folder: Path) -> dict[int, str]:
    """Write every picture once, however many questions show it; its `id` -> its path from the file of rows."""
    found: dict[int, str] = {}
    for question in questions:
        image = question.prompt.image
        if image is not None and id(image) not in found:
            folder.mkdir(exist_ok=True)
            file = f"{len(found):05}.png"
            # a higher level takes several times as long, and photographs hardly get smaller
            image.save(folder / file, compress_level=1)
            found[id(image)] = f"{folder.name}/{file}"
    return found


def _people(questions: Sequence[Question], names: Sequence[str], files: dict[int, str]) -> list[dict[str, Any]]:
    """An entry for each person, as `eraser_lib.bench.own.read_people` reads it."""
    found: dict[str, dict[str, Any]] = {}
    for name, question in zip(names, questions, strict=True):
        person = found.setdefault(name, {"name": name, "images": [], "questions": []})
        asked = _asked(question, files)
        if "image" in asked and asked["image"] not in person["images"]:
            person["images"].append(asked["image"])  # listed, it is read once for all questions
        person["questions"].append(asked)
    return list(found.values())


def _rows(questions: Sequence[Question], names: Sequence[str], files: dict[int, str]) -> list[dict[str, Any]]:
    """A row for each question, as `eraser_lib.cli.rows.read_rows` reads it."""
    return [
        {**({"person": name} if name else {}), **_asked(question, files)}
        for name, question in zip(names, questions, strict=True)
    ]


def _asked(question: Question, files: dict[int, str]) -> dict[str, str]:
    image = question.prompt.image
    return {
        "question": question.prompt.text, "answer": question.answer,
        **({} if image is None else {"image": files[id(image)]}),
    }  # fmt: skip
