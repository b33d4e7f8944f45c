"""The numbers in the prose about the four further forget sets are those of the tables above it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from book_fixtures import REPOSITORY
from results_reader import Results

from eraser_lib.study.matrix import TRAINED

TINY = Results(REPOSITORY / "results" / "tiny")
PARTS = {"llava": ("On LLaVA-1.5", "On Qwen2.5-VL no"), "qwen": ("On Qwen2.5-VL no", "**The detector")}
"""Model -> where its paragraph begins, and the next."""


def tables(model: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What each method trades, by method, and the tests."""
    trade, tests = (TINY.figure_data(model, "refitted", key) for key in ("trade", "tests"))
    return {row["method"]: row for row in trade}, tests


@pytest.mark.parametrize("model", PARTS)
def test_every_method_but_prompting_was_fitted_on_the_sets(model: str) -> None:
    trade, tests = tables(model)
    steered = {"vanilla", "mllmeraser", "mllmeraser_quadratic", "mllmeraser_published", "constant", "leace", "detector"}
    assert set(trade) == steered | set(TRAINED) | {"manu"}
    for about, people in (("test", 40), ("retain", 58)):
        own = {row["baseline"]: row for row in tests if row["about"] == about}
        assert set(own) == set(trade) - {"mllmeraser", "mllmeraser_quadratic"}
        assert {row["n_people"] for row in own.values()} == {people}
        side = "gone" if about == "test" else "kept"
        for name, row in own.items():
            assert row["difference"] == pytest.approx(trade[name][side] - trade["mllmeraser"][side], abs=1e-3)


@pytest.mark.parametrize("model", PARTS)
def test_the_paragraph_of_a_model_has_no_other_numbers(model: str) -> None:
    text = (
        (REPOSITORY / "book" / "comparison.md").read_text(encoding="utf-8").partition("**What forty people settle.")[2]
    )
    begin, end = PARTS[model]
    text = text[text.index(begin) : text.index(end, text.index(begin) + 1)]
    trade, tests = tables(model)
    known = trade["vanilla"]["kept"]
    values = [value for row in trade.values() for value in (row["gone"], known - row["kept"], row["gibberish"])]
    values += [row[name] for row in tests for name in ("p_value", "p_holm")]
    numbers = re.findall(r"(?<![\d.])\.\d+\b", text)
    assert len(numbers) > 8
    for number in numbers:
        digits = len(number) - 1
        assert any(abs(float(number) - value) <= 0.5001 * 10**-digits for value in values), f"{number} in: {text}"
