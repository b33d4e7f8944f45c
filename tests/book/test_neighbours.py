"""The sentences about what the searches did not look at are those of the committed notes."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from book_fixtures import REPOSITORY

from eraser_lib.baselines.ga_diff import GADiff

PAGE = (REPOSITORY / "book" / "comparison.md").read_text(encoding="utf-8")
TEXT = PAGE.partition("**Gradient difference stands in the tables far below what it can do.**")[2].partition("\n\n")[0]
CHANCE = 0.03
"""By how much scores of one setting have differed with nothing but other retain rows drawn."""
BEYOND = {("llava", "ga_diff"), ("qwen", "ga_diff"), ("qwen", "kl_min")}
MODELS = ("llava", "qwen")


def rows(model: str, key: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads((REPOSITORY / f"results/tiny/figures/{model}/neighbours.json").read_text())[key])


@pytest.fixture(scope="module")
def pairs() -> dict[tuple[str, str], tuple[pd.Series, pd.Series]]:
    """(model, method) -> the choice, and the best beside it."""
    found = {}
    for model in MODELS:
        for method, own in rows(model, "best").groupby("method"):
            (_, chosen), (_, best) = own.iterrows()
            assert chosen["chosen"] and not best["chosen"]
            found[model, str(method)] = (chosen, best)
    return found


def short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def test_the_page_names_the_searches_that_missed_more_than_chance(pairs: dict) -> None:
    assert {name for name, (chosen, best) in pairs.items() if best["score"] > chosen["score"] + CHANCE} == BEYOND
    for names, column in (("score", "score"), ("kept", "kept_prob"), ("left", "forget_prob")):
        for key in sorted(BEYOND):
            chosen, best = (short(row[column]) for row in pairs[key])
            assert chosen in TEXT and best in TEXT, f"{names} of {key}: {chosen}, {best}"
    for key in (("llava", "kl_min"), ("qwen", "undial")):
        chosen, best = (f"{row['score']:.3f}".removeprefix("0") for row in pairs[key])
        assert f"{best} for {chosen}" in TEXT and best > chosen, "it would have been taken"
    for model, method in (("llava", "undial"), ("qwen", "rmu")):
        chosen, best = pairs[model, method]
        assert best["score"] <= chosen["score"] + 1e-3, "nothing better"
    assert len(pairs) == 7


@pytest.mark.parametrize("model", MODELS)
def test_gibberish_is_what_the_page_says(model: str, pairs: dict) -> None:
    assert 0.08 < pairs[model, "ga_diff"][1]["gibberish"] < 0.12, "a tenth"
    chosen, best = (row["gibberish"] for row in pairs[model, "kl_min"])
    low, high = sorted((chosen, best))
    assert abs(low - 1 / 40) < 0.005
    assert abs(high - (1 / 6 if model == "qwen" else 1 / 4)) < 0.025
    before, after = pairs[model, "ga_diff"]
    weight = {"llava": 8.0, "qwen": 4.0}[model]
    assert (after["settings"], after["lr"]) == (str(GADiff(weight)), 3e-4)
    assert before["settings"] == str(GADiff(weight / 4)), "four times the weight"
