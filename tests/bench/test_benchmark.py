"""MLLMU-Bench as a world folder: what is asked is not fitted on, whatever the source repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from eraser_lib.bench import mllmu
from eraser_lib.bench.benchmark import name_in, write_benchmark
from eraser_lib.bench.documented import Documented, open_benchmark
from eraser_lib.bench.people import Person
from eraser_lib.bench.protocols import ONE_SHOT
from eraser_lib.bench.reader import SchemaError, plain_cell
from eraser_lib.bench.world import World, make_world, person_questions
from tests.bench.test_mllmu import COMMIT, published, serve
from tests.bench.test_reader import _as_json, _picture, _row

PEOPLE = [str(number) for number in range(8)]
FORGET = {5: PEOPLE[:1], 10: PEOPLE[:2], 15: PEOPLE[:3]}


def _of(person: str, *questions: str) -> dict[str, Any]:
    """A row of the hub: a person with these text-only generation questions, and one of each other kind."""
    row = published(_row(ID=person))
    del row["metadata"]  # the training part has it
    asked = [{"Question": text, "Ground_Truth": "x", "Type": "Pure_Text"} for text in questions]
    return row | {"Generation_Task": [row["Generation_Task"][0], *asked]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder as on the hub: lists and structs in some parts, JSON text in others."""
    folder = tmp_path / "MLLMU-Bench"
    folder.mkdir()
    full = [_of(person, *(f"Question {n} on Ada Cole?" for n in range(4))) for person in PEOPLE]
    test = [_of(person, "Question 3 on Ada Cole?", "Another on Ada Cole?") for person in PEOPLE]
    for row in test:
        row["images"] = [row.pop("image"), _picture((0, 0, 9))]
        for task in ("Image_Textual_Questions", "Pure_Text_Questions"):
            for entry in row["Classification_Task"][task]:
                entry["Question"] += " Say it."
        for entry in row["Mask_Task"]:
            entry["Question"] = f"As we know, {entry['Question']}"
        row["Generation_Task"][0]["Question"] = "Whom do we see?"
    pd.DataFrame(full).to_parquet(folder / "Full_Set.parquet", index=False)
    pd.DataFrame([_as_json(row) for row in test]).to_parquet(folder / "Test_Set.parquet", index=False)
    star = _of("c1", "Who is Eve Star?", "What does Eve Star sing?", "Where did Eve Star sing?")
    pd.DataFrame([star]).to_parquet(folder / "Retain_Set.parquet", index=False)
    training = [{"image": row["image"], "metadata": json.dumps([{"ID": row["ID"], "Question": "q", "Answer": "a"}])}
                for row in full]  # fmt: skip
    pd.DataFrame(training).to_parquet(folder / "ft_Data.parquet", index=False)
    for share, ids in FORGET.items():
        rows = [row for row in full if row["ID"] in ids]
        pd.DataFrame(rows).to_parquet(folder / f"forget_{share}.parquet", index=False)
    return folder


def _texts(person: Documented, which: str) -> set[str]:
    return {row.prompt.text.split("\n")[0] for row in getattr(person, which)}


def test_each_second_question_is_asked_and_the_others_fitted_on(source: Path, tmp_path: Path) -> None:
    described = write_benchmark(source, tmp_path / "world")
    (person,) = open_benchmark(tmp_path / "world").population.by_id(("0",))
    assert isinstance(person, Documented)
    assert {"Question 0 on Ada Cole?", "Question 2 on Ada Cole?"} <= _texts(person, "asked")
    assert "Question 1 on Ada Cole?" in _texts(person, "fitted")
    assert "q" in _texts(person, "fitted"), "the profile"
    assert _texts(person, "asked").isdisjoint(_texts(person, "fitted"))
    assert described["dropped"] == len(PEOPLE), "question 3 is asked by the test set, so no fit sees it"
    assert "Question 3 on Ada Cole?" not in _texts(person, "asked") | _texts(person, "fitted")
    forget = mllmu.people(tmp_path / "world", "forget_10")
    assert forget == set(FORGET[10])


def test_roles_hold_whom_the_files_name(source: Path, tmp_path: Path) -> None:
    described = write_benchmark(source, tmp_path / "world")
    world = open_benchmark(tmp_path / "world")
    assert {share: list(ids) for share, ids in world.population.forget.items()} == FORGET
    assert len(described["dev"]) == 1
    assert not set(described["dev"]) & set(FORGET[15])
    (celebrity,) = world.population.of_kind("celebrity")
    assert isinstance(celebrity, Documented)
    assert celebrity.name == "Eve Star"
    assert "Who is Eve Star?" in _texts(celebrity, "fitted"), "nobody is asked about a celebrity of the fit"
    assert celebrity.photo(5).tobytes() == celebrity.photos[0].decode().tobytes()
    with pytest.raises(AttributeError):
        print(celebrity.genotype)


def test_the_content_hash_sees_content_and_not_how_it_is_stored(source: Path, tmp_path: Path) -> None:
    first = write_benchmark(source, tmp_path / "a")["content_hash"]
    full = pd.read_parquet(source / "Full_Set.parquet")
    for task in ("Classification_Task", "Mask_Task", "Generation_Task"):
        full[task] = [json.dumps(plain_cell(cell)) for cell in full[task]]
    full.to_parquet(source / "Full_Set.parquet", index=False)
    assert write_benchmark(source, tmp_path / "b")["content_hash"] == first
    assert write_benchmark(source, tmp_path / "c", seed=1)["content_hash"] != first


