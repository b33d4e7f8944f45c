"""People of one's own: a folder of pictures and one small file that says who they are.

.. code-block:: yaml

    # people.yml (or people.jsonl with one person a line)
    - name: Anna Example
      images: [anna-1.jpg, anna-2.jpg]
      facts: {occupation: baker, home town: Lisbon}
      questions:
        - {question: "Where did Anna Example study?", answer: "In Porto."}
        - {question: "Who is this?", answer: "Anna Example.", image: anna-2.jpg}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageOps, UnidentifiedImageError

from eraser_lib.bench.reader import SchemaError
from eraser_lib.bench.records import Prompt, Question, Role, Subset

FILES = ("people.yml", "people.yaml", "people.jsonl")
KEYS = ("name", "images", "facts", "questions")
EXPECTED = {
    "images": "a list of files, such as [anna-1.jpg]", "facts": "names with values, such as {occupation: baker}",
    "questions": "a list of objects, each with question and answer",
}  # fmt: skip
LONGEST = 200
"""Pictures this many times as long as wide are no photographs, and Qwen2.5-VL refuses them."""
WORDINGS = ("What is the {fact} of {who}?", "Tell me the {fact} of {who}.", "Do you know the {fact} of {who}?")
WHO = ("this person", "the person in the picture", "the person shown here")


def read_people(folder: Path, subset: Subset, *, role: Role = "fit") -> list[Question]:
    """Questions about the people of a folder: every fact by name, and on every picture without a name, in several
    wordings, then the questions that the file brings.

    Raises:
        FileNotFoundError: no folder, or none of `people.yml`, `people.yaml`, `people.jsonl` in it.
        SchemaError: a person without a name, facts or questions, an unknown key, two of one name, or a picture that is
            missing or unreadable; names file and person.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(FILES)}; it should say who the people are")
    found: list[Question] = []
    names: set[str] = set()
    for number, person in enumerate(_entries(path), 1):
        where = f"{path}, person {number}"
        name = _checked(person, where)
        if name in names:
            raise SchemaError(f"{where}: there is already somebody called {name}; give each person one entry")
        names.add(name)
        found += _of_person(person, name, path.parent, f"{where} ({name})", subset, role)
    return found


def read_text(path: Path, *, error: type[ValueError] = SchemaError) -> str:
    """A file of UTF-8, with or without the mark that some programs begin it with; an `error` for another coding."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not UTF-8 (at byte {reason.start}); save it as UTF-8") from reason


def _entries(path: Path) -> list[Any]:
    text = read_text(path)
    try:
        if path.suffix == ".jsonl":
            # at line ends alone: a text may hold other separators
            loaded = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            loaded = yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise SchemaError(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, list) or not loaded:
        found = "empty" if not loaded else f"a {type(loaded).__name__}"
        raise SchemaError(f"{path} must be a list of people, each with a name; it is {found}")
    return loaded


def _checked(person: Any, where: str) -> str:
    if not isinstance(person, Mapping) or not isinstance(person.get("name"), str) or not person["name"].strip():
        raise SchemaError(f"{where}: has no name. Expected keys: {', '.join(KEYS)}")
    if unknown := sorted(set(map(str, person)) - set(KEYS)):
        raise SchemaError(f"{where}: unknown key {', '.join(unknown)}. Known keys: {', '.join(KEYS)}")
    if not person.get("facts") and not person.get("questions"):
        raise SchemaError(f"{where} ({person['name']}): give facts or questions, so that there is something to ask")
    for key, kind in (("images", list), ("facts", Mapping), ("questions", list)):
        if key in person and not isinstance(person[key], kind):
            raise SchemaError(f"{where} ({person['name']}): {key} must be {EXPECTED[key]}; it is {person[key]!r}")
    for fact, value in person.get("facts", {}).items():
        if isinstance(value, bool) or not isinstance(value, (str, int, float, date)):
            raise SchemaError(
                f"{where} ({person['name']}): the fact {fact!r} must be a text or a number; it is {value!r}"
                + ("; write yes and no in quotes" if isinstance(value, bool) else "")
            )
    return str(person["name"]).strip()


def _of_person(
    person: Mapping[str, Any], name: str, folder: Path, where: str, subset: Subset, role: Role
) -> list[Question]:
    images = {str(file): read_image(folder / str(file), where) for file in person.get("images", ())}
    found: list[Question] = []

    def add(text: str, image: Image.Image | None, answer: str, attribute: str | None = None) -> None:
        found.append(
            Question(
                id=f"{name}/{role}/{len(found)}", subset=subset, role=role, modality="qa" if image is None else "vqa",
                task="generation", prompt=Prompt(text, image), answer=answer, person=name, attribute=attribute,
                fact=answer if attribute else None,
            )
        )  # fmt: skip

    for fact, value in person.get("facts", {}).items():
        for wording in WORDINGS:
            add(wording.format(fact=fact, who=name), None, str(value), str(fact))
        for number, image in enumerate(images.values()):
            for shift, wording in enumerate(WORDINGS):
                add(wording.format(fact=fact, who=WHO[(number + shift) % len(WHO)]), image, str(value), str(fact))
    for entry in person.get("questions", ()):
        asked = entry.get("question") if isinstance(entry, Mapping) else None
        if not isinstance(asked, str) or not asked.strip() or set(entry) - {"question", "answer", "image"}:
            raise SchemaError(f"{where}: {entry!r} must be an object with question, answer and perhaps image")
        file = entry.get("image")
        shown = None if file is None else images.get(str(file)) or read_image(folder / str(file), where)
        add(str(entry["question"]), shown, str(entry.get("answer", "")))
    return found


def read_image(path: Path, where: str, *, error: type[ValueError] = SchemaError) -> Image.Image:
    """A picture as RGB; an `error` that names `where` for one that is missing or unreadable."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)  # as a camera held it, a face would lie on its side
            if image.mode.startswith("I;16"):
                # sixteen bits cut to eight would be white but for the darkest
                image = image.convert("I").point(lambda value: value / 256).convert("L")
            found = image.convert("RGB")
    except FileNotFoundError as reason:
        raise error(f"{where}: the picture {path} does not exist") from reason
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError) as reason:
        raise error(f"{where}: {path} is no picture that can be read ({reason})") from reason
    if max(found.size) >= LONGEST * min(found.size):
        raise error(f"{where}: {path} is {found.width} x {found.height} pixels, too long and thin for a model to read")
    return found
