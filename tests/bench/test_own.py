"""A folder of one's own people, and CLEAR: the same records, and errors that name file and person."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from eraser_lib.bench.clear import read_clear
from eraser_lib.bench.own import read_people
from eraser_lib.bench.reader import SchemaError
from eraser_lib.cli.rows import read_rows

ANNA = """
- name: Anna Example
  images: [anna-1.png, anna-2.png]
  facts: {occupation: baker, home town: Lisbon}
  questions:
    - {question: "Where did Anna Example study?", answer: In Porto.}
    - {question: "Who is this?", answer: Anna Example., image: anna-2.png}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, colour in enumerate(("red", "blue"), 1):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"anna-{number}.png")
    (tmp_path / "people.yml").write_text(ANNA)
    return tmp_path


def test_every_fact_is_asked_by_name_and_on_every_picture(folder: Path) -> None:
    found = read_people(folder, "forget")
    assert len({question.id for question in found}) == len(found) == 2 * (3 + 2 * 3) + 2
    by_name = [q for q in found if q.modality == "qa" and q.fact]
    on_picture = [q for q in found if q.modality == "vqa" and q.fact]
    assert all("Anna Example" in q.prompt.text for q in by_name)
    assert not any("Anna" in q.prompt.text for q in on_picture), "a picture is asked about without the name"
    assert {(q.attribute, q.fact) for q in found if q.fact} == {("occupation", "baker"), ("home town", "Lisbon")}
    (last,) = found[-1].prompt.images
    assert last.getpixel((0, 0)) == (0, 0, 255)
    assert len({id(q.prompt.image) for q in found if q.prompt.image is not None}) == 2, "each picture is held once"
    assert read_rows(folder, "forget") == found, "the command takes the folder too"


def test_lines_of_json_say_the_same(folder: Path) -> None:
    wanted = read_people(folder, "forget")
    (folder / "people.yml").unlink()
    person: dict[str, Any] = {
        "name": "Anna Example", "images": ["anna-1.png", "anna-2.png"],
        "facts": {"occupation": "baker", "home town": "Lisbon"},
        "questions": [
            {"question": "Where did Anna Example study?", "answer": "In Porto."},
            {"question": "Who is this?", "answer": "Anna Example.", "image": "anna-2.png"},
        ],
    }  # fmt: skip
    (folder / "people.jsonl").write_text(json.dumps(person) + "\n\n")
    assert read_people(folder, "forget") == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {facts: {a: b}}", r"people.yml, person 1: has no name"),
        ("- {name: A}", r"person 1 \(A\): give facts or questions"),
        ("- {name: A, facts: {a: b}, photo: x}", "unknown key photo. Known keys: name, images"),
        ("- {name: A, facts: {a: b}}\n- {name: A, facts: {a: b}}", "person 2: there is already somebody called A"),
        ("- {name: A, facts: {a: b}, images: [gone.png]}", r"person 1 \(A\): the picture .*gone.png does not exist"),
        ("- {name: A, facts: {a: b}, images: [people.yml]}", "is no picture that can be read"),
        ("- {name: A, facts: [a]}", r"person 1 \(A\): facts must be names with values, such as .*; it is \['a'\]"),
        (
            "- {name: A, facts: {smoker: no}}",
            "the fact 'smoker' must be a text or a number; it is False; write yes and no",
        ),
        ("- {name: A, facts: {job: }}", "the fact 'job' must be a text or a number; it is None"),
        ("- {name: A, questions: [{question: null, answer: x}]}", "must be an object with question"),
        ("- {name: A, questions: [{question: 'Who?', answr: x}]}", "must be an object with question"),
        ("- {name: A, questions: [hello]}", "'hello' must be an object with question"),
        (
            "- {name: A, questions: [{question: Well, answer: no}]}",
            r"person 1 \(A\): the answer to 'Well' must be a text or a number; it is False; write yes and no",
        ),
        ("- {name: A, questions: [{question: Well, answer: null}]}", "the answer to .* a number; it is None"),
        ("- {name: A, questions: [{question: Well, answer: [a, b]}]}", r"the answer to .* it is \['a', 'b'\]"),
        ("- name: A\n  facts: {a: b}\n  facts: {c: d}", r"(?s)the key 'facts' is there twice.*line 3, column 3"),
        ("- {name: A, facts: {a: b, a: c}}", "cannot be read: the key 'a' is there twice"),
        ("name: A", "must be a list of people"),
        ("[]", "must be a list of people, each with a name; it is empty"),
        ("- {name: A", "cannot be read"),
    ],
)
def test_errors_name_the_person(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "people.yml").write_text(text)
    with pytest.raises(SchemaError, match=message):
        read_people(tmp_path, "forget")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"name": "C", "facts": {"a" "b"}}', r"people.jsonl, line 4: not JSON \(.* at character 29\). Expected"),
        ('{"name": "C", "facts": {"a": "b", "a": "c"}}', "people.jsonl, line 4: the key 'a' is there twice"),
    ],
)
def test_a_line_of_json_is_named_by_its_number_in_the_file(tmp_path: Path, line: str, message: str) -> None:
    good = [json.dumps({"name": name, "facts": {"a": "b"}}) for name in "AB"]
    (tmp_path / "people.jsonl").write_text("\n".join([good[0], "", good[1], line]))
    with pytest.raises(SchemaError, match=message):
        read_people(tmp_path, "forget")


