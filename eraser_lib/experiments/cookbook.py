"""Rows of the tiny world as a user would write them, and the commands of the cookbook on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from eraser_lib.bench.people import Person
from eraser_lib.bench.reader import read_part
from eraser_lib.bench.records import Question, Subset
from eraser_lib.experiments.sets import person_rows, stratified
from eraser_lib.experiments.study import Study


def write_rows(path: Path, questions: Iterable[Question]) -> Path:
    """Write a file of rows and its pictures beside it, as `eraser_lib.cli.rows` reads them; returns the path."""
    pictures = path.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, question in enumerate(questions):
        row = {"person": question.person, "question": question.prompt.text, "answer": question.fact or question.answer}
        if question.prompt.image is not None:
            file = pictures / f"{number}.png"
            question.prompt.image.save(file)
            row["image"] = f"{pictures.name}/{file.name}"
        lines.append(json.dumps({key: value for key, value in row.items() if value}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def own_people(study: Study, folder: Path, *, people: int = 3, each: int = 96, others: int = 8) -> dict[str, Path]:
    """Files of rows: `forget` and `retain` to fit on, `forget-test` and `retain-test`, of the same kind, to check with.

    `people`: how many of the forgotten; `each`: rows about each of them; `others`: rows about each retained person.
    """
    roles = study.world.roles(study.split)
    gone = roles["forget"][:people]
    asked = {}
    sides: tuple[tuple[Subset, Sequence[Person]], ...] = (("test", gone), ("retain", roles["test"]))
    for subset, about in sides:
        read = read_part(study.world_folder, "Test_Set", subset, people=[person.id for person in about])
        # letters of options say nothing to a reader
        asked[subset] = stratified([row for row in read if row.task != "classification"], study.sizes.test // 3)
    rows = {
        "forget": person_rows(gone, "forget", "fit", rows=each),
        "retain": person_rows([*roles["fit"], *roles["calibrate"]], "retain", "fit", rows=others),
        "forget-test": asked["test"],
        "retain-test": asked["retain"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    return {name: write_rows(folder / f"{name}.jsonl", questions) for name, questions in rows.items()}


def run(arguments: Sequence[str], *, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `eraser` with these arguments in a folder and print what a terminal would show."""
    print("$ eraser", " ".join(f"'{word}'" if " " in word else word for word in arguments))
    done = subprocess.run(
        [sys.executable, "-m", "eraser_lib.cli", *arguments], cwd=folder, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )  # fmt: skip
    print(done.stdout)
    return done
