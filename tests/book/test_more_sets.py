"""The numbers in the prose about the four further forget sets are those of the tables above it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from book_fixtures import REPOSITORY
from results_reader import Results
from test_speaking import WRITTEN

from eraser_lib.study.matrix import TRAINED

TINY = Results(REPOSITORY / "results" / "tiny")
DETECTOR, PICTURES = "**The detector leaves", "**MMUnlearner is to be read on pictures"
PARTS = {"llava": ("On LLaVA-1.5", "On Qwen2.5-VL no"), "qwen": ("On Qwen2.5-VL no", DETECTOR)}
"""Model -> where its paragraph begins, and the next."""
NAMES = WRITTEN | {
    "idk": "IdkNLL", "manu": "MANU", "detector": "detector|[Ii]t leaves|it leaves", "constant": "constant steering",
    "mllmeraser_quadratic": "quadratic gate", "mllmeraser_published": "published form",
}  # fmt: skip
"""Method -> how the prose calls it."""


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
def test_a_number_of_a_paragraph_is_one_of_the_methods_that_its_sentence_names(model: str) -> None:
    """Or of the gate, which all are compared with; the last paragraph speaks of both models."""
    page = (REPOSITORY / "book" / "comparison.md").read_text(encoding="utf-8")
    text = page.partition("**What forty people settle.")[2].partition(PICTURES)[0]
    begin, end = (text.index(mark) for mark in PARTS[model])
    both, other = text[text.index(DETECTOR) :], next(name for name in PARTS if name != model)
    read = 0
    named: set[str] = set()
    for paragraph, models in ((text[begin:end], [model]), (both, [model, other])):
        for sentence in re.split(r"\.(?:\*\*)?\s+", paragraph):
            goes_on = re.match("They|All of them|What either", sentence)  # about those of the sentence before
            spoken = {name for name, written in NAMES.items() if re.search(written, sentence)}
            named = spoken | {"mllmeraser"} | (named if goes_on else set())
            values = [value for name in models for value in numbers(name, named)]
            for number in re.findall(r"(?<![\d.])\.\d+\b", sentence):
                room = 0.5001 * 10 ** -(len(number) - 1)
                assert any(abs(float(number) - value) <= room for value in values), f"{number} in: {sentence}"
                read += 1
    assert read > 12


def numbers(model: str, named: set[str]) -> list[float]:
    """What these methods leave, take from others and babble, and the p-values of their differences from the gate."""
    trade, tests = tables(model)
    known = trade["vanilla"]["kept"]
    values = [
        value
        for name in named & set(trade)
        for row in [trade[name]]
        for value in (row["gone"], known - row["kept"], row["gibberish"], trade["mllmeraser"]["kept"] - row["kept"])
    ]
    values += [row[name] for row in tests if row["baseline"] in named for name in ("p_value", "p_holm")]
    if "detector" in named:  # before the trainings joined the family
        tests = TINY.figure_data(model, "pooled_tests", "rows")
        values += [row["p_holm"] for row in tests if row["baseline"] == "detector"]
    return values


def test_what_is_said_of_pictures_alone_is_in_the_tables_by_modality() -> None:
    page = (REPOSITORY / "book" / "comparison.md").read_text(encoding="utf-8")
    text = page.partition(PICTURES)[2].partition("These intervals take people")[0]
    for model, (name, share, p_value) in {
        "llava": ("LLaVA-1.5", (0.4, 0.5), "p < .001"), "qwen": ("Qwen2.5-VL", (1 / 3, 0.4), "p = .43")
    }.items():  # fmt: skip
        rows = {(row["modality"], row["method"]): row for row in TINY.figure_data(model, "refitted", "modalities")}
        (test,) = (row for row in TINY.figure_data(model, "refitted", "pictures") if row["about"] == "test")
        assert test["p_value"] < 0.001 if "<" in p_value else f"{test['p_value']:.2f}" == "0.43"
        gone = [f"{rows['vqa', method]['gone']:.2f}"[1:] for method in ("mmunlearner", "mllmeraser")]
        assert f"on {name} ({gone[0]} for {gone[1]}, {p_value})" in text
        low, high = share
        assert low < rows["vqa", "vanilla"]["kept"] - rows["vqa", "mmunlearner"]["kept"] < high
        assert (
            f"{rows['qa', 'mllmeraser']['gone']:.2f}"[1:] in text.partition("without one the corrected form leaves")[2]
        )
