"""The sentences about what the searches did not look at, and about their luck, are those of the committed notes."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from book_fixtures import REPOSITORY

from eraser_lib.baselines.kl_min import KLMin
from eraser_lib.experiments.trained import AT_EVERY_RATE

PAGE = (REPOSITORY / "book" / "comparison.md").read_text(encoding="utf-8")
MODELS = ("llava", "qwen")
CHANCE = 0.03
"""By how much scores of one setting have differed with nothing but other retain rows drawn, where nothing climbs."""


def paragraph(begin: str) -> str:
    return PAGE.partition(f"**{begin}")[2].partition("\n\n")[0]


def rows(model: str, note: str, key: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads((REPOSITORY / f"results/tiny/figures/{model}/{note}.json").read_text())[key])


@pytest.fixture(scope="module")
def pairs() -> dict[tuple[str, str], tuple[pd.Series, pd.Series]]:
    """(model, method) -> the choice, and the best beside it."""
    found = {}
    for model in MODELS:
        for method, own in rows(model, "neighbours", "best").groupby("method"):
            (_, chosen), (_, best) = own.iterrows()
            assert chosen["chosen"] and not best["chosen"]
            found[model, str(method)] = (chosen, best)
    return found


def short(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def test_the_page_names_the_searches_that_missed_more_than_chance(pairs: dict) -> None:
    text = paragraph("KL minimisation stands in the tables below what it can do.")
    beyond = [("llava", "kl_min"), ("qwen", "kl_min")]
    assert [name for name, (chosen, best) in pairs.items() if best["score"] > chosen["score"] + CHANCE] == beyond
    for key in beyond:
        for column in ("score", "kept_prob", "forget_prob"):
            chosen, best = (short(row[column]) for row in pairs[key])
            assert chosen in text and best in text, f"{column} of {key}: {chosen}, {best}"
        assert (pairs[key][1]["settings"], pairs[key][1]["lr"]) == (str(KLMin(8.0)), 3e-4)
    gains = [short(pairs[key][1]["score"] - pairs[key][0]["score"]) for key in beyond]
    assert f"{gains[0]} and {gains[1]} of the score in KL minimisation" in PAGE
    chosen, best = (short(row["score"], 3) for row in pairs["qwen", "undial"])
    assert f"{best} for {chosen}" in text and best > chosen, "it would have been taken"
    for model, method in (("llava", "undial"), ("qwen", "rmu")):
        chosen, best = pairs[model, method]
        assert best["score"] <= chosen["score"] + 1e-3, "nothing better"
    assert len(pairs) == 5 and not {method for _, method in pairs} & {"ga_diff"}


def test_gibberish_is_what_the_page_says(pairs: dict) -> None:
    before, after = ([row["gibberish"] for row in pairs[model, "kl_min"]] for model in MODELS)
    assert abs(before[0] - 1 / 4) < 0.025 and before[1] == 0, "a quarter, and none"
    assert abs(after[0] - 1 / 40) < 0.005 and abs(after[1] - 1 / 6) < 0.025, "a fortieth, and a sixth"


def test_a_search_on_every_rate_left_its_first_one_behind() -> None:
    assert AT_EVERY_RATE == ("ga_diff",)
    text = paragraph("Gradient difference is therefore followed")
    for model, first in (("llava", ("GADiff(lam=2.0)", 3e-4)), ("qwen", ("GADiff(lam=1.0)", 1e-4))):
        tuned = rows(model, "tuning-ga_diff", "rows")
        old = tuned[(tuned["settings"] == first[0]) & (tuned["lr"] == first[1])]["score"].max()
        assert short(old) in text and short(tuned["score"].max()) in text


def test_what_another_draw_did_on_qwen_is_what_the_page_says() -> None:
    text = paragraph("One training says little to two digits")
    drawn, tuned = (rows("qwen", note, key) for note, key in (("longer", "looks"), ("tuning-ga_diff", "rows")))
    first = drawn[(drawn["method"] == "ga_diff") & (drawn["passes"] == 1)].iloc[0]
    assert abs(first["gibberish"] - 2 / 3) < 0.02 and "two answers in three" in text
    assert abs(tuned.iloc[0]["gibberish"] - 1 / 10) < 0.01 and "one in ten was" in text
    tables = rows("qwen", "trade", "rows").set_index("method")["kept"]
    assert f"kept {short(tuned.iloc[0]['kept_prob'])} of others in its search" in text
    assert f"keeps {short(tables['ga_diff'])} in them" in text
    fits = [len(rows(model, "tuning-ga_diff", "rows")[["settings", "lr"]].drop_duplicates()) for model in MODELS]
    assert fits == [18, 16] and "of eighteen and sixteen there" in text


@pytest.mark.parametrize("model", MODELS)
def test_another_draw_changes_a_score_by_what_the_page_says(model: str) -> None:
    text = paragraph("One training says little to two digits")
    again = rows(model, "longer", "rows").set_index("method")["score"]
    for method, score in again.items():
        before = rows(model, f"tuning-{method}", "rows")["score"].max()
        if method in AT_EVERY_RATE:
            assert f"{short(score)} for {short(before)}" in text
        else:
            assert abs(score - before) < CHANCE + 0.005
