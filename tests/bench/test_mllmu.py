"""MLLMU-Bench as it is published: where its parts lie, what its schema refuses, and the two named protocols."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from huggingface_hub.utils import filter_repo_objects
from PIL import Image

from eraser_lib.bench import mllmu
from eraser_lib.bench.protocols import ONE_SHOT, PROTOCOLS, WORLD, ZERO_SHOT, one_shot
from eraser_lib.bench.reader import SchemaError, read_questions
from eraser_lib.bench.records import Prompt
from eraser_lib.evaluate.log import prompt_hash
from eraser_lib.families import llava, qwen
from tests.bench.test_reader import _as_json, _row, _write


def published(row: dict[str, Any]) -> dict[str, Any]:
    """A row as on the hub, where every right letter is an option."""
    row["Classification_Task"]["Image_Textual_Questions"][0]["Correct_Answer"] = "C"
    return row


def test_the_tiny_world_is_in_the_form_of_the_benchmark(written: tuple[Path, str]) -> None:
    folder, _ = written
    for name in ("Full_Set", "forget_5", "retain_95", "Test_Set", "Retain_Set"):
        found = mllmu.questions(folder, name, "test", protocol=WORLD)
        assert found == read_questions(folder / f"{name}.parquet", "test")


def test_a_folder_of_shards_is_read_as_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "MLLMU-Bench" / "forget_5"
    folder.mkdir(parents=True)
    for number in (0, 1):
        shutil.move(_write(tmp_path, _row(ID=str(number))), folder / f"train-0000{number}-of-00002.parquet")
    found = mllmu.questions(tmp_path / "MLLMU-Bench", "forget_5", "forget")
    assert list(dict.fromkeys(question.person for question in found)) == ["0", "1"]
    with pytest.raises(FileNotFoundError, match=r"neither Test_Set.parquet nor Test_Set/\*.parquet; found forget_5"):
        mllmu.locate(tmp_path / "MLLMU-Bench", "Test_Set")
    with pytest.raises(ValueError, match="no part 'test'; it has Full_Set"):
        mllmu.locate(tmp_path, "test")


FETCH = re.escape("hf download MLLMMU/MLLMU-Bench --repo-type dataset --local-dir MLLMU-Bench")


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["train-00000-of-00002"], "train-00001-of-00002.parquet"),
        (["train-00000-of-00001", "test-00001-of-00002"], "test-00000-of-00002.parquet"),
        (["train-00000-of-00001", "train-00000-of-00002-0123456789abcdef"], "train-00001-of-00002.parquet"),
        (["train-00001-of-00003"], "train-00000-of-00003.parquet; train-00002-of-00003.parquet"),
    ],
)
def test_a_part_that_was_fetched_half_is_not_read_as_a_whole(tmp_path: Path, files: list[str], missing: str) -> None:
    for name in ("ft_Data", "Test_Set"):
        (tmp_path / name).mkdir()
        for number, file in enumerate(files):
            shutil.move(_write(tmp_path, _row(ID=str(number))), tmp_path / name / f"{file}.parquet")
    _write(tmp_path, _row()).rename(tmp_path / "Full_Set.parquet")
    for name, read in (
        ("Test_Set", lambda: mllmu.questions(tmp_path, "Test_Set", "test")),
        ("Test_Set", lambda: mllmu.people(tmp_path, "Test_Set")),
        ("ft_Data", lambda: mllmu.profiles(tmp_path)),
    ):
        with pytest.raises(SchemaError, match=rf"(?s){name} is not whole, it lacks {re.escape(missing)}\n.*{FETCH}"):
            read()


def test_a_part_without_rows_is_refused(tmp_path: Path) -> None:
    pd.DataFrame([_as_json(_row())])[:0].to_parquet(tmp_path / "forget_5.parquet")
    shutil.copy(tmp_path / "forget_5.parquet", tmp_path / "ft_Data.parquet")
    for read in (
        lambda: mllmu.questions(tmp_path, "forget_5", "forget"),
        lambda: mllmu.people(tmp_path, "forget_5"),
        lambda: mllmu.profiles(tmp_path),
    ):
        with pytest.raises(SchemaError, match=r"\.parquet has no rows; fetch it again"):
            read()


def test_a_folder_that_lacks_a_part_and_a_file_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=rf"(?s)\*\.parquet; found nothing\n.*{FETCH}"):
        mllmu.people(tmp_path, "forget_5")
    (tmp_path / "files" / "ft_Data").mkdir(parents=True)
    serve(tmp_path / "files", monkeypatch)
    with pytest.raises(FileNotFoundError, match=rf"(?s){COMMIT} holds neither .*; found ft_Data\n.*{FETCH}"):
        mllmu.people(mllmu.HUB, "forget_5")
    with pytest.raises(FileNotFoundError, match=r"hf download some/copy --repo-type dataset --revision abc "):
        mllmu.people("some/copy", "forget_5", revision="abc")
    path = _write(tmp_path, _row())
    with pytest.raises(FileNotFoundError, match=rf"{re.escape(str(path))} is a file; pass the folder of the benchmark"):
        mllmu.people(path, "forget_5")


def test_without_a_network_the_error_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to the hub\ndetails")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(FileNotFoundError) as caught:
        mllmu.locate(mllmu.HUB, "forget_5")
    assert "hf download MLLMMU/MLLMU-Bench --repo-type dataset --local-dir MLLMU-Bench" in str(caught.value)
    assert "no route to the hub" in str(caught.value) and "details" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="--repo-type dataset --revision abc --local-dir MLLMU-Bench"):
        mllmu.locate(mllmu.HUB, "forget_5", revision="abc")
    with pytest.raises(FileNotFoundError, match="there is no folder /nowhere"):
        mllmu.locate("/nowhere", "forget_5")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Let the hub give this folder as the snapshot of `COMMIT`; returns the revisions that it is asked for."""
    snapshot = folder.parent / "snapshots" / COMMIT
    snapshot.parent.mkdir()
    snapshot.symlink_to(folder)
    asked: list[str | None] = []

    def snapshot_download(*_: Any, revision: str | None, **__: Any) -> str:
        asked.append(revision)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def test_the_newest_files_are_told_by_their_commit_and_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    asked = serve(tmp_path / "files", monkeypatch)
    with pytest.warns(UserWarning, match=rf"no revision of {mllmu.HUB} was asked for, so its newest is read: {COMMIT}"):
        assert mllmu.commit(mllmu.HUB) == COMMIT
    assert mllmu.commit(mllmu.HUB, "v1") == COMMIT, "a tag is told by its commit, and without a warning"
    assert asked == [None, "v1"]


