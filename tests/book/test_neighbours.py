"""The sentences about what the searches did not look at, and about their luck, are those of the committed notes."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from book_fixtures import REPOSITORY

from eraser_lib.baselines.ga_diff import GADiff
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


def test_what_the_searches_passed_by_is_within_chance(pairs: dict) -> None:
    text = paragraph("What the other searches passed by is within chance.")
    assert set(pairs) == {("llava", "undial"), ("qwen", "undial"), ("qwen", "rmu")}
    assert all(best["score"] < chosen["score"] + CHANCE for chosen, best in pairs.values())
    chosen, best = pairs["qwen", "undial"]
    assert best["score"] > chosen["score"], "it would have been taken"
    assert f"{short(best['score'], 3)} for {short(chosen['score'], 3)}" in text
    assert f"{short(best['kept_prob'])} kept for {short(chosen['kept_prob'])}" in text
    for key in (("llava", "undial"), ("qwen", "rmu")):
        chosen, best = pairs[key]
        assert best["score"] <= chosen["score"] + 1e-3, "nothing better"


def test_searches_at_every_rate_left_their_first_ones_behind() -> None:
    text = paragraph("Gradient difference and KL minimisation are therefore followed")
    first = {("llava", "ga_diff"): (str(GADiff(2.0)), 3e-4), ("qwen", "ga_diff"): (str(GADiff(1.0)), 1e-4),
             ("llava", "kl_min"): (str(KLMin(2.0)), 3e-4), ("qwen", "kl_min"): (str(KLMin(2.0)), 1e-4)}  # fmt: skip
    assert {method for _, method in first} == set(AT_EVERY_RATE)
    for (model, method), (settings, rate) in first.items():
        tuned = rows(model, f"tuning-{method}", "rows")
        old = tuned[(tuned["settings"] == settings) & (tuned["lr"] == rate)]["score"].max()
        assert short(old) in text and short(tuned["score"].max()) in text


def test_what_another_draw_did_is_what_the_page_says() -> None:
    text = paragraph("One training says little to two digits")
    fractions = {"qwen": ("ga_diff", 2 / 3, "two answers in three", 1 / 10, "one in ten was"),
                 "llava": ("kl_min", 1 / 6, "one answer in six", 0, "none was")}  # fmt: skip
    for model, (method, now, said, before, was) in fractions.items():
        drawn, tuned = (rows(model, note, key) for note, key in (("longer", "looks"), (f"tuning-{method}", "rows")))
        first = drawn[(drawn["method"] == method) & (drawn["passes"] == 1)].iloc[0]
        assert abs(first["gibberish"] - now) < 0.02 and said in text
        assert abs(tuned.iloc[0]["gibberish"] - before) < 0.01 and was in text
        kept = rows(model, "trade", "rows").set_index("method")["kept"]
        assert f"kept {short(tuned.iloc[0]['kept_prob'])}" in text and f"keeps {short(kept[method])}" in text
    for method, fits in (("ga_diff", [18, 16]), ("kl_min", [22, 20])):
        tried = (rows(model, f"tuning-{method}", "rows")[["settings", "lr"]] for model in MODELS)
        assert [len(one.drop_duplicates()) for one in tried] == fits
    assert "of eighteen and sixteen with gradient difference, of twenty-two and twenty with KL" in text


@pytest.mark.parametrize("model", MODELS)
def test_another_draw_changes_a_score_by_what_the_page_says(model: str) -> None:
    text = paragraph("One training says little to two digits")
    again = rows(model, "longer", "rows").set_index("method")["score"]
    assert set(AT_EVERY_RATE) <= set(again.index)
    for method, score in again.items():
        before = rows(model, f"tuning-{method}", "rows")["score"].max()
        if method == "ga_diff":
            assert f"{short(score)} for {short(before)}" in text
        else:
            assert abs(score - before) < CHANCE + 0.005


@pytest.mark.parametrize("model", MODELS)
def test_more_passes_of_what_climbs_give_what_the_page_says(model: str) -> None:
    text = paragraph("More passes help few, and not to speak.")
    looks = rows(model, "longer", "looks")
    last = looks[(looks["method"] == "kl_min") & (looks["passes"] == 2)].iloc[0]
    assert short(last["gibberish"]) in text.partition("KL minimisation")[2]
    gained = rows(model, "longer", "rows").set_index("method")["gain"]
    assert gained["kl_min"] == 0 and short(gained["ga_diff"]) in text
