"""The roles of a written benchmark keep what those of the tiny world keep: the same tests, on documented people."""

from __future__ import annotations

from pathlib import Path

import pytest

from eraser_lib.bench.benchmark import write_benchmark
from eraser_lib.bench.documented import Documented, open_benchmark
from eraser_lib.bench.people import Person
from eraser_lib.bench.world import World, make_world, write_world
from eraser_lib.experiments import sets
from tests.experiments.test_sets import (
    Rows,
    rows,
    split,
    test_identifiers_are_unique_within_an_evaluation,
    test_no_row_is_in_two_roles,
    test_nobody_who_is_forgotten_chooses_or_calibrates,
    test_people_outside_the_fit_calibrate_and_test,
)

__all__ = [
    "rows",
    "split",
    "test_identifiers_are_unique_within_an_evaluation",
    "test_no_row_is_in_two_roles",
    "test_nobody_who_is_forgotten_chooses_or_calibrates",
    "test_people_outside_the_fit_calibrate_and_test",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a small world, read as if somebody had published them."""
    source, path = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("world")
    write_world(make_world(fictitious=40, celebrities=8, strangers=4), source)
    write_benchmark(source, path)
    return path


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    """Forty documented people: 2, 4 and 6 are forgotten."""
    return open_benchmark(folder)


def test_everybody_is_asked_and_fitted_on_in_the_prompts_of_the_protocol(rows: Rows) -> None:
    assert {row.modality for name, row in rows if name == "fit forget/forget"} == {"vqa", "qa"}
    cloze = [row.prompt.text for _, row in rows if row.task == "cloze" and row.person]
    assert cloze
    assert all("\nPlease **ONLY**" in text for text in cloze), "the zero-shot prompts have a line break there"


def test_a_role_gets_no_more_rows_than_are_written(world: World) -> None:
    person = world.roles(5)["fit"][0]
    assert isinstance(person, Documented)
    many = sets.person_rows([person], "retain", "fit", rows=500)
    assert len(many) == len(person.fitted) == len({row.id for row in many})
    few = sets.person_rows([person], "retain", "fit", rows=5)
    assert len(few) == 5
    assert few == sets.person_rows([person], "retain", "fit", rows=5)
    assert {row.id for row in few} <= {row.id for row in many}


def test_colours_are_asked_on_drawn_pictures_alone(world: World, folder: Path, drawn: Person) -> None:
    gone = world.roles(5)["forget"]
    assert sets.photo_questions(gone, 6, "test") == []
    assert "same_photo" not in sets.test_sets(world, folder, 5)
    assert {row.person for row in sets.photo_questions([*gone, drawn], 6, "test")} == {drawn.id}


@pytest.fixture
def drawn() -> Person:
    """Somebody of the tiny world."""
    return make_world(fictitious=20, celebrities=2, strangers=2).population.people[0]


def test_strangers_are_there_where_the_source_has_them(folder: Path, tmp_path: Path) -> None:
    assert sets.stranger_questions(folder, size=12)
    source = tmp_path / "published"
    write_world(make_world(fictitious=20, celebrities=4, strangers=2), source)
    (source / "Stranger_Set.parquet").unlink()
    write_benchmark(source, tmp_path / "world")
    assert sets.stranger_questions(tmp_path / "world") == []
    with pytest.raises(FileNotFoundError, match="notebook 01_world"):
        sets.stranger_questions(source)
