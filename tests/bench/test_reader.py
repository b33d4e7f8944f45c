"""The reader on real-style rows, and its errors: they name the file, the row and the column."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from eraser_lib.bench.reader import SchemaError, read_pictures, read_questions
from eraser_lib.bench.records import Stored


def _picture(colour: tuple[int, int, int]) -> dict[str, bytes]:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return {"bytes": out.getvalue()}


def _row(**changes: Any) -> dict[str, Any]:
    """A row as the hub's files have it: nested lists and structs, none of our own extra fields."""
    options = {"A": "Paris", "B": "Rome", "C": "Oslo", "D": "Bern"}
    choice = {"Question": "Where does this person live?", "Options": options, "Correct_Answer": "C "}
    row: dict[str, Any] = {
        "ID": "17",
        "image": _picture((255, 0, 0)),
        "metadata": [{"Question": "q", "Answer": "a"}],
        "Classification_Task": {
            "Image_Textual_Questions": [choice],
            "Pure_Text_Questions": [choice | {"Question": "Where does Ada Cole live?", "Correct_Answer": "A"}],
        },
        "Mask_Task": [
            {"Question": "Ada Cole lives in __.", "Ground_Truth": "Oslo", "Type": "Pure_Text"},
            {"Question": "This person lives in __.", "Ground_Truth": "Oslo", "Type": "Image_Textual"},
        ],
        "Generation_Task": [
            {"Question": "Who is this?", "Ground_Truth": "Ada Cole from Oslo.", "Type": "Image_Textual"},
            {"Question": "Who is Ada Cole?", "Ground_Truth": "A person from Oslo.", "Type": "Pure_Text"},
        ],
    }
    return row | changes


def _write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "forget_5.parquet"
    pd.DataFrame(list(rows)).to_parquet(path, index=False)
    return path


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value if key in ("ID", "image", "images") else json.dumps(value) for key, value in row.items()}


@pytest.mark.parametrize("as_json", [False, True])
def test_real_style_rows_are_read(tmp_path: Path, as_json: bool) -> None:
    row = _as_json(_row()) if as_json else _row()
    questions = read_questions(_write(tmp_path, row), "forget")
    assert [(x.modality, x.task) for x in questions] == [
        (m, t) for m in ("vqa", "qa") for t in ("classification", "cloze", "generation")
    ]
    by = {(x.modality, x.task): x for x in questions}
    assert by["vqa", "classification"].answer == "C"
    assert by["vqa", "classification"].fact == "Oslo"
    assert by["vqa", "classification"].options == ("Paris", "Rome", "Oslo", "Bern")
    assert by["qa", "classification"].fact == "Paris"
    assert by["qa", "cloze"].prompt.text.startswith("Ada Cole lives in [Blank].")
    assert by["vqa", "generation"].answer == "Ada Cole from Oslo."
    assert by["qa", "generation"].fact is None
    assert by["vqa", "cloze"].prompt.images[0].getpixel((0, 0)) == (255, 0, 0)
    assert by["qa", "cloze"].prompt.image is None
    assert len({x.id for x in questions}) == 6


def test_several_pictures_are_used_in_turn(tmp_path: Path) -> None:
    row = _row(images=[_picture((255, 0, 0)), _picture((0, 0, 255))])
    del row["image"]
    path = _write(tmp_path, row)
    visual = [x for x in read_questions(path, "test") if x.modality == "vqa"]
    assert [x.view for x in visual] == [0, 1, 0]
    colours = [image.getpixel((0, 0)) for x in visual for image in x.prompt.images]
    assert colours == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]
    assert [image.decode().getpixel((0, 0)) for image in read_pictures(path)["17"]] == [(255, 0, 0), (0, 0, 255)]


def test_people_are_chosen_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, _row(ID="1"), _row(ID="2"), _row(ID="3"))
    found = read_questions(path, "forget", people=["3", "1"])
    assert list(dict.fromkeys(x.person for x in found)) == ["1", "3"]
    with pytest.raises(KeyError, match=r"forget_5.parquet has nobody with ID 9"):
        read_questions(path, "forget", people=["1", "9"])


