"""Roles: no row is in two of them (told by a hash of text and pixels), and samples are stratified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from eraser_lib.bench import language as lang
from eraser_lib.bench.people import ATTRIBUTES
from eraser_lib.bench.reader import read_questions
from eraser_lib.bench.records import Question
from eraser_lib.bench.world import World
from eraser_lib.evaluate.log import prompt_hash
from eraser_lib.experiments import sets

SPLITS = (5, 10, 15)


def everything(world: World, folder: Path, split: int) -> Iterator[tuple[str, Question]]:
    """Every row that plays a role on a split, with the name of its set."""
    population = world.population
    for who, forget in (("forget", population.forget[split]), ("dev", population.dev)):
        fitted = sets.fit_sets(world, split, forget=population.by_id(forget))
        yield from ((f"fit {who}/{name}", row) for name, rows in fitted.items() for row in rows)
    yield from (("select dev", row) for row in sets.dev_questions(folder, population.by_id(population.dev)))
    for group in sets.practice_people(world, split):
        yield from (("fit practice", row) for row in sets.person_rows(group, "forget", "fit", rows=40))
        yield from (("select practice", row) for row in sets.dev_questions(folder, group))
    yield from (("select retain", row) for row in sets.kept_select_questions(world, split))
    for role in ("select", "calibrate"):
        calibration = sets.calibration_sets(world, folder, split, role=role)
        yield from ((f"{role} threshold/{name}", row) for name, rows in calibration.items() for row in rows)
    tested = sets.test_sets(world, folder, split)
    yield from ((f"test {name}", row) for name, rows in tested.items() for row in rows)
    yield from (("test stranger", row) for row in sets.stranger_questions(folder))


Rows = list[tuple[str, Question]]


@pytest.fixture(scope="module", params=SPLITS)
def split(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def rows(world: World, folder: Path, split: int) -> Rows:
    """Every row of a split with the name of its set."""
    return list(everything(world, folder, split))


def test_no_row_is_in_two_roles(rows: Rows) -> None:
    holders: dict[str, dict[str, tuple[str, str]]] = {}
    for name, row in rows:
        assert name.split()[0] == row.role
        holders.setdefault(prompt_hash(row.prompt), {}).setdefault(row.role, (name, row.prompt.text))
    shared = [roles for roles in holders.values() if len(roles) > 1]
    assert {role for roles in holders.values() for role in roles} == {"fit", "select", "calibrate", "test"}
    assert shared == []


def test_nobody_who_is_forgotten_chooses_or_calibrates(world: World, rows: Rows, split: int) -> None:
    gone, dev = set(world.population.forget[split]), set(world.population.dev)
    for name, row in rows:
        if name == "fit dev/forget":
            assert row.person in dev
        if row.role in ("select", "calibrate"):
            assert row.person not in gone, name
        if name in ("fit forget/forget", "test forget", "test test"):
            assert row.person in gone
        if name == "test retain":
            assert row.person not in gone | dev


def test_people_outside_the_fit_calibrate_and_test(rows: Rows) -> None:
    fitted = {row.person for name, row in rows if name == "fit forget/retain" and row.subset == "retain"}
    assert fitted
    for name, row in rows:
        if name in (
            "calibrate threshold/people",
            "calibrate threshold/celebrity",
            "select threshold/people",
            "test retain",
            "test celebrity",
            "select dev",
        ):
            assert row.person not in fitted, name


def test_people_erased_for_practice_are_fit_people_and_asked_about_nowhere_else(
    world: World, rows: Rows, split: int
) -> None:
    groups = sets.practice_people(world, split)
    people = [person.id for group in groups for person in group]
    assert [len(group) for group in groups] == [len(world.population.dev)] * 3
    assert len(set(people)) == len(people)
    assert set(people) <= {person.id for person in world.roles(split)["fit"]}
    for name, row in rows:
        if row.person in people:
            assert row.role == "fit" or name == "select practice"
    assert len(sets.practice_people(world, split, count=9)) < 9


def test_nobody_calibrates_both_the_choice_and_the_chosen(rows: Rows) -> None:
    people = {
        role: {row.person for name, row in rows if name == f"{role} threshold/{group}"}
        for role in ("select", "calibrate")
        for group in ("people", "celebrity", "same_photo")
    }
    assert all(people.values())
    assert not people["select"] & people["calibrate"]


@pytest.mark.parametrize("role", ["select", "calibrate"])
def test_every_group_of_the_tiny_world_can_be_calibrated_at_one_per_cent(role: str) -> None:
    """At alpha = .01 a threshold takes 99 prompts; celebrities are few."""
    from eraser_lib.train.models import population
    from eraser_lib.train.recipe import TINY

    people = population(TINY)
    for name, count in (("fictitious", 36), ("celebrity", 8)):
        mine = sets._part(people.of_kind(name)[:count], role)
        assert len(mine) * len(ATTRIBUTES) * len(sets.TASKS) * len(sets.MODALITIES) >= 99


def test_test_rows_are_held_out_and_fit_rows_are_not(rows: Rows) -> None:
    for name, row in rows:
        if name in ("test test", "test retain", "test celebrity", "calibrate threshold/people"):
            assert lang.is_held_out(row.wording)
        if row.role == "fit" and row.attribute is not None:
            assert not lang.is_held_out(row.wording)


def test_no_visual_question_holds_a_name_and_no_text_question_an_image(world: World, rows: Rows) -> None:
    names = [person.name for person in world.population.people]
    for set_name, row in rows:
        assert (row.prompt.image is not None) == (row.modality == "vqa")
        if row.modality == "vqa":
            assert not any(name in row.prompt.text for name in names), set_name


def test_identifiers_are_unique_within_an_evaluation(world: World, folder: Path) -> None:
    tested = [row for found in sets.test_sets(world, folder, 10).values() for row in found]
    assert len({row.id for row in tested}) == len(tested)


def test_stratified_samples_are_even(folder: Path) -> None:
    questions = read_questions(folder / "Test_Set.parquet", "test")
    chosen = sets.stratified(questions, 63)
    counts = Counter((row.modality, row.task) for row in chosen)
    assert len(chosen) == 63
    assert sorted(counts.values()) == [10, 10, 10, 11, 11, 11]
    ids = [row.id for row in questions]
    places = [ids.index(row.id) for row in chosen]
    assert places == sorted(set(places))
    assert [row.id for row in sets.stratified(questions, 63)] == [row.id for row in chosen]
    assert [row.id for row in sets.stratified(questions, 63, seed=1)] != [row.id for row in chosen]
    assert sets.stratified(questions[:20], 63) == questions[:20]


def test_requests_and_general_questions_say_what_they_are() -> None:
    forbidden = sets.request_questions(30, "test", bad=True)
    benign = sets.request_questions(30, "test", bad=False)
    assert len(forbidden) == len(benign) == 30
    assert all(row.refusal and row.subset == "forbidden" for row in forbidden)
    assert not any(row.refusal for row in benign)
    assert any(secret in row.prompt.text for row in forbidden for secret in lang.SECRETS)
    general = sets.general_questions(40, "test")
    assert Counter(row.modality for row in general) == {"vqa": 30, "qa": 10}
    assert all(row.fact and row.fact in row.answer for row in general)
