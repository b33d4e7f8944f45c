"""What one question leaves in a log: truth ratio, forced letter, end of the output, floor of fluency."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eraser_lib.bench.records import Prompt, Question
from eraser_lib.evaluate.generate import reference_floor
from eraser_lib.evaluate.session import Session

WORDS = {"para": [1, 1], "w1": [2], "w2": [3, 3, 3], "right": [4], "A": [10], "B": [11], "C": [12], "D": [13]}
LOGPROBS = {1: -1.0, 2: -2.0, 3: -3.0, 4: -9.0}


def session(**options: Any) -> Session:
    loaded: Any = SimpleNamespace(answer_ids=lambda text: [*WORDS.get(text, [4] * len(text.split())), 0])
    return Session(loaded, {}, **options)


def asked(name: str, **changes: Any) -> Question:
    common: dict[str, Any] = {
        "subset": "test", "role": "test", "modality": "qa", "task": "generation", "prompt": Prompt("?"),
        "answer": "right", "fact": "right",
    }  # fmt: skip
    return Question(id=name, **(common | changes))


def test_truth_ratios_are_of_the_wrong_answers_to_the_paraphrase_per_token() -> None:
    def score(answers: Any) -> list[list[float]]:
        return [[LOGPROBS[token] for token in row] for row in answers]

    rows: list[dict[str, Any]] = [{}, {}, {}]
    both = asked("a", paraphrase="para", wrong=("w1", "w2"))
    session()._truth_ratios(score, [both, asked("b", paraphrase="para", wrong=("w2",)), asked("c")], rows)
    first, second, third = rows
    assert (first["paraphrase_logprob"], first["wrong_logprobs"]) == (-1.0, [-2.0, -3.0])
    assert first["truth_ratio"] == pytest.approx((math.exp(-1) + math.exp(-2)) / 2)
    assert (second["wrong_logprobs"], second["truth_ratio"]) == ([-3.0], pytest.approx(math.exp(-2)))
    assert third == {}


def test_the_likeliest_of_a_questions_own_options_is_forced() -> None:
    first = np.full((3, 20), -5.0)
    first[0, [10, 11, 12, 13]] = -4, -3, -1, -2
    first[1, [10, 11, 12, 13]] = -4, -3, -1, -2
    choice = {"task": "classification", "fact": None}
    questions = [
        asked("four", answer="C", options=("p", "q", "r", "s"), **choice),
        asked("two", answer="A", options=("p", "q"), **choice), asked("open"),
    ]  # fmt: skip
    rows: list[dict[str, Any]] = [{}, {}, {}]
    session()._options(SimpleNamespace(first=first), lambda _: [], questions, rows)  # type: ignore[arg-type]
    assert rows == [
        {"option_logprobs": [-4, -3, -1, -2], "forced": "C", "forced_correct": True},
        {"option_logprobs": [-4, -3], "forced": "B", "forced_correct": False}, {},
    ]  # fmt: skip


@pytest.mark.parametrize(("output", "ended"), [("two words", True), ("now three words", False)])
def test_an_output_as_long_as_the_limit_has_not_ended(output: str, ended: bool) -> None:
    row = session(max_new_tokens=3)._row(asked("a"), output, {}, None)
    assert (row["ended"], row["fluent"], row["gibberish"]) == (ended, ended, not ended)


def test_the_floor_is_the_lower_one_of_answers_and_refusals() -> None:
    log = pd.DataFrame({
        "reference_logprob": [*np.linspace(-1, 0, 1001), *np.linspace(-3, -2, 11), None],
        "refusal": [False] * 1001 + [True] * 11 + [True],
    })  # fmt: skip
    assert reference_floor(log) == pytest.approx(-2.99)
    assert reference_floor(log[~log["refusal"]]) == pytest.approx(-0.99)
    assert reference_floor(log.assign(refusal=~log["refusal"])) == pytest.approx(-2.99)
