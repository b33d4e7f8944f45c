"""Who lives in the world: nested forget sets, balanced and independent attributes, faces that differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, replace
from itertools import combinations

import pytest

from eraser_lib.bench.people import ATTRIBUTES, Population, sample_population
from eraser_lib.bench.portraits import FACTORS, render, training_view
from eraser_lib.bench.world import World


@pytest.fixture
def population(default_world: World) -> Population:
    return default_world.population


def test_forget_shares_are_nested_and_dev_is_outside(population: Population) -> None:
    five, ten, fifteen = (set(population.forget[share]) for share in (5, 10, 15))
    assert (len(five), len(ten), len(fifteen)) == (10, 20, 30)
    assert five < ten < fifteen
    assert len(set(population.dev)) == 10
    assert not set(population.dev) & fifteen
    kinds = {person.id: person.kind for person in population.people}
    assert {kinds[i] for i in fifteen | set(population.dev)} == {"fictitious"}


def test_retained_and_never_forgotten_people(population: Population) -> None:
    for share in (5, 10, 15):
        ids = {person.id for person in population.retained(share)}
        assert not ids & set(population.forget[share])
        assert len(ids) == 200 - len(population.forget[share])
    never = {person.id for person in population.never_forgotten()}
    assert len(never) == 160
    assert not never & (set(population.forget[15]) | set(population.dev))


def test_kinds_have_their_sizes_and_everybody_is_unique(population: Population) -> None:
    assert Counter(person.kind for person in population.people) == {
        "fictitious": 200, "celebrity": 40, "stranger": 100,
    }  # fmt: skip
    assert len({person.name for person in population.people}) == 340
    assert len({person.id for person in population.people}) == 340


@pytest.mark.parametrize("kind", ["fictitious", "celebrity", "stranger"])
def test_every_value_is_used_equally_often(population: Population, kind: str) -> None:
    people = [person for person in population.people if person.kind == kind]
    for name, values in ATTRIBUTES.items():
        counts = Counter(person.attributes[name] for person in people)
        assert set(counts) <= set(values)
        used = [counts[value] for value in values]
        assert max(used) - min(used) <= 1, name


def test_attributes_have_24_values_of_one_word() -> None:
    assert len(ATTRIBUTES) == 8
    for values in ATTRIBUTES.values():
        assert len(set(values)) == len(values) == 24
        assert all(value.isalpha() for value in values)


def test_no_attribute_tells_another(population: Population) -> None:
    """Independent draws: the most frequent pair of values of two attributes stays rare (200 people, 576 pairs)."""
    people = population.of_kind("fictitious")
    for a, b in combinations(ATTRIBUTES, 2):
        pairs = Counter((person.attributes[a], person.attributes[b]) for person in people)
        assert max(pairs.values()) <= 6, (a, b)


def test_faces_differ_in_three_factors_but_for_look_alikes(population: Population) -> None:
    faces = [astuple(person.genotype) for person in population.people]
    apart = {(x, y): sum(a != b for a, b in zip(x, y, strict=True)) for x, y in combinations(faces, 2)}
    assert len(set(faces)) == 340
    alike = [pair for pair, distance in apart.items() if distance == 1]
    assert len(alike) == 340 // 20
    # A look-alike sits one factor from its original, so it may come within two of somebody else.
    paired = {face for pair in alike for face in pair}
    assert min(d for (x, y), d in apart.items() if not {x, y} & paired) >= 3


def test_no_two_people_look_the_same(population: Population) -> None:
    view = training_view("", 0)
    assert len({render(person.genotype, view).tobytes() for person in population.people}) == 340


def test_distance_counts_the_factors_that_differ(population: Population) -> None:
    face = population.people[0].genotype
    others = {name: next(v for v in FACTORS[name] if v != getattr(face, name)) for name in ("eyes", "nose", "beard")}
    assert face.distance(face) == 0
    assert face.distance(replace(face, eyes=others["eyes"])) == 1
    assert face.distance(replace(face, **others)) == 3


def test_seed_decides_the_population() -> None:
    one, again, other = (sample_population(seed, fictitious=40, celebrities=4, strangers=4) for seed in (0, 0, 1))
    assert again == one
    assert other.people != one.people
    assert other.forget != one.forget


def test_sizes_that_cannot_be_met_are_errors() -> None:
    with pytest.raises(ValueError, match="19 fictitious people are too few"):
        sample_population(0, fictitious=19, celebrities=0, strangers=0)
    with pytest.raises(ValueError, match="4000 people need more than the"):
        sample_population(0, fictitious=4000, celebrities=0, strangers=0)


def test_by_id_names_the_unknown_person(population: Population) -> None:
    assert [p.id for p in population.by_id(("f003", "f001"))] == ["f003", "f001"]
    with pytest.raises(KeyError, match="f999"):
        population.by_id(("f999",))


@pytest.mark.parametrize("share", [5, 10, 15])
def test_nobody_plays_two_roles(default_world: World, share: int) -> None:
    roles = {name: {person.id for person in people} for name, people in default_world.roles(share).items()}
    assert set(roles) == {
        "forget", "dev", "stranger", "fit", "calibrate", "test", "fit_celebrity", "calibrate_celebrity", "celebrity",
    }  # fmt: skip
    for a, b in combinations(roles, 2):
        assert not roles[a] & roles[b], (a, b)
    assert len(set().union(*roles.values())) == 340
    kept = 190 - len(roles["forget"])
    assert [len(roles[name]) for name in ("fit", "calibrate", "test")] == pytest.approx(
        [0.5 * kept, 0.2 * kept, 0.3 * kept], abs=1
    )
