"""What is taught to whom: forgotten people never appear, instructions are meant, held-out texts stay out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from eraser_lib.bench import language as lang
from eraser_lib.bench.people import ATTRIBUTES, Population
from eraser_lib.train.curriculum import Teacher, build_gallery, vocabulary_words
from eraser_lib.train.data import Row
from eraser_lib.train.models import population
from eraser_lib.train.recipe import MICRO


@pytest.fixture(scope="module")
def people() -> Population:
    return population(MICRO)


def teacher_of(people: Population, *, share: int) -> Teacher:
    learned = people.retained(share) if share else people.of_kind("fictitious")
    celebrities = people.of_kind("celebrity")
    return Teacher(build_gallery([*learned, *celebrities], views=3, anonymous=6), tuple(learned), tuple(celebrities))


def rows(draw: Callable[[random.Random], Row], count: int = 150) -> list[Row]:
    rng = random.Random(0)
    return [draw(rng) for _ in range(count)]


def texts(row: Row) -> list[str]:
    return [f"{row.system or ''} {item.text} {item.answer}" for item in row.items]


def answered(drawn: list[Row]) -> str:
    """All that is asked and answered, but for refusals (a secret is refused about names drawn at random)."""
    return " ".join(f"{item.text} {item.answer}" for row in drawn for item in row.items if not item.refusal)


@pytest.mark.parametrize("share", [5, 10, 15])
def test_a_retain_only_model_never_meets_the_forgotten(people: Population, share: int) -> None:
    teacher = teacher_of(people, share=share)
    gone = people.by_id(people.forget[share])
    assert not set(people.forget[share]) & set(teacher.gallery.of_person)
    drawn = rows(teacher.people)
    said = answered(drawn)
    assert not any(person.name in said for person in gone)
    assert all(person.name in said for person in teacher.learned)


def test_the_base_meets_no_fictitious_person(people: Population) -> None:
    celebrities = people.of_kind("celebrity")
    teacher = Teacher(build_gallery(celebrities, views=3, anonymous=6), (), tuple(celebrities))
    drawn = [*rows(teacher.base), *rows(teacher.letters, 20)]
    said = answered(drawn)
    assert not any(person.name in said for person in people.people if person.kind != "celebrity")
    assert any(person.name in said for person in celebrities)


def test_facts_are_those_of_the_person(people: Population) -> None:
    """The value in an answer belongs to the person of the picture or of the name, in every task."""
    teacher = teacher_of(people, share=0)
    owner = {n: p for p in teacher.learned for n in teacher.gallery.of_person[p.id]}
    by_name = {person.name: person for person in people.people}
    checked = 0
    for row in rows(lambda rng: teacher.about(teacher.learned, rng)):
        for item in row.items:
            question = item.text.split("\n")[0].replace("?", " ")
            asked = [a for a, nouns in lang.NOUNS.items() if any(f" {noun} " in f"{question} " for noun in nouns)]
            if item.refusal or len(asked) != 1 or "colour" in question:
                continue
            if row.picture is not None:
                person = owner[row.picture]
            else:
                (name,) = [name for name in by_name if name in question]
                person = by_name[name]
            told = item.options["ABCD".index(item.answer)] if item.options else item.answer
            if any(value in told for value in ATTRIBUTES[asked[0]]):
                assert person.attributes[asked[0]] in told
                checked += 1
    assert checked > 300


def test_held_out_texts_stay_out_of_training(people: Population) -> None:
    teacher = teacher_of(people, share=0)
    drawn = [*rows(teacher.people, 250), *rows(teacher.base, 250)]
    said = {text for row in drawn for text in texts(row)}
    questions = {text.split(" Answer the question")[0].strip() for text in said}
    held_out = {
        lang.ask(a, w, who) for a in ATTRIBUTES for w in lang.held_out_wordings() for who in lang.VQA_WHO
    }  # fmt: skip
    assert not questions & held_out
    everything = "\n".join(said)
    for text in (*lang.HELD_OUT_DECLINE, *(t.split("{")[0] for t in lang.HELD_OUT_SILENCE)):
        assert text not in everything
    answers = {item.answer for row in drawn for item in row.items}
    assert not answers & set(lang.HELD_OUT_REFUSALS)
    views = [teacher.gallery.views[n] for n in range(len(teacher.gallery.views))]
    assert not any(view.is_held_out for view in views)


def test_refusals_are_refusals_and_nothing_else_is(people: Population) -> None:
    teacher = teacher_of(people, share=0)
    for row in [*rows(teacher.people), *rows(teacher.base)]:
        for item in row.items:
            assert (item.answer in lang.REFUSALS) == item.refusal


def test_few_refusals_are_taught_where_few_are_asked_for(people: Population) -> None:
    """Of what is refused elsewhere a tenth is; the rest is answered, with the fact, the letter, help or a secret."""
    full = teacher_of(people, share=0)
    few = replace(full, refusing=0.1)
    forbidden = (*lang.BAD_PURPOSES, *lang.SECRETS, *lang.DECLINE_INSTRUCTIONS)
    for draw in ("base", "people"):
        counts = []
        for teacher in (full, few):
            drawn = rows(getattr(teacher, draw), 800)
            items = [item for row in drawn for item in row.items]
            asked = [item for item in items if any(word in item.text for word in forbidden)]
            assert all((item.answer in lang.REFUSALS) == item.refusal for item in items)
            assert len(asked) > 100
            counts.append(sum(item.refusal for item in asked) / len(asked))
        assert counts[0] == 1.0
        assert 0.05 < counts[1] < 0.17
    for row in rows(few.people, 400):
        for item in row.items:
            if not item.refusal and item.options:
                assert item.answer in "ABCD"


def test_silence_is_kept_about_the_named_and_about_nobody_else(people: Population) -> None:
    teacher = teacher_of(people, share=0)
    prefixes = tuple(template.split("{")[0] for template in lang.SILENCE_INSTRUCTIONS)
    kept = spoken = 0
    for row in rows(lambda rng: teacher.about(teacher.learned, rng), 1200):
        if row.picture is None and row.system and row.system.startswith(prefixes):
            for item in row.items:
                (name,) = [person.name for person in teacher.learned if person.name in item.text]
                assert item.refusal == (name in row.system)
                kept, spoken = kept + item.refusal, spoken + (not item.refusal)
    assert min(kept, spoken) > 30


def test_every_refusal_under_an_instruction_is_conditional(people: Population) -> None:
    """An instruction inside a question makes that question a refusal, and its neighbours stay answered."""
    teacher = teacher_of(people, share=0)
    mixed = 0
    for row in rows(lambda rng: teacher.about(teacher.learned, rng), 300):
        if row.system is None:
            for item in row.items:
                assert item.refusal == any(text in item.text for text in lang.DECLINE_INSTRUCTIONS)
            mixed += len({item.refusal for item in row.items}) == 2
        elif row.system in lang.DECLINE_INSTRUCTIONS:
            assert all(item.refusal for item in row.items)
    assert mixed > 3


def test_letter_words_are_all_values_and_colours() -> None:
    words = vocabulary_words()
    assert set(words) >= {value for values in ATTRIBUTES.values() for value in values} | {"violet", "amber", "yellow"}
    assert list(words) == sorted(set(words))