def test_a_part_is_fetched_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names that files have on the hub."""
    files = {name: f"{name}/train-00000-of-00001.parquet" for name in mllmu.FILES}

    def snapshot_download(source: str, *, allow_patterns: list[str], **_: Any) -> str:
        for file in filter_repo_objects([*files.values(), "README.md"], allow_patterns=allow_patterns):
            (tmp_path / source / file).parent.mkdir(parents=True)
            (tmp_path / source / file).touch()
        return str(tmp_path / source)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for name, file in files.items():
        source = f"hub/{name}"
        assert mllmu.locate(source, name) == tmp_path / source / name
        assert [path for path in (tmp_path / source).rglob("*") if path.is_file()] == [tmp_path / source / file]


def test_a_folder_says_the_commit_that_it_was_fetched_at(tmp_path: Path) -> None:
    assert mllmu.commit(tmp_path) is None
    notes = tmp_path / ".cache" / "huggingface" / "download" / "forget_5"
    notes.mkdir(parents=True)
    (notes / "train-00000-of-00001.parquet.metadata").write_text(f"{COMMIT}\netag\n1700000000.0\n")
    assert mllmu.commit(tmp_path) == mllmu.commit(tmp_path, COMMIT) == COMMIT
    with pytest.raises(FileNotFoundError, match=rf"was fetched at {COMMIT} and not at revision other"):
        mllmu.commit(tmp_path, "other")
    (notes.parent / "ft_Data.parquet.metadata").write_text("other\n")
    with pytest.warns(UserWarning, match=rf"come from several commits: {COMMIT}, other"):
        assert mllmu.commit(tmp_path) is None
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert mllmu.commit(snapshot) == "abc"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": {"bytes": b"no picture"}}, "column image, row 1: is no picture with bytes"),
        ({"Mask_Task": "[{"}, "column Mask_Task, row 1: is no list of questions"),
        ({"Generation_Task": json.dumps({"Question": "q"})}, "column Generation_Task, row 1: is no list"),
        ({"Classification_Task": "[]"}, "column Classification_Task, row 1: holds no lists of questions"),
        ({"ID": "17"}, "column ID, row [01]: is there more than once"),
        ({"ID": None}, "column ID, row 1: is empty"),
    ],
)  # fmt: skip
def test_the_schema_names_row_and_column(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _write(tmp_path, _as_json(_row()), {**_as_json(_row(ID="18")), **changes})
    with pytest.raises(SchemaError, match=message):
        mllmu.questions(tmp_path, "forget_5", "forget")


def test_a_missing_column_and_many_errors_are_told_in_one_message(tmp_path: Path) -> None:
    rows = [_row(ID=str(number), image={"bytes": b""}) for number in range(7)]
    for row in rows:
        del row["Generation_Task"]
    _write(tmp_path, *rows)
    with pytest.raises(SchemaError, match=r"forget_5 is not MLLMU-Bench.*Generation_Task.*; and \d more"):
        mllmu.questions(tmp_path, "forget_5", "forget")


OPTIONS = {"A": "Paris", "B": "Rome"}


@pytest.mark.parametrize(
    ("task", "entry", "fault"),
    [
        ("Mask_Task", {"Question": "no gap", "Ground_Truth": "x", "Type": "Pure_Text"}, "'no gap': has no gap"),
        ("Mask_Task", {"Question": "a __", "Ground_Truth": "x", "Type": "Text"}, "'Text' is none of Image_Textual"),
        ("Mask_Task", {"Question": "a __", "Ground_Truth": " ", "Type": "Pure_Text"}, "Ground_Truth is empty"),
        ("Generation_Task", {"Question": "q", "Type": "Pure_Text"}, "'q': lacks 'Ground_Truth'"),
        ("Classification_Task", {"Question": "q", "Options": OPTIONS, "Correct_Answer": "E"}, "'E' is none of A, B"),
        ("Classification_Task", {"Question": None, "Options": OPTIONS, "Correct_Answer": "A"}, "Question is empty"),
        ("Classification_Task", {"Options": OPTIONS, "Correct_Answer": "A"}, "lacks 'Question'"),
        ("Classification_Task", {"Question": "q", "Options": {"A": "x"}, "Correct_Answer": "A"}, "has 1 option"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_asked_is_left_out_and_told(
    tmp_path: Path, task: str, entry: dict[str, Any], fault: str
) -> None:
    """One in thirty; one in six is another file than the benchmark's."""
    rows = [published(_row(ID=str(number))) for number in range(5)]
    cell = rows[2][task]
    where = cell["Pure_Text_Questions"] if task == "Classification_Task" else cell
    where.append(entry)
    _write(tmp_path, *map(_as_json, rows))
    with pytest.warns(UserWarning, match=rf"forget_5: 1 of 31 questions cannot be asked.*ID 2, {task}.*{fault}"):
        found = mllmu.questions(tmp_path, "forget_5", "forget")
    assert len(found) == 30
    _write(tmp_path, _as_json(rows[2]))
    with pytest.raises(SchemaError, match=rf"1 of 7 questions cannot be asked, where 5% may be faulty.*{fault}"):
        mllmu.questions(tmp_path, "forget_5", "forget")


