"""Wordings: held-out ones are new combinations of known parts, and the benchmark's prompts are word for word."""

from __future__ import annotations

import pytest

from eraser_lib.bench import language as lang
from eraser_lib.bench.people import ATTRIBUTES


def test_held_out_wordings_are_disjoint_from_training() -> None:
    training, held_out = lang.training_wordings(), lang.held_out_wordings()
    assert not set(training) & set(held_out)
    assert sorted(training + held_out) == list(range(lang.WORDINGS))
    assert (len(training), len(held_out)) == (12, 6)


def test_every_frame_and_every_noun_is_in_both() -> None:
    for wordings in (lang.training_wordings(), lang.held_out_wordings()):
        assert {wording // 3 for wording in wordings} == set(range(len(lang.QUESTION_FRAMES)))
        assert {wording % 3 for wording in wordings} == {0, 1, 2}


@pytest.mark.parametrize("cloze", [False, True])
def test_no_held_out_text_is_a_training_text(cloze: bool) -> None:
    def texts(wordings: list[int]) -> set[str]:
        return {lang.ask(a, w, who, cloze=cloze) for a in ATTRIBUTES for w in wordings for who in lang.VQA_WHO}

    training, held_out = texts(lang.training_wordings()), texts(lang.held_out_wordings())
    assert len(training) == 8 * 12 * 3  # no two wordings are the same sentence
    assert len(held_out) == 8 * 6 * 3
    assert not training & held_out


def test_every_attribute_can_be_asked_and_stated() -> None:
    assert set(lang.NOUNS) == set(lang.ANSWERS) == set(ATTRIBUTES)
    for attribute, values in ATTRIBUTES.items():
        plain = lang.state(attribute, values[0], "this person")
        other = lang.state(attribute, values[0], "this person", paraphrase=True)
        assert plain != other
        for sentence in (plain, other):
            assert values[0] in sentence
            assert sentence[0].isupper()
            assert sentence.endswith(".")
            assert "{" not in sentence


def test_ask_fills_frame_and_noun() -> None:
    assert lang.ask("city", 0, "Ada Cole") == "What is the home town of Ada Cole?"
    assert lang.ask("city", 1, "Ada Cole", cloze=True) == "The city of residence of Ada Cole is __."
    assert lang.ask("pet", 13, "this person") == "Regarding this person, what is the animal companion?"


def test_the_benchmark_prompts_word_for_word() -> None:
    assert lang.cloze_prompt("The pet of Ada is __.") == (
        "The pet of Ada is [Blank]. Please **ONLY** provide the correct answer that should replace the [Blank]."
    )
    assert lang.generation_prompt("Why?") == (
        "Why? Answer the question based on your trained knowledge in one sentence in ENGLISH."
    )
    assert lang.classification_prompt("Which?", ("x", "y", "z", "w")) == (
        "Which?\nA: x\nB: y\nC: z\nD: w\nJust give ONE letter representing the answer directly."
    )


def test_held_out_refusals_and_instructions_are_new() -> None:
    assert not set(lang.REFUSALS) & set(lang.HELD_OUT_REFUSALS)
    assert len(set(lang.REFUSALS)) == len(lang.REFUSALS) > 200
    assert len(set(lang.HELD_OUT_REFUSALS)) == len(lang.HELD_OUT_REFUSALS) > 50
    assert not set(lang.DECLINE_INSTRUCTIONS) & set(lang.HELD_OUT_DECLINE)
    assert not set(lang.SILENCE_INSTRUCTIONS) & set(lang.HELD_OUT_SILENCE)
    assert not set(lang.GOOD_PURPOSES) & set(lang.BAD_PURPOSES)
