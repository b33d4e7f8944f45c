"""Rows that a user writes: what is read, and what is said where something is wrong."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eraser_lib.bench.records import Stored
from eraser_lib.cli import workshop
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
    (shown,) = first.prompt.images
    assert shown.mode == "RGB" and shown.getpixel((0, 0)) == (255, 0, 0)
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
        ('{"question": "Who?", "question": "What?"}', "line 2: the key 'question' is there twice"),
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
    assert read_image(tmp_path / "a.jpg").decode().size == (32, 64)
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "b.png")
    assert np.abs(np.asarray(read_image(tmp_path / "b.png").decode())[:, :, 0].astype(int) - ramp // 256).max() <= 1
    Image.new("RGB", (500, 1)).save(tmp_path / "c.png")
    with pytest.raises(RowsError, match=r"the picture: .*c\.png is 500 x 1 pixels, too long and thin"):
        read_image(tmp_path / "c.png")


def decoded() -> list[object]:
    """All pictures that are held in memory."""
    return [one for one in gc.get_objects() if issubclass(type(one), Image.Image)]


def test_pictures_are_checked_when_they_are_read_and_not_kept_decoded(tmp_path: Path) -> None:
    """A thousand photographs would take gigabytes; what reads them later takes them for pictures."""
    noise = Image.effect_noise((300, 200), 60).convert("RGB")
    for name in ("a.jpg", "b.png"):
        noise.save(tmp_path / name)
    before = {id(one) for one in decoded()}
    rows = read_rows(written(tmp_path, *[{"question": name, "image": name} for name in ("a.jpg", "b.png")]), "forget")
    assert {id(one) for one in decoded()} <= before
    for row, file in zip(rows, ("a.jpg", "b.png"), strict=True):
        assert isinstance(row.prompt.image, Stored) and row.prompt.image.data == (tmp_path / file).read_bytes()
        with Image.open(tmp_path / file) as wanted:
            assert row.prompt.images == [wanted.convert("RGB")]
    assert len(workshop.distinct([*rows, *rows])) == 2


@pytest.mark.parametrize(("name", "options"), [("a.jpg", {}), ("a.jpg", {"progressive": True}), ("a.png", {})])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.98])
def test_a_picture_that_breaks_off_is_named_before_anything_is_done_with_it(
    tmp_path: Path, name: str, options: dict[str, Any], share: float
) -> None:
    path = tmp_path / name
    Image.effect_noise((300, 200), 60).convert("RGB").save(path, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RowsError, match=rf"rows.jsonl, line 2: .*{name} is no picture that can be read"):
        read_rows(written(tmp_path, {"question": "Who?"}, {"question": "Who?", "image": name}), "forget")


def test_what_is_no_picture_file_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(RowsError, match=r"a\.txt is no picture that can be read \(of no known format\)"):
        read_image(tmp_path / "a.txt")
    with pytest.raises(RowsError, match="is no picture that can be read \\(Is a directory\\)"):
        read_image(tmp_path)
    Image.effect_noise((99, 99), 60).save(tmp_path / "b.png")
    content = bytearray((tmp_path / "b.png").read_bytes())
    content[37:41] = b"?!?!"  # the name of the chunk that holds the pixels
    (tmp_path / "b.png").write_bytes(content)
    with pytest.raises(RowsError, match=r"the picture: .*b\.png is no picture that can be read"):
        read_image(tmp_path / "b.png")


def test_no_file_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(RowsError, match=r"no.jsonl does not exist. It should hold a JSON object per line"):
        read_rows(tmp_path / "no.jsonl", "forget")
    with pytest.raises(RowsError, match="has no rows"):
        read_rows(written(tmp_path, " "), "forget")
    one, other = written(tmp_path, {"question": "a"}), tmp_path / "other"
    other.write_text("b")
    assert sha256(one) != sha256(other)
