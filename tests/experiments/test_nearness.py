"""Distances to a model that never knew the people."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from eraser_lib.experiments.nearness import nearness

PEOPLE = [f"p{number}" for number in range(12)]
SHARES = {"retain_only": 0.2, "vanilla": 0.9, "silent": 0.0, "near": 0.2}


def log(
    method: str, probability: float, *, seed: int = 0, ratio: float = 1.0, people: list[str] = PEOPLE
) -> pd.DataFrame:
    """Four open questions about each person in either modality, whose truth ratios spread around one number."""
    rows = [
        {
            "id": f"{person}-{modality}-{number}", "person": person, "modality": modality, "task": "generation",
            "subset": "test", "method": method, "seed": seed, "answer_prob": probability,
            "truth_ratio": ratio * (1 + number / 10),
        }
        for person, modality, number in product(people, ("vqa", "qa"), range(4))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_to_know_too_little_is_as_far_as_to_know_too_much() -> None:
    logs = pd.concat([log(method, share) for method, share in SHARES.items()])
    table = nearness(logs).set_index("method")
    assert list(table.index) == ["near", "silent", "vanilla"], "nearest first, and the reference has no row"
    assert table["excess"].to_dict() == pytest.approx({"near": 0.0, "silent": -0.2, "vanilla": 0.7})
    assert table["apart"].to_dict() == pytest.approx({"near": 0.0, "silent": 0.2, "vanilla": 0.7})


def test_differences_to_both_sides_do_not_cancel_in_what_is_apart() -> None:
    mixed = log("mixed", 0.2)
    mixed["answer_prob"] += np.where(np.arange(len(mixed)) % 2, 0.1, -0.1)
    row = nearness(pd.concat([log("retain_only", 0.2), mixed])).iloc[0]
    assert row["excess"] == pytest.approx(0.0, abs=1e-12) and row["apart"] == pytest.approx(0.1)


def test_truth_ratios_that_lie_elsewhere_are_told_from_chance_and_infinite_ones_count() -> None:
    far = log("far", 0.2, ratio=9.0)
    far.loc[0, "truth_ratio"] = np.inf
    table = nearness(pd.concat([log("retain_only", 0.2), log("near", 0.2), far])).set_index("method")
    for modality in ("vqa", "qa"):
        assert table[f"ks_{modality}"].to_dict() == pytest.approx({"near": 0.0, "far": 1.0})
        assert table[f"p_{modality}"]["near"] == 1.0 and table[f"p_{modality}"]["far"] < 0.01
        assert table[f"p_holm_{modality}"]["far"] == pytest.approx(2 * table[f"p_{modality}"]["far"])


def test_another_model_that_never_knew_them_is_a_row_and_no_member_of_the_family() -> None:
    logs = pd.concat([log("retain_only", 0.2), log("retain_only", 0.3, seed=1), log("vanilla", 0.9, ratio=9.0)])
    table = nearness(logs).set_index("method")
    assert table.loc["retain_only", "excess"] == pytest.approx(0.1) and pd.isna(table.loc["retain_only", "p_holm_qa"])
    assert table.loc["vanilla", "p_holm_qa"] == table.loc["vanilla", "p_qa"], "one method, nothing to correct for"


def test_seeds_of_a_training_are_one_row_and_few_people_prove_nothing() -> None:
    logs = pd.concat(
        [
            log("retain_only", 0.2, people=PEOPLE[:9]),
            *(log("npo", share, seed=seed, people=PEOPLE[:9]) for seed, share in enumerate((0.1, 0.5))),
        ]
    )
    row = nearness(logs).iloc[0]
    assert row["excess"] == pytest.approx(0.1) and row["apart"] == pytest.approx(0.2)
    assert row["p_vqa"] is None or pd.isna(row["p_vqa"])


def test_without_a_model_that_never_knew_them_there_is_nothing_to_be_near_to() -> None:
    assert nearness(log("vanilla", 0.9)).empty
    unasked = pd.concat([log("retain_only", 0.2), log("constant", 0.2).assign(truth_ratio=np.nan)])
    row = nearness(unasked).iloc[0]
    assert row["apart"] == pytest.approx(0.0) and pd.isna(row["ks_vqa"])