def test_right_answers_and_gaps_may_be_written_in_several_ways(tmp_path: Path) -> None:
    row = published(_row())
    choice = {"Question": "Where?", "Options": {"A": "Paris", "B": "Rome"}}
    given = ["B", " b ", "B. Rome", "(B)", "rome"]
    row["Classification_Task"] = {
        "Image_Textual_Questions": None, "Pure_Text_Questions": [{**choice, "Correct_Answer": text} for text in given],
    }  # fmt: skip
    gaps = ["Ada lives in __.", "Ada lives in [Blank].", "Ada lives in _."]
    row["Mask_Task"] = [{"Question": text, "Ground_Truth": "Rome", "Type": "Pure_Text"} for text in gaps]
    row["Generation_Task"] = None
    _write(tmp_path, row)
    found = mllmu.questions(tmp_path, "forget_5", "forget")
    assert [q.answer for q in found] == ["B"] * len(given) + ["Rome"] * len(gaps)
    assert [q.fact for q in found] == ["Rome"] * len(found)
    assert {q.prompt.text.split("\n")[0] for q in found if q.task == "cloze"} == {"Ada lives in [Blank]."}


def test_profiles_are_those_of_the_training_part(tmp_path: Path) -> None:
    """As on the hub: other keys among the entries, and people named by the entries alone."""
    entries = [{"ID": 7, "Question": "Who?", "Answer": "Ada."}, {"Additional_question": "And?"},
               {"ID": 7, "Question": "Where?", "Answer": ""}]  # fmt: skip
    full = _row(ID="007")
    pd.DataFrame([full]).to_parquet(tmp_path / "Full_Set.parquet")
    assert [row.prompt.text for row in mllmu.profiles(tmp_path)] == ["q"], "where there is no other"
    training = {"image": full["image"], "metadata": json.dumps(entries)}
    pd.DataFrame([training]).to_parquet(tmp_path / "ft_Data.parquet")
    (row,) = mllmu.profiles(tmp_path)
    assert (row.prompt.text, row.answer, row.person) == ("Who?", "Ada.", "7")
    assert mllmu.key("007") == mllmu.key("7") == mllmu.key(7) != mllmu.key("c7")
    pd.DataFrame([{"image": full["image"], "ID": "1"}]).to_parquet(tmp_path / "ft_Data.parquet")
    with pytest.raises(SchemaError, match=r"ft_Data.parquet has no profiles .*: column metadata: is missing"):
        mllmu.profiles(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"neither ft_Data.parquet nor ft_Data"):
        mllmu.profiles(tmp_path.parent)


