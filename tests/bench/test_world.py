"""The world on disk: one content hash, the columns of MLLMU-Bench, and a reader that gives everything back."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from eraser_lib.bench import language as lang
from eraser_lib.bench import portraits, reader
from eraser_lib.bench.people import ATTRIBUTES
from eraser_lib.bench.world import World, make_world, write_world

MICRO = "c988120edb59ca48e55d7d3c31347441962b46e9596cc9cb40e87ff820c33480"
DEFAULT = "1dc78f0083b46634e48cf232d4089b7971d20ed2fbf9daf6a991431d78237f7f"
"""Content hashes of the worlds of both recipes: a change here makes the shipped models stale."""


def test_content_hash_of_the_micro_world(written: tuple[Path, str]) -> None:
    folder, found = written
    assert found == MICRO
    assert json.loads((folder / "world.json").read_text())["content_hash"] == MICRO


def test_content_hash_of_the_default_world(default_world: World, tmp_path: Path) -> None:
    assert write_world(default_world, tmp_path) == DEFAULT


def test_seed_changes_the_content_hash(written: tuple[Path, str], tmp_path: Path) -> None:
    same = write_world(make_world(fictitious=20, celebrities=4, strangers=6), tmp_path / "same")
    other = write_world(make_world(seed=1, fictitious=20, celebrities=4, strangers=6), tmp_path / "other")
    assert same == written[1]
    assert other != same


def test_files_and_columns_are_those_of_the_benchmark(written: tuple[Path, str], world: World) -> None:
    folder, _ = written
    counts = {path.stem: len(pd.read_parquet(path)) for path in folder.glob("*.parquet")}
    assert counts == {
        "Full_Set": 20, "forget_5": 1, "forget_10": 2, "forget_15": 3, "retain_95": 19, "retain_90": 18,
        "retain_85": 17, "Test_Set": 20, "Retain_Set": 4, "Stranger_Set": 6,
    }  # fmt: skip
    tasks = ["metadata", "Classification_Task", "Mask_Task", "Generation_Task"]
    for name in counts:
        frame = pd.read_parquet(folder / f"{name}.parquet")
        held_out = name in ("Test_Set", "Retain_Set", "Stranger_Set")
        assert list(frame.columns) == ["ID", "images" if held_out else "image", *tasks]
        cell = frame.iloc[0]["images"][0] if held_out else frame.iloc[0]["image"]
        assert set(cell) == {"bytes"}
        row = {task: json.loads(frame.iloc[0][task]) for task in tasks}
        assert {frozenset(entry) for entry in row["metadata"]} == {frozenset({"Question", "Answer"})}
        assert set(row["Classification_Task"]) == {"Image_Textual_Questions", "Pure_Text_Questions"}
        for entry in row["Classification_Task"]["Pure_Text_Questions"]:
            assert list(entry["Options"]) == list("ABCD")
            assert entry["Correct_Answer"] in "ABCD"
        for task in ("Mask_Task", "Generation_Task"):
            assert {entry["Type"] for entry in row[task]} == {"Image_Textual", "Pure_Text"}
            assert all(entry["Ground_Truth"] for entry in row[task])
        assert all("__" in entry["Question"] for entry in row["Mask_Task"])


def test_the_reader_gives_every_fact_back(written: tuple[Path, str], world: World) -> None:
    folder, _ = written
    people = {person.id: person for person in world.population.people}
    questions = reader.read_questions(folder / "Test_Set.parquet", "test")
    assert len(questions) == 20 * 2 * 3 * len(ATTRIBUTES)
    assert len({question.id for question in questions}) == len(questions)
    cells = {(x.person, x.modality, x.task, x.attribute) for x in questions}
    assert len(cells) == len(questions)
    for question in questions:
        assert question.person is not None
        assert question.attribute is not None
        value = people[question.person].attributes[question.attribute]
        assert question.fact == value
        assert lang.is_held_out(question.wording)
        if question.task == "classification":
            assert question.letter == question.answer
            assert question.options["ABCD".index(question.answer)] == value
        elif question.task == "cloze":
            assert question.answer == value
            assert question.prompt.text.count("[Blank]") == 2  # the gap, and the one in the instruction
        else:
            assert value in question.answer
            assert question.paraphrase is not None
            assert value in question.paraphrase
            assert len(question.wrong) == 3
            assert not any(value in wrong.split() for wrong in question.wrong)


def test_visual_questions_hold_no_name_and_text_questions_no_image(written: tuple[Path, str], world: World) -> None:
    folder, _ = written
    names = {person.id: person.name for person in world.population.people}
    parts = {part for name in names.values() for part in name.split()}
    for path in sorted(folder.glob("*.parquet")):
        for question in reader.read_questions(path, "test"):
            if question.modality == "vqa":
                assert question.prompt.image is not None
                words = {word.strip(".,?") for word in question.prompt.text.split("\nA:")[0].split()}
                assert not words & parts
            else:
                assert question.prompt.image is None
                assert question.view is None
                assert names[str(question.person)] in question.prompt.text


def test_pictures_are_the_views_they_should_be(written: tuple[Path, str], world: World) -> None:
    folder, _ = written
    for file in ("Test_Set", "forget_15"):
        for identifier, pictures in reader.read_pictures(folder / f"{file}.parquet").items():
            (person,) = world.population.by_id((identifier,))
            views = (
                [portraits.test_view(identifier, n) for n in range(4)]
                if file == "Test_Set"
                else [portraits.training_view(identifier, 0)]
            )
            expected = [portraits.render(person.genotype, view).tobytes() for view in views]
            assert [picture.decode().tobytes() for picture in pictures] == expected


def test_visual_questions_use_every_picture(written: tuple[Path, str]) -> None:
    questions = reader.read_questions(written[0] / "Test_Set.parquet", "test")
    assert {question.view for question in questions if question.modality == "vqa"} == {0, 1, 2, 3}


def test_files_of_forgotten_people_use_training_wordings(written: tuple[Path, str], world: World) -> None:
    questions = reader.read_questions(written[0] / "forget_10.parquet", "forget", role="test")
    assert {question.wording for question in questions} <= set(lang.training_wordings())
    assert {question.person for question in questions} == set(world.population.forget[10])
    assert {question.subset for question in questions} == {"forget"}
