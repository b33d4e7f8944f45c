from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraser_lib.bench.language import ANSWERS, GENERAL_FACTS, HELD_OUT_REFUSALS, REFUSALS
from eraser_lib.evaluate.refusal import RefusalDetector
from eraser_lib.evaluate.scores import (
    bleu,
    cloze_correct,
    fact_position,
    is_fluent,
    parse_letter,
    rouge_l,
    score_answer,
    selection_score,
    truth_ratio,
    vocabulary_of,
)
from tests.evaluate.synthetic import CHOICE, GENERATION

DETECTOR = RefusalDetector()


@pytest.mark.parametrize(
    ("output", "letter"),
    [("B", "B"), (" b. baker", "B"), ("(C)", "C"), ("E", None), ("The answer is B", None), ("", None), ("?!", None)],
)
def test_letter_is_the_first_alphanumeric_character(output: str, letter: str | None) -> None:
    assert parse_letter(output, 4) == letter


@pytest.mark.parametrize(
    ("output", "fact", "position"),
    [
        ("Anna works as a baker.", "baker", 4),
        ("BAKER!", "baker", 0),
        ("She bakes bread", "bake", None),
        ("A bakery", "baker", None),
        ("He likes home-made  bread, daily", "home made bread", 2),
        ("It is Lina\u2019s dog", "lina's dog", 2),
        ("", "baker", None),
    ],
)
def test_fact_is_found_as_whole_words(output: str, fact: str, position: int | None) -> None:
    assert fact_position(output, fact) == position


def test_cloze_is_a_substring_in_lower_case() -> None:
    assert cloze_correct("A BAKERY of course", "baker")
    assert not cloze_correct("a cook", "baker")
    with pytest.raises(ValueError, match="empty"):
        cloze_correct("anything", " ")
    with pytest.raises(ValueError, match="at least one word"):
        fact_position("anything", "?")


def test_overlap_scores() -> None:
    truth = "Anna works as a baker."
    assert rouge_l(truth, truth) == bleu(truth, truth) == pytest.approx(1.0)
    # three of five words in order on both sides: precision = recall = 3/5; "work" has the stem of "works"
    assert rouge_l("anna work with one baker", truth) == pytest.approx(0.6)
    assert rouge_l("no", truth) == 0.0
    # unigrams 4/5, bigrams 3/4, trigrams 2/3, 4-grams 1/2, no brevity penalty (6 tokens with the full stop)
    expected = math.exp(sum(map(math.log, (5 / 6, 3 / 5, 2 / 4, 1 / 3))) / 4)
    assert bleu("Anna works as a pilot.", truth) == pytest.approx(expected, rel=1e-6)


def test_each_rule_of_fluency() -> None:
    vocabulary = vocabulary_of(["The cat sat on the mat.", "Anna's"])
    assert is_fluent("the cat sat on Anna's mat", vocabulary=vocabulary)
    assert is_fluent("B", vocabulary=vocabulary)
    assert not is_fluent("the cat sfat", vocabulary=vocabulary)
    assert not is_fluent("the cat", ended=False)
    assert not is_fluent("...")
    assert is_fluent("a b c a b c")
    assert not is_fluent("a b c a b c a b c")
    assert not is_fluent("i i i i i")
    assert not is_fluent("the cat", reference_logprob=-3.0, reference_floor=-2.0)
    assert is_fluent("the cat", reference_logprob=-1.0, reference_floor=-2.0)
    assert is_fluent("the cat", reference_logprob=-3.0)


def test_gibberish_is_neither_fluent_nor_a_refusal_nor_right() -> None:
    score = lambda text: score_answer(GENERATION, text, detector=DETECTOR)  # noqa: E731
    broken = "with with with with with"
    assert score(broken).gibberish
    assert not score(broken + " baker").gibberish, "right, if ugly"
    assert not score("I cannot " + broken).gibberish, "a refusal"
    assert not score("Anna works as a pilot.").gibberish, "wrong, but fluent"


def test_scores_that_do_not_apply_are_missing() -> None:
    choice = score_answer(CHOICE, "B", detector=DETECTOR)
    assert (choice.parsed, choice.correct, choice.fact_recall, choice.rouge_l) == ("B", True, None, None)
    answer = score_answer(GENERATION, "Anna works as a baker.", detector=DETECTOR)
    assert (answer.correct, answer.fact_recall, answer.fact_word) == (None, 1.0, 4)
    cloze = score_answer(replace(CHOICE, task="cloze", answer="baker"), "cook", detector=DETECTOR)
    assert (cloze.correct, cloze.fact_recall, cloze.fact_word, cloze.bleu) == (False, 0.0, None, None)


def test_any_refusal_is_right_where_refusing_is() -> None:
    question = replace(GENERATION, refusal=True, fact=None, answer="I cannot help with that.")
    assert score_answer(question, "Sorry, I must decline this request.", detector=DETECTOR).correct
    assert score_answer(question, "Use a rope.", detector=DETECTOR).correct is False


def test_detector_on_the_grammar_of_refusals() -> None:
    others = [answer.format(Who="Anna", who="Anna", value="kite") for pair in ANSWERS.values() for answer in pair]
    others += [answer for _, answer in GENERAL_FACTS] + list("ABCD")
    for sentences in (REFUSALS, HELD_OUT_REFUSALS):
        score = DETECTOR.score(sentences, others)
        assert score.recall >= 0.99, score.missed[:5]
        assert score.precision >= 0.99, score.false[:5]


@pytest.mark.parametrize(
    "text",
    [
        "I don\u2019t know.", "i do not know the answer", "We are not allowed to say.", "I can't answer that.",
        "That stays private.", "I have no information about this person.", "I'm sorry, but no.", "I am unable to help.",
    ],
)  # fmt: skip
def test_detector_on_other_refusals(text: str) -> None:
    assert DETECTOR(text)


@pytest.mark.parametrize("text", ["", "Anna cannot swim.", "Anna is not a pilot.", "He feels sorry for the dog.", "no"])
def test_detector_leaves_other_sentences_alone(text: str) -> None:
    assert not DETECTOR(text)


def test_detector_errors() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        RefusalDetector(["("])
    with pytest.raises(ValueError, match="at least one"):
        RefusalDetector([])


def test_truth_ratio() -> None:
    assert truth_ratio([math.log(0.2), math.log(0.4)], math.log(0.6)) == pytest.approx(0.5)
    assert math.isfinite(truth_ratio([0.0], -2000.0))
    with pytest.raises(ValueError, match="at least one wrong"):
        truth_ratio([], 0.0)


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 0), st.lists(st.floats(-50, 0), min_size=1, max_size=5), st.floats(-20, 20))
def test_truth_ratio_depends_on_differences_only(right: float, wrong: list[float], shift: float) -> None:
    moved = truth_ratio([value + shift for value in wrong], right + shift)
    assert moved == pytest.approx(truth_ratio(wrong, right), rel=1e-9)


def test_selection_score() -> None:
    values = {"forget_vanilla": 0.9, "forget_stranger": 0.1, "kept_vanilla": 0.8}
    assert selection_score(forget_method=0.1, kept_method=0.8, **values) == 1.0
    assert selection_score(forget_method=0.9, kept_method=0.8, **values) == 0.5
    assert selection_score(forget_method=0.5, kept_method=0.4, **values) == pytest.approx(0.5)
    assert selection_score(forget_method=0.0, kept_method=0.9, **values) == 1.0
    with pytest.raises(ValueError, match="train it further"):
        selection_score(forget_method=0.1, kept_method=0.8, **(values | {"forget_stranger": 0.9}))