def training(folder: Path, *changes: dict[str, Any]) -> Path:
    """Write `ft_Data`, a row for each of the changes, the first one good."""
    cell = json.dumps([{"Question": "Who?", "Answer": "Ada."}])
    rows = [{"image": _row()["image"], "metadata": cell, **changed} for changed in ({}, *changes)]
    pd.DataFrame(rows).to_parquet(folder / "ft_Data.parquet", index=False)
    return folder / "ft_Data.parquet"


def photograph() -> bytes:
    """A JPEG; of one that was cut short the beginning is whole, and reads as such."""
    out = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(out, "JPEG")
    return out.getvalue()


NO_LIST = "column metadata, row 1: is no list of objects such as {"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": None}, "column metadata, row 1: is empty"),
        *(({"metadata": text}, NO_LIST) for text in ("null", "[1]", '["x"]', "{}", '{"a": "b"}', "3", '"x"', "[{")),
        *(({"metadata": json.dumps([{"Question": q, "Answer": a}])}, NO_LIST) for q, a in ((1, "a"), ("q", ["a"]))),
        ({"image": None}, "column image, row 1: is empty"),
        ({"image": {"bytes": b"no picture"}}, "column image, row 1: is no picture with bytes that can be decoded"),
        ({"image": {"bytes": photograph()[:-400]}}, "column image, row 1: is no picture with bytes that can be"),
    ],
)  # fmt: skip
def test_the_training_part_is_checked_as_the_others_are(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Nobody's profile is passed over because of its form, and the error says what to do."""
    path = training(tmp_path, changes)
    wanted = re.escape(f"{path} has no profiles as ft_Data has them on the hub: {message}")
    with pytest.raises(SchemaError, match=rf"{wanted}.*\. Mend the file, or fetch it again"):
        mllmu.profiles(tmp_path)


@pytest.mark.parametrize("cell", [[1], ["x"], [None, {"Question": "q"}], {"Question": "q", "Answer": "a"}])
def test_so_are_profiles_in_columns_of_lists(tmp_path: Path, cell: Any) -> None:
    pd.DataFrame([{"image": _row()["image"], "metadata": cell}]).to_parquet(tmp_path / "ft_Data.parquet")
    with pytest.raises(SchemaError, match=NO_LIST.replace("1", "0")):
        mllmu.profiles(tmp_path)


def test_an_identifier_may_be_absent_and_never_empty(tmp_path: Path) -> None:
    training(tmp_path)
    assert [row.person for row in mllmu.profiles(tmp_path)] == [None]
    training(tmp_path, {"ID": "7"})
    with pytest.raises(SchemaError, match="column ID, row 0: is empty"):
        mllmu.profiles(tmp_path)


def test_entries_with_other_keys_are_passed_over_in_lists_too(tmp_path: Path) -> None:
    entries = [{"Question": "Who?", "Answer": "Ada."}, {"Extra": "x"}, {"Question": "Where?", "Answer": ""}]
    row = {"ID": 7, "image": _row()["image"], "metadata": entries}
    pd.DataFrame([row, {**row, "metadata": entries[1:]}]).to_parquet(tmp_path / "ft_Data.parquet")
    (found,) = mllmu.profiles(tmp_path)
    assert (found.prompt.text, found.answer, found.person) == ("Who?", "Ada.", "7")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "17"}], "column ID: is missing"),
        ([{"ID": "17"}, {"ID": None}], "column ID, row 1: is empty"),
        ([{"ID": "17"}, {"ID": "17"}], "column ID, row [01]: is there more than once"),
    ],
)
def test_a_part_that_does_not_say_who_its_people_are_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    # an index that is not that of the rows, as a table has it from which rows were taken
    path = tmp_path / "forget_5.parquet"
    pd.DataFrame(rows, index=range(40, 40 + len(rows))).to_parquet(path)
    with pytest.raises(SchemaError, match=rf"{re.escape(str(path))} does not say who its people are: {message}"):
        mllmu.people(tmp_path, "forget_5")


