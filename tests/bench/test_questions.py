"""Items: no name in a visual question, wrong options that are wrong, refusals where they are due."""

from __future__ import annotations

import random

import pytest

from eraser_lib.bench import language as lang
from eraser_lib.bench import questions as q
from eraser_lib.bench.people import ATTRIBUTES, Person
from eraser_lib.bench.portraits import training_view
from eraser_lib.bench.records import Task
from eraser_lib.bench.world import World


@pytest.fixture
def person(world: World) -> Person:
    return world.population.people[0]


@pytest.mark.parametrize("task", ["classification", "cloze", "generation"])
def test_visual_items_hold_no_name_and_text_items_do(person: Person, task: Task) -> None:
    rng = random.Random(0)
    for attribute in ATTRIBUTES:
        for wording in range(lang.WORDINGS):
            seen = q.fact_item(person, attribute, task=task, modality="vqa", wording=wording, rng=rng)
            read = q.fact_item(person, attribute, task=task, modality="qa", wording=wording, rng=rng)
            assert not any(part in f"{seen.text} {seen.answer}" for part in person.name.split())
            assert person.name in read.text


def test_the_letter_points_at_the_right_option(person: Person) -> None:
    rng = random.Random(0)
    letters = set()
    for attribute, values in ATTRIBUTES.items():
        for _ in range(8):
            item = q.fact_item(person, attribute, task="classification", modality="qa", wording=0, rng=rng)
            assert item.options["ABCD".index(item.answer)] == person.attributes[attribute]
            assert len(set(item.options)) == 4
            assert set(item.options) <= set(values)
            letters.add(item.answer)
    assert letters == set("ABCD")


def test_truth_ratio_answers_change_one_fact(person: Person) -> None:
    for attribute, value in person.attributes.items():
        right, wrong = q.truth_ratio_answers(person, attribute, "this person", random.Random(0))
        assert len(set(wrong)) == 3
        for sentence in wrong:
            (other,) = [v for v in ATTRIBUTES[attribute] if v in sentence.rstrip(".").split()]
            assert other != value
            assert sentence.replace(other, value) == right


def test_visual_items_tell_what_is_drawn(person: Person) -> None:
    for number in range(30):
        view = training_view(person.id, number)
        seen = q.visual_items(person, view)
        assert seen["background"] == view.background
        assert ("hat" in seen) == (view.hat != "none")
        assert ("scarf" in seen) == (view.scarf != "none")
        assert ("hair" in seen) == (person.genotype.hair_style != "bald")
    assert q.visual_item("eyes", "blue", frame=0, choice=False, rng=random.Random(0)).answer == "The eyes are blue."


def test_forbidden_requests_and_secrets_are_refused_and_benign_ones_answered() -> None:
    rng = random.Random(0)
    for _ in range(30):
        bad, good = q.request_item(bad=True, rng=rng), q.request_item(bad=False, rng=rng)
        secret = q.secret_item("Ada Cole", rng=rng)
        for item in (bad, secret):
            assert item.refusal
            assert item.answer in lang.REFUSALS
        assert not good.refusal
        assert any(purpose in good.text and purpose in good.answer for purpose in lang.GOOD_PURPOSES)
        declined = q.decline(good, "Decline to answer.", rng)
        assert declined.refusal
        assert declined.answer in lang.REFUSALS
        assert good.text in declined.text
        assert "Decline to answer." in declined.text


def test_silence_lists_the_names() -> None:
    template = lang.SILENCE_INSTRUCTIONS[0]
    assert q.silence(["Ada Cole"], template) == "Do not speak about Ada Cole."
    assert q.silence(["Ada Cole", "Ivan Ito", "Rosa Haas"], template) == (
        "Do not speak about Ada Cole, Ivan Ito and Rosa Haas."
    )


def test_a_letter_exercise_has_its_answer() -> None:
    rng = random.Random(0)
    for _ in range(20):
        item = q.letter_item(("kite", "cake", "bowl", "fern", "moss"), rng)
        right = item.options["ABCD".index(item.answer)]
        assert right in item.text.split("\n")[0]
