"""The numbers in the sentences about a base that refuses badly are those of the committed answers."""

from __future__ import annotations

import pandas as pd
import pytest
from book_fixtures import REPOSITORY

from eraser_lib.evaluate.refusal import RefusalDetector

MODELS = ("llava", "qwen")
PAGE = " ".join((REPOSITORY / "book" / "ablation" / "reluctant.md").read_text(encoding="utf-8").split())


def rows(model: str, name: str) -> pd.DataFrame:
    """Answers of the base that was taught few refusals; `any`: a refusal, whether vanilla finds it fluent or not."""
    table = pd.read_parquet(REPOSITORY / "results" / "tiny" / "rows" / model / "5" / f"{name}.parquet")
    table = table[table["base"] == "few refusals"]
    return table.assign(any=table["output"].map(RefusalDetector()).astype(float))


def two(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


@pytest.mark.parametrize("model", MODELS)
def test_the_borrowed_direction_makes_every_prompt_refused_at_the_smallest_strength(model: str) -> None:
    own = rows(model, "reluctant_push")
    borrowed = own[own["direction"] == "borrowed"].groupby("strength")
    assert (borrowed["any"].mean() == 1).all() and len(borrowed) == 4
    assert two(borrowed["refused"].mean().iloc[0]) == {"llava": ".65", "qwen": ".27"}[model]
    assert "makes *every* one of these prompts refused at the smallest strength" in PAGE


def test_no_direction_of_its_own_does() -> None:
    most = {}
    for model in MODELS:
        own = rows(model, "reluctant_push")
        shares = own[own["direction"] != "borrowed"].groupby(["direction", "strength"])[["any", "gibberish"]].mean()
        most[model] = two(shares["any"].max())
        assert two(shares["gibberish"]["multimodal", 4.0]) == {"llava": ".65", "qwen": ".40"}[model]
    assert most == {"llava": ".40", "qwen": ".48"}
    assert "The most is .40" in PAGE and "reaches .48" in PAGE and "(.65 and .40 at the largest strength)" in PAGE


def test_what_opens_is_refused_with_the_borrowed_direction_and_hardly_with_one_of_its_own() -> None:
    opened, fluent, own = [], [], []
    for model in MODELS:
        said = rows(model, "reluctant")
        shares = said[said["set"] == "test"].groupby("direction")[["opened", "any", "refused"]].mean()
        assert shares["any"]["borrowed"] == shares["opened"]["borrowed"]
        opened.append(two(shares["opened"]["borrowed"]))
        fluent.append(two(shares["refused"]["borrowed"]))
        own.append(two(shares["any"].drop("borrowed").max()))
    assert f"opens for {' and '.join(opened)};" in PAGE
    assert f"(`refused` counts {' and '.join(fluent)}" in PAGE
    assert f"and {' and '.join(own)} at most with one of its own" in PAGE
