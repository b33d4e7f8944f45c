"""Rows that a user writes: what is read, and what is said where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eraser_lib.cli.rows import RowsError, read_image, read_rows
from eraser_lib.study.paths import sha256


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_rows_with_and_without_pictures(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 255)).save(tmp_path / "a.png")
    path = written(
        tmp_path,
        {"question": "Who?", "person": "anna", "image": "a.png", "answer": "a baker"},
        "",
        {"question": "What?"},
    )
    first, second = read_rows(path, "forget")
    assert (first.person, first.answer, first.modality, first.subset) == ("anna", "a baker", "vqa", "forget")
    assert first.prompt.image is not None and first.prompt.image.mode == "RGB"
    assert (second.id, second.person, second.modality, second.prompt.image) == ("rows/3", None, "qa", None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"line 2: not JSON \(.* at character 2\)"),
        ("[1]", "line 2: a list, not an object"),
        (
            {"question": "Who?", "picture": "a.png"},
            "line 2: unknown key 'picture'. Known are question: what is",
        ),
        ({"question": 3}, "line 2: question must be a text; it is 3"),
        ({"question": " "}, "line 2: no question"),
        ({"image": "a.png"}, "line 2: no question"),
        ({"question": "Who?", "image": "no.png"}, "line 2: the picture .*no.png does not exist"),
        ({"question": "Who?", "image": "rows.jsonl"}, "line 2: .*rows.jsonl is no picture that can be read"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(RowsError, match=message):
        read_rows(written(tmp_path, {"question": "Who?"}, row), "forget")


def test_the_list_of_a_folder_is_taken_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "people.yml").write_text("- name: Anna")
    with pytest.raises(RowsError, match=f"pass its folder, {tmp_path}"):
        read_rows(tmp_path / "people.yml", "forget")


def test_exports_of_other_programs_are_read(tmp_path: Path) -> None:
    """A mark at the beginning, null where there is nothing, and line separators within a text."""
    path = tmp_path / "rows.jsonl"
    line = json.dumps({"question": "Who\u2028is it?", "image": None, "person": None}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n".encode())
    (row,) = read_rows(path, "forget")
    assert (row.prompt.text, row.person, row.prompt.image) == ("Who\u2028is it?", None, None)
    path.write_bytes('{"question": "Où?"}'.encode("latin-1"))
    with pytest.raises(RowsError, match=r"rows.jsonl is not UTF-8 \(at byte 15\); save it as UTF-8"):
        read_rows(path, "forget")
    (row,) = read_rows(written(tmp_path, {"question": "Who?", "person": "  "}), "forget")
    assert row.person is None


def test_a_picture_that_many_rows_show_is_held_once(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    first, second = read_rows(written(tmp_path, *[{"question": "Who?", "image": "a.png"}] * 2), "forget")
    assert first.prompt.image is second.prompt.image


def test_pictures_are_read_as_they_are_seen(tmp_path: Path) -> None:
    """Upright, whatever the camera wrote; sixteen bits of grey as grey; and none that is a line."""
    sideways = Image.new("RGB", (64, 32), "red")
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (32, 64)
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "b.png")
    assert np.abs(np.asarray(read_image(tmp_path / "b.png"))[:, :, 0].astype(int) - ramp // 256).max() <= 1
    Image.new("RGB", (500, 1)).save(tmp_path / "c.png")
    with pytest.raises(RowsError, match=r"c\.png is 500 x 1 pixels, too long and thin"):
        read_image(tmp_path / "c.png")


def test_no_file_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(RowsError, match=r"no.jsonl does not exist. It should hold a JSON object per line"):
        read_rows(tmp_path / "no.jsonl", "forget")
    with pytest.raises(RowsError, match="has no rows"):
        read_rows(written(tmp_path, " "), "forget")
    one, other = written(tmp_path, {"question": "a"}), tmp_path / "other"
    other.write_text("b")
    assert sha256(one) != sha256(other)