def test_the_world_says_where_its_files_come_from_and_all_come_from_one_commit(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the hub's newest commit changes meanwhile; and the same files are the same world."""
    local = write_benchmark(source, tmp_path / "a")
    assert (local["source"], local["revision"]) == (str(source), None)
    asked = serve(source, monkeypatch)
    with pytest.warns(UserWarning, match=f"its newest is read: {COMMIT}"):
        fetched = write_benchmark(mllmu.HUB, tmp_path / "b")
    assert asked[0] is None and set(asked[1:]) == {COMMIT} and len(asked) > 6
    assert json.loads((tmp_path / "b" / "world.json").read_text()) == fetched
    assert (fetched["source"], fetched["revision"]) == (mllmu.HUB, COMMIT)
    assert fetched["content_hash"] == local["content_hash"]


def test_names_are_found_in_text_only_questions(default_world: World) -> None:
    for person in default_world.population.people[:40]:
        assert name_in({"ID": person.id, **person_questions(person, [0, 5, 9], purpose="files")}) == person.name


def test_the_biography_names_people_where_there_is_one() -> None:
    """Names that no rule about capitals finds."""
    for name in ("Adele", "Leonardo da Vinci", "Ángel Núñez"):
        row = {"ID": "7", "biography": json.dumps({"Name": name, "Born": "Paris"})}
        assert name_in(row) == name
        assert name_in({"ID": "7", "biography": {"Name": f" {name} "}}) == name


def test_celebrities_with_the_numbers_of_others_stay_themselves(source: Path, tmp_path: Path) -> None:
    star = _of("0", "Who is Eve Star?", "What does Eve Star sing?", "Where did Eve Star sing?")
    pd.DataFrame([star]).to_parquet(source / "Retain_Set.parquet", index=False)
    write_benchmark(source, tmp_path / "world")
    people = {person.id: person for person in open_benchmark(tmp_path / "world").population.people}
    assert set(people) == {*PEOPLE, "celebrity-0"}
    famous, other = people["celebrity-0"], people["0"]
    assert isinstance(famous, Documented) and isinstance(other, Documented)
    assert famous.name == "Eve Star"
    assert "Who is Eve Star?" in _texts(famous, "fitted") and "Who is Eve Star?" not in _texts(other, "fitted")


def test_profiles_of_nobody_who_is_asked_are_refused(source: Path, tmp_path: Path) -> None:
    training = pd.read_parquet(source / "ft_Data.parquet")
    training["metadata"] = json.dumps([{"ID": "x9", "Question": "q", "Answer": "a"}])
    training.to_parquet(source / "ft_Data.parquet", index=False)
    with pytest.raises(ValueError, match=r"8 of 8 people of Full_Set have no profile in ft_Data, .*its rows name x9"):
        write_benchmark(source, tmp_path / "world")


def test_what_was_left_out_is_written_down(source: Path, tmp_path: Path) -> None:
    full = pd.read_parquet(source / "Full_Set.parquet")
    cell = plain_cell(full.at[3, "Mask_Task"])
    full["Mask_Task"] = [json.dumps(plain_cell(cell)) for cell in full["Mask_Task"]]
    full.at[3, "Mask_Task"] = json.dumps([*cell, {"Question": "No gap.", "Ground_Truth": "x", "Type": "Pure_Text"}])
    full.to_parquet(source / "Full_Set.parquet", index=False)
    with pytest.warns(UserWarning, match=r"Full_Set: 1 of \d+ questions cannot be asked and are left out"):
        described = write_benchmark(source, tmp_path / "world")
    assert described["left_out"] == {
        "Full_Set": ["ID 3, Mask_Task: 'No gap.': has no gap"], "Test_Set": [], "Retain_Set": [],
    }  # fmt: skip


def test_a_possessive_is_no_part_of_a_name_and_nobody_is_called_by_number_without_need() -> None:
    ask = "Generation_Task"
    row: dict[str, Any] = {
        "ID": "7",
        "Classification_Task": {f"{t}_Questions": [] for t in mllmu.TYPES},
        "Mask_Task": [],
    }
    texts = ["What is Ana-Maria O'Neil's job?", "Where does Ana-Maria O'Neil live?"]
    assert name_in(row | {ask: [{"Question": text, "Type": "Pure_Text"} for text in texts]}) == "Ana-Maria O'Neil"
    assert name_in(row | {ask: [{"Question": "who is it?", "Type": "Pure_Text"}]}) == "7"


def test_what_cannot_serve_a_study_is_refused_in_words(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one_shot shows examples.*zero_shot"):
        write_benchmark(source, tmp_path / "world", protocol=ONE_SHOT)
    pd.DataFrame([_of("99", "Who?")]).to_parquet(source / "forget_15.parquet", index=False)
    with pytest.raises(ValueError, match="forget_15 names 99, who are not in Full_Set"):
        write_benchmark(source, tmp_path / "world")
    pd.DataFrame([_of("s1", "Who?") | {"Mask_Task": "[{"}]).to_parquet(source / "Stranger_Set.parquet", index=False)
    pd.DataFrame([_of(person, "Who?") for person in FORGET[15]]).to_parquet(source / "forget_15.parquet", index=False)
    with pytest.raises(SchemaError, match=r"Stranger_Set is not .*: column Mask_Task, row 0: is no list of questions"):
        write_benchmark(source, tmp_path / "world")
    with pytest.raises(FileNotFoundError, match="notebook 01_benchmark"):
        open_benchmark(tmp_path / "nowhere")


def test_a_drawn_person_shows_the_training_pictures() -> None:
    person: Person = make_world(fictitious=20, celebrities=2, strangers=2).population.people[0]
    assert person.photo(1).tobytes() == person.photo(1).tobytes() != person.photo(2).tobytes()