def test_numbers_are_answers_and_none_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "people.yml").write_text(
        "- {name: A, questions: [{question: Since when, answer: 1999}, {question: Who}]}"
    )
    assert [question.answer for question in read_people(tmp_path, "forget")] == ["1999", ""]


def test_keys_may_come_again_in_another_place(tmp_path: Path) -> None:
    text = "- &a {name: A, facts: &facts {a: b}}\n- {<<: *a, name: B}\n- {name: C, facts: {<<: *facts, a: c}}"
    (tmp_path / "people.yml").write_text(text)
    assert {question.person: question.fact for question in read_people(tmp_path, "forget")} == {
        "A": "b", "B": "b", "C": "c",
    }  # fmt: skip


def test_only_one_file_may_say_who_the_people_are(folder: Path) -> None:
    (folder / "people.jsonl").write_text('{"name": "Ben", "facts": {"a": "b"}}')
    with pytest.raises(SchemaError, match=r"holds people.yml and people.jsonl; only one may be there"):
        read_people(folder, "forget")


def test_people_who_are_on_one_picture_share_it(folder: Path) -> None:
    (folder / "people.yml").write_text(
        "- {name: A, facts: {a: b}, images: [anna-1.png]}\n"
        "- {name: B, questions: [{question: Who, image: anna-1.png}, {question: Where, image: ./anna-1.png}]}"
    )
    assert len({id(q.prompt.image) for q in read_people(folder, "forget") if q.prompt.image is not None}) == 1


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none of people\.yml, people\.yaml, people\.jsonl"):
        read_people(tmp_path, "forget")


def picture() -> dict[str, bytes]:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return {"bytes": out.getvalue()}


def clear_rows() -> list[dict[str, Any]]:
    return [
        {"image": picture(), "name": "Ada Cole", "caption": "Ada Cole reads.", "perturbed_names": ["B", "C", "D"],
         "perturbed_captions": ["B reads.", "C reads.", "D reads."], "paraphrased_caption": "A reading Ada Cole."},
        {"question": "What does Ada Cole write?", "answer": "Novels.", "name": "Ada Cole",
         "perturbed_answer": ["Poems.", "Plays.", "Songs."], "paraphrased_answer": "She writes novels."},
        {"image": picture(), "question": "Who is this?", "answer": "E F", "options": ["G H", "I J", "K L"]},
    ]  # fmt: skip