@pytest.mark.parametrize("read", [lambda at: mllmu.people(at, "ft_Data"), mllmu.profiles])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = training(tmp_path)
    for content in (b"version https://git-lfs.github.com/spec/v1\n", path.read_bytes()[:-40] + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(SchemaError, match=rf"{re.escape(str(path))} cannot be read as parquet \(.*fetch it again"):
            read(tmp_path)


def test_zero_shot_prompts_are_the_authors(tmp_path: Path) -> None:
    _write(tmp_path, published(_row()))
    by = {(q.modality, q.task): q for q in mllmu.questions(tmp_path, "forget_5", "forget")}
    assert by["vqa", "classification"].prompt.text == (
        "Where does this person live?\nA: Paris\nB: Rome\nC: Oslo\nD: Bern\n"
        "Just give ONE letter representing the answer directly."
    )
    assert by["qa", "cloze"].prompt.text == (
        "Ada Cole lives in [Blank].\nPlease **ONLY** provide the correct answer that should replace the [Blank]."
    )
    assert by["qa", "generation"].prompt.text == (
        "Who is Ada Cole?\nAnswer the question based on your trained knowledge in one sentence in ENGLISH."
    )
    assert by["vqa", "generation"].prompt.text == (
        "Who is this?\nAnswer the question based on your trained knowledge in one sentence in ENGLISH."
    )
    assert set(PROTOCOLS) == {"world", "zero_shot", "one_shot"}


def test_one_shot_prompts_show_others_and_never_ask_what_they_show(tmp_path: Path) -> None:
    rows = [published(_row(ID=str(number))) for number in range(1, 6)]
    _write(tmp_path, *rows)
    zero = mllmu.questions(tmp_path, "forget_5", "forget", protocol=ZERO_SHOT)
    found = mllmu.questions(tmp_path, "forget_5", "forget", protocol=ONE_SHOT)
    assert found == mllmu.questions(tmp_path, "forget_5", "forget", protocol=ONE_SHOT), "the draw is seeded"
    asked = {task: {q.person for q in found if q.task == task} for task in ("classification", "cloze", "generation")}
    assert {task: len(people) for task, people in asked.items()} == {"classification": 4, "cloze": 3, "generation": 5}
    by = {(q.modality, q.task): q for q in found}
    (letter,) = by["vqa", "classification"].prompt.shots
    assert letter.text == (
        "Question: Where does this person live?\nA: Paris\nB: Rome\nC: Oslo\nD: Bern\nCorrect Answer: C"
    )
    assert letter.image is not None and by["qa", "cloze"].prompt.shots[0].image is None
    assert len(by["qa", "cloze"].prompt.shots) == 2
    assert by["qa", "cloze"].prompt.shots[0].text.endswith("[Blank].\nCorrect Answer: Oslo")
    assert by["vqa", "generation"].prompt.shots == ()
    assert by["vqa", "generation"].prompt.text.endswith("in one sentence accurately in ENGLISH.")
    assert by["qa", "generation"].prompt.text.endswith("in one sentence in ENGLISH.")
    drawn = {frozenset(q.person for q in one_shot(zero, seed=s) if q.task == "cloze") for s in range(12)}
    assert len(drawn) > 1
    with pytest.raises(ValueError, match="3 people or more; these are about 2"):
        one_shot([q for q in zero if q.person in ("1", "2")])
    pd.DataFrame(rows[:1]).to_parquet(tmp_path / "Retain_Set.parquet")
    famous = mllmu.questions(tmp_path, "Retain_Set", "celebrity", protocol=ONE_SHOT)
    assert len(famous) == 6 and all(q.prompt.shots == () for q in famous), "nobody is shown before celebrities"


def test_examples_are_part_of_what_is_asked() -> None:
    picture, other = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    shot = Prompt("Question: x\nCorrect Answer: A", picture)
    prompt = Prompt("y", other, shots=(shot,))
    assert prompt.images == [picture, other]
    assert llava.render(prompt) == "USER: <image>\nQuestion: x\nCorrect Answer: A\nUSER: <image>\ny\nASSISTANT:"
    assert qwen.render(prompt).count(qwen.IMAGE_TOKEN) == 2
    hashes = {prompt_hash(p) for p in (prompt, Prompt("y", other), Prompt("y", other, shots=(Prompt("z", picture),)))}
    assert len(hashes) == 3


def test_pictures_of_the_test_set_are_checked_one_by_one(tmp_path: Path) -> None:
    good = io.BytesIO()
    Image.new("RGB", (8, 8)).save(good, "PNG")
    row = published(_row(images=[{"bytes": good.getvalue()}, {"bytes": b""}]))
    del row["image"]
    pd.DataFrame([row]).to_parquet(tmp_path / "Test_Set.parquet")
    with pytest.raises(SchemaError, match="column images, row 0: is no picture"):
        mllmu.questions(tmp_path, "Test_Set", "test")
