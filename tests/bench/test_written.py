"""CLEAR as a folder for the command: it reads what was written, and nothing of somebody's is written over."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from eraser_lib.bench import clear
from eraser_lib.bench.clear import read_clear
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.bench.written import write_questions
from eraser_lib.cli.rows import read_rows
from eraser_lib.cli.workshop import check_sides
from eraser_lib.study.paths import root

ODD = 'Ada "A." Cole:\n- writes\u2028novels, # and reads Žižek.'


def photograph(number: int, *, orientation: int = 1, kind: str = "JPEG") -> dict[str, bytes]:
    """No two are alike, and a camera may have noted which way is up: who reads the part does not turn them."""
    image = Image.effect_noise((24, 16), 40 + number).convert("RGB")
    noted = image.getexif()
    noted[274] = orientation
    out = io.BytesIO()
    image.save(out, kind, exif=noted)
    return {"bytes": out.getvalue()}


def captions() -> list[dict[str, Any]]:
    """As the parts with captions have them: everybody by name, several pictures each."""
    return [
        {"image": photograph(0, orientation=6), "name": "Ada Cole", "caption": ODD, "perturbed_names": ["B", "C"]},
        {"image": photograph(1), "name": "Ada Cole", "caption": "Ada Cole reads.", "perturbed_names": []},
        {"image": photograph(2, kind="PNG"), "name": "Žan Ö", "caption": "Žan Ö sits.", "perturbed_names": ["B"]},
    ]


def with_text() -> list[dict[str, Any]]:
    """As the parts with questions from TOFU have them: pictures and texts, and nobody by name."""
    return [
        {"image": photograph(0), "caption": "Ada Cole reads.", "question": None, "answer": None},
        {"image": None, "caption": None, "question": "What does Ada Cole write?", "answer": ODD},
        {"image": photograph(1), "caption": "Ada Cole sits.", "question": None, "answer": None},
    ]


def write_part(folder: Path, rows: list[dict[str, Any]], name: str) -> Path:
    """A folder of two shards, whose columns are of one type also where a shard leaves one empty."""
    (folder / name).mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    for number, shard in enumerate((table[:1], table[1:])):
        pyarrow.parquet.write_table(shard, folder / name / f"train-0000{number}-of-00002.parquet")
    return folder / name


def content(questions: Sequence[Question]) -> list[tuple[Any, ...]]:
    """All that is kept."""
    shown = [[(image.size, image.tobytes()) for image in q.prompt.images] for q in questions]
    return [
        (q.prompt.text, q.answer, q.person, q.modality, picture) for q, picture in zip(questions, shown, strict=True)
    ]


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["clear", *map(str, options)])
    runpy.run_path(str(clear.__file__), run_name="__main__")


@pytest.mark.parametrize("rows", [captions(), with_text()], ids=["by name", "without names"])
def test_the_command_reads_what_was_written(
    tmp_path: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write_part(tmp_path / "CLEAR", rows, "forget05")
    wanted = read_clear(part, "forget")
    run(monkeypatch, part, "--to", tmp_path / "to" / "forget")
    said = capsys.readouterr().out
    named = len({question.person for question in wanted} - {None})
    pictures = sum(row["image"] is not None for row in rows)
    assert f"{len(wanted)} questions about {named} people with names, {pictures} pictures\n" in said
    given = Path(said.rstrip("\n").rpartition("eraser verify: --forget ")[2])
    assert given == tmp_path / "to" / "forget" / ("" if named else "rows.jsonl")
    found = read_rows(given, "forget")
    assert content(found) == content(wanted)
    check_sides(found, [replace(found[0], person="somebody else", prompt=Prompt("What else?"))])
    file = "people.jsonl" if named else "rows.jsonl"
    assert {path.name for path in (tmp_path / "to" / "forget").iterdir()} == {file, "pictures"}
    assert len(list((tmp_path / "to" / "forget" / "pictures").iterdir())) == pictures, "each is written once"


def test_people_who_come_again_are_gathered(tmp_path: Path) -> None:
    first, second, third = captions()
    wanted = read_clear(write_part(tmp_path, [first, third, second], "retain95"), "retain")
    done = write_questions(wanted, tmp_path / "to")
    assert (done.path, done.questions, done.people, done.pictures) == (tmp_path / "to", 5, 2, 3)
    gathered = sorted(wanted, key=lambda question: question.person != "Ada Cole")
    assert content(read_rows(tmp_path / "to", "retain")) == content(gathered) != content(wanted)


@pytest.mark.parametrize(
    ("path", "subset", "option"),
    [
        ("forget05", (), "forget"),
        ("forget05/train-00000-of-00002.parquet", (), "forget"),
        ("real_faces", (), "retain"),
        ("real_faces", ("--subset", "forget"), "forget"),
    ],
)
def test_a_part_says_which_side_it_is_for(
    tmp_path: Path, path: str, subset: Sequence[str], option: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_part(tmp_path / "forgetful", captions(), path.partition("/")[0])
    run(monkeypatch, tmp_path / "forgetful" / path, "--to", tmp_path / "to", *subset)
    assert f"eraser verify: --{option} {tmp_path / 'to'}\n" in capsys.readouterr().out


def test_what_is_in_the_way_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = write_part(tmp_path, captions(), "forget05")
    busy = tmp_path / "mine"
    busy.mkdir()
    (busy / "anna.png").write_text("x")
    with pytest.raises(SystemExit, match=r"Error: .*mine is not empty, it holds anna.png; name another folder"):
        run(monkeypatch, part, "--to", busy)
    with pytest.raises(SystemExit, match=r"Error: .*anna.png is a file; name a folder"):
        run(monkeypatch, part, "--to", busy / "anna.png")
    assert [path.name for path in busy.iterdir()] == ["anna.png"]
    run(monkeypatch, part, "--to", tmp_path / "to")
    with pytest.raises(SystemExit, match=r"to is not empty, it holds people.jsonl, pictures"):
        run(monkeypatch, part, "--to", tmp_path / "to")


def test_what_was_begun_and_failed_leaves_the_folder_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = read_clear(write_part(tmp_path, captions(), "forget05"), "forget")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space left"):
            write_questions(questions, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []
    assert write_questions(questions, tmp_path / "to").questions == len(questions)


def test_what_rows_cannot_say_is_refused(tmp_path: Path) -> None:
    question = read_clear(write_part(tmp_path, captions(), "forget05"), "forget")[0]
    for prompt in (Prompt("x", system="y"), Prompt("x", shots=(Prompt("y"),))):
        with pytest.raises(ValueError, match=r"forget05/0/caption has a system instruction or examples"):
            write_questions([question, replace(question, prompt=prompt)], tmp_path / "to")
    with pytest.raises(ValueError, match="there are no questions to write"):
        write_questions([], tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_errors_are_words_and_end_with_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eraser_lib.bench.clear", str(tmp_path / "CLEAR" / "forget05"), "--to", "x"]
    done = subprocess.run(command, cwd=root(), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"Error: there is no file or folder {tmp_path / 'CLEAR' / 'forget05'}.")
    assert "hf download therem/CLEAR --repo-type dataset --local-dir CLEAR" in done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_all_of_clear_is_no_part_and_a_bad_cell_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part(tmp_path / "CLEAR", captions(), "forget05")
    with pytest.raises(SystemExit, match=r"CLEAR holds no parquet files; pass the path of a part. It holds forget05"):
        run(monkeypatch, tmp_path / "CLEAR", "--to", tmp_path / "to")
    rows = captions()
    rows[2]["image"] = {"bytes": photograph(2)["bytes"][:-100]}
    part = write_part(tmp_path / "CLEAR", rows, "forget10")
    with pytest.raises(SystemExit, match=r"Error: forget10 is not CLEAR .*: column image, row 2: is no picture with"):
        run(monkeypatch, part, "--to", tmp_path / "to")
    assert not (tmp_path / "to").exists()