def test_a_missing_file_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="01_world"):
        read_questions(tmp_path / "Test_Set.parquet", "test")


@pytest.mark.parametrize("column", ["Generation_Task", "Mask_Task", "image"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    row = _row()
    del row[column]
    with pytest.raises(SchemaError, match=rf"forget_5.parquet: missing column {column}"):
        read_questions(_write(tmp_path, row), "forget")


def test_broken_json_names_file_row_and_column(tmp_path: Path) -> None:
    good, bad = _as_json(_row()), _as_json(_row(ID="18")) | {"Mask_Task": "[{"}
    with pytest.raises(SchemaError, match=r"forget_5.parquet, row 1, column Mask_Task: not valid JSON"):
        read_questions(_write(tmp_path, good, bad), "forget")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Mask_Task": [{"Question": "x __"}]}, r"\(ID 18\), column Mask_Task: .*'Type'"),
        ({"Generation_Task": [{"Question": "x", "Type": "Pure_Text"}]}, r"column Generation_Task: .*'Ground_Truth'"),
        ({"Classification_Task": {"Image_Textual_Questions": []}}, r"column Classification_Task: .*Pure_Text"),
        (
            {"Classification_Task": {"Pure_Text_Questions": [], "Image_Textual_Questions": [
                {"Question": "x", "Options": {"A": "y"}, "Correct_Answer": "E"}]}},
            r"column Classification_Task: .*'E'",
        ),
        ({"Mask_Task": 3}, r"column Mask_Task"),
    ],
)  # fmt: skip
def test_a_malformed_question_names_file_row_and_column(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = _write(tmp_path, _as_json(_row()), _as_json(_row(ID="18", **changes)))
    with pytest.raises(SchemaError, match=rf"forget_5.parquet, row 1.*{message}"):
        read_questions(path, "forget")


@pytest.mark.parametrize(("column", "cell"), [("image", {"bytes": b"no picture"}), ("image", None), ("images", [])])
def test_a_broken_picture_names_file_row_and_column(tmp_path: Path, column: str, cell: Any) -> None:
    rows = [_as_json(_row()), _as_json(_row(ID="18"))]
    if column == "images":
        rows = [{key: value for key, value in row.items() if key != "image"} for row in rows]
        rows[0]["images"] = [_picture((1, 2, 3))]
    rows[1][column] = cell
    with pytest.raises(SchemaError, match=rf"forget_5.parquet, row 1, column {column}"):
        read_questions(_write(tmp_path, *rows), "forget")


def test_pictures_stay_as_small_as_they_are_stored_until_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    decode = Stored.decode
    monkeypatch.setattr(Stored, "decode", lambda self: looked.append(self.where) or decode(self))
    asked = read_questions(_write(tmp_path, _row()), "forget")
    assert not looked, "reading looks at no picture"
    (shown,) = {
        id(question.prompt.image): question.prompt.image for question in asked if question.modality == "vqa"
    }.values()
    assert isinstance(shown, Stored), "one for all questions about it"
    assert [image.getpixel((0, 0)) for question in asked for image in question.prompt.images] == [(255, 0, 0)] * 3
    assert looked == ["forget_5.parquet, row 0, column image"] * 3


def test_a_picture_that_breaks_off_is_named_when_it_is_looked_at(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "PNG")
    asked = read_questions(_write(tmp_path, _row(image={"bytes": out.getvalue()[:2000]})), "forget")
    (broken,) = {question.prompt.image for question in asked if question.modality == "vqa"}
    assert isinstance(broken, Stored)
    for look in (broken.decode, lambda: broken.convert("L"), lambda: broken.save(tmp_path / "there.png")):
        with pytest.raises(ValueError, match="row 0, column image: a picture that cannot be decoded"):
            look()