def test_the_three_kinds_of_rows_of_clear(tmp_path: Path) -> None:
    rows = clear_rows()
    pd.DataFrame(rows).to_parquet(tmp_path / "forget05.parquet")
    found = read_clear(tmp_path / "forget05.parquet", "forget")
    assert [(q.modality, q.task) for q in found] == [
        ("vqa", "generation"), ("vqa", "classification"), ("qa", "generation"), ("vqa", "classification"),
    ]  # fmt: skip
    caption, name, question, face = found
    assert (caption.fact, caption.answer, len(caption.wrong)) == ("Ada Cole", "Ada Cole reads.", 3)
    assert caption.paraphrase == "A reading Ada Cole."
    assert sorted(name.options) == ["Ada Cole", "B", "C", "D"]
    assert name.options["ABCD".index(name.answer)] == "Ada Cole"
    assert question.prompt.text.startswith("What does Ada Cole write?\n") and question.wrong[0] == "Poems."
    assert face.options["ABCD".index(face.answer)] == "E F" and face.person is None
    pd.DataFrame([{**rows[2], "question": None}]).to_parquet(tmp_path / "real_faces.parquet")
    (real,) = read_clear(tmp_path / "real_faces.parquet", "retain")
    assert real.prompt.text.startswith("What is the name of the person in the image?\n") and real.fact == "E F"
    assert read_clear(tmp_path / "forget05.parquet", "forget") == found
    places = {read_clear(tmp_path / "forget05.parquet", "forget", seed=seed)[1].answer for seed in range(20)}
    assert len(places) > 1, "the right letter depends on the seed"


def test_a_row_of_no_kind_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    pd.DataFrame([{"name": "Ada Cole", "caption": "x"}]).to_parquet(tmp_path / "retain.parquet")
    with pytest.raises(SchemaError, match=r"retain.parquet, row 0: neither .*; it has caption, name"):
        read_clear(tmp_path / "retain.parquet", "retain")
    with pytest.raises(FileNotFoundError, match="hf download therem/CLEAR"):
        read_clear(tmp_path / "none.parquet", "retain")


def test_options_are_shown_with_the_right_answer_once(tmp_path: Path) -> None:
    """Whether the benchmark lists it among them or not, and however it writes it there."""
    five = ["A", "B", "C", "D", "E"]
    question = {"question": "Who is this?", "answer": "E F"}
    path = tmp_path / "real_world.parquet"
    for options, count in ((five, 6), ([*five, "E F"], 6), ([*five, " e f."], 6), (["A", "E F"], 2), ("A", 2)):
        pd.DataFrame([{**question, "options": options}]).to_parquet(path)
        for seed in range(20):
            (found,) = read_clear(path, "retain", seed=seed)
            assert len(found.options) == count and found.options.count("E F") == 1
            assert f"\n{found.answer}: E F\n" in found.prompt.text and found.prompt.text.count(": ") == count
    for options, count in (([*five, "F"], 7), (["E F"], 1)):
        pd.DataFrame([{**question, "options": options}]).to_parquet(path)
        message = f"world.parquet, row 0, column options: {count} to choose from with the right answer 'E F'; there"
        with pytest.raises(SchemaError, match=message):
            read_clear(path, "retain")


def test_a_part_of_clear_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    part = tmp_path / "forget05"
    part.mkdir()
    pd.DataFrame(clear_rows()).to_parquet(part / "train-00000-of-00003.parquet")
    with pytest.raises(
        SchemaError,
        match=r"(?s)forget05 is not whole, it lacks train-00001-of-00003.parquet; train-00002-of-00003.parquet\n"
        r".*hf download therem/CLEAR",
    ):
        read_clear(part, "forget")
    pd.DataFrame(clear_rows())[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(SchemaError, match=r"empty.parquet has no rows"):
        read_clear(tmp_path / "empty.parquet", "forget")


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (0, {"image": {"bytes": b"no picture"}}, "column image, row 0: is no picture with bytes"),
        (0, {"perturbed_names": [1, 2]}, "column perturbed_names, row 0: is no text and no list of 5 texts or fewer"),
        (0, {"perturbed_names": list("ABCDEF")}, "column perturbed_names, row 0: is no text and no list of 5 texts or"),
        (1, {"perturbed_answer": {"a": "b"}}, "column perturbed_answer, row 1: is no text and no list of texts"),
        (1, {"question": b"Who?"}, "column question, row 1: is no text"),
    ],
)
def test_the_schema_of_clear_names_row_and_column(
    tmp_path: Path, number: int, changes: dict[str, Any], message: str
) -> None:
    row = clear_rows()[number] | changes
    path = tmp_path / "forget05.parquet"
    pd.DataFrame([row] if number == 0 else [clear_rows()[0], row]).to_parquet(path)
    with pytest.raises(SchemaError, match=f"forget05.parquet is not CLEAR as it was published: {message}"):
        read_clear(path, "forget")
