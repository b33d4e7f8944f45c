"""The sentences about what the searches did not look at are those of the committed notes."""

from __future__ import annotations

import json

import pandas as pd
from book_fixtures import REPOSITORY

PAGE = " ".join((REPOSITORY / "book" / "comparison.md").read_text(encoding="utf-8").split())
CHANCE = 0.03
"""By how much scores of one setting have differed with nothing but other retain rows drawn."""


def rows(model: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads((REPOSITORY / f"results/tiny/figures/{model}/neighbours.json").read_text())["rows"])


def test_one_search_missed_a_better_neighbour_beyond_chance_and_the_page_says_which() -> None:
    missed, searches = [], 0
    for model in ("llava", "qwen"):
        for method, own in rows(model).groupby("method", sort=False):
            searches += 1
            chosen, beside = own[own["chosen"]].iloc[0], own[~own["chosen"]]
            if beside["score"].max() > chosen["score"] + CHANCE:
                best = beside.loc[beside["score"].idxmax()]
                missed.append((model, method))
                for before, after in ((chosen["score"], best["score"]), (chosen["kept_prob"], best["kept_prob"])):
                    assert f"{before:.2f}"[1:] in PAGE and f"{after:.2f}"[1:] in PAGE
                assert f"{best['score']:.2f}"[1:] == ".93" and f"{best['kept_prob']:.2f}"[1:] == ".85"
    assert missed == [("llava", "ga_diff")] and searches == 6
    assert "**Gradient difference on LLaVA-1.5 stands in the tables with a weight that is too small.**" in PAGE
    assert "in six of the sixteen searches" in PAGE
