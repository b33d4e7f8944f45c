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

import io
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageOps, UnidentifiedImageError

from eraser_lib.bench.reader import SchemaError
from eraser_lib.bench.records import Prompt, Question, Role, Stored, Subset

FILES = ("people.yml", "people.yaml", "people.jsonl")
KEYS = ("name", "images", "facts", "questions")
EXAMPLE = '{"name": "Anna Example", "facts": {"occupation": "baker"}}'
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
        SchemaError: two of these files, a person without a name, facts or questions, an unknown key or one that is
            there twice, two of one name, a fact or an answer that is no text, or a picture that is missing or
            unreadable; names file and person.
    """
    there = [name for name in FILES if (folder / name).is_file()]
    if not there:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(FILES)}; it should say who the people are")
    if len(there) > 1:
        raise SchemaError(f"{folder} holds {' and '.join(there)}; only one may be there, with all the people in it")
    path = folder / there[0]
    found: list[Question] = []
    names: set[str] = set()
    pictures: dict[Path, Stored] = {}  # a picture that many questions show is held once
    for number, person in enumerate(_entries(path), 1):
        where = f"{path}, person {number}"
        name = _checked(person, where)
        if name in names:
            raise SchemaError(f"{where}: there is already somebody called {name}; give each person one entry")
        names.add(name)
        found += _of_person(person, name, path.parent, f"{where} ({name})", subset, role, pictures)
    return found


def read_text(path: Path, *, error: type[ValueError] = SchemaError) -> str:
    """A file of UTF-8, with or without the mark that some programs begin it with; an `error` for another coding."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not UTF-8 (at byte {reason.start}); save it as UTF-8") from reason


def read_line(line: str, where: str, wanted: str, *, error: type[ValueError] = SchemaError) -> Any:
    """A line of JSON; an `error` that names `where` for another one than is `wanted`, or a key that is there twice."""
    try:
        return json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as reason:
        raise error(f"{where}: not JSON ({reason.msg} at character {reason.pos + 1}). Expected {wanted}") from reason
    except ValueError as reason:
        raise error(f"{where}: {reason}") from reason


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


class _Loader(yaml.SafeLoader):
    """Takes no key twice, of which YAML would keep the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node


def _entries(path: Path) -> list[Any]:
    text = read_text(path)
    if path.suffix == ".jsonl":
        # at line ends alone: a text may hold other separators
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        loaded = [read_line(line, f"{path}, line {number}", EXAMPLE) for number, line in lines]
    else:
        try:
            loaded = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
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
        _text(value, f"{where} ({person['name']}): the fact {fact!r}")
    return str(person["name"]).strip()


def _text(value: Any, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, date)):
        raise SchemaError(
            f"{what} must be a text or a number; it is {value!r}"
            + ("; write yes and no in quotes" if isinstance(value, bool) else "")
        )
    return str(value)


def _of_person(
    person: Mapping[str, Any], name: str, folder: Path, where: str, subset: Subset, role: Role,
    pictures: dict[Path, Stored],
) -> list[Question]:  # fmt: skip
    found: list[Question] = []

    def picture(file: object) -> Stored:
        path = folder / str(file)
        if path not in pictures:
            pictures[path] = read_image(path, where)
        return pictures[path]

    images = {str(file): picture(file) for file in person.get("images", ())}

    def add(text: str, image: Stored | None, answer: str, attribute: str | None = None) -> None:
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
        answer = _text(entry.get("answer", ""), f"{where}: the answer to {asked!r}")
        add(asked, None if file is None else picture(file), answer)
    return found


class Photograph(Stored):
    """A picture of one's own, decoded as it is seen: upright, and sixteen bits cut to eight."""

    def __post_init__(self) -> None:
        """`ValueError` for bytes that are no picture or break off, and for one that is too long and thin."""
        self._seen(small=True)

    def decode(self) -> Image.Image:
        """The picture as RGB."""
        return self._seen()

    def _seen(self, *, small: bool = False) -> Image.Image:
        """`small`: a JPEG at an eighth of its size, for which all bytes are read and little is computed."""
        try:
            with Image.open(io.BytesIO(self.data)) as file:
                width, height = file.size
                if small:
                    file.draft("RGB", (1, 1))
                image = ImageOps.exif_transpose(file)  # as a camera held it, a face would lie on its side
                if image.mode.startswith("I;16"):
                    # sixteen bits cut to eight would be white but for the darkest
                    image = image.convert("I").point(lambda value: value / 256).convert("L")
                found = image.convert("RGB")
        except Exception as error:  # of many kinds, by format and fault
            reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"{self.where} is no picture that can be read ({reason})") from error
        if max(width, height) >= LONGEST * min(width, height):
            raise ValueError(f"{self.where} is {width} x {height} pixels, too long and thin for a model to read")
        return found


def read_image(path: Path, where: str, *, error: type[ValueError] = SchemaError) -> Stored:
    """A picture, of which the bytes are kept and were decoded once, so that no later reader can fail.

    An `error` that names `where` for one that is missing, unreadable, or too long and thin.
    """
    try:
        return Photograph(path.read_bytes(), str(path))
    except FileNotFoundError as reason:
        raise error(f"{where}: the picture {path} does not exist") from reason
    except OSError as reason:  # a folder, or a file that may not be read
        raise error(f"{where}: {path} is no picture that can be read ({reason.strerror})") from reason
    except ValueError as reason:
        raise error(f"{where}: {reason}") from reason
