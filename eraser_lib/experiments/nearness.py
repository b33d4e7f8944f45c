"""How far is each method from a model that never knew the people? To either side: too little left is told apart too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from eraser_lib.evaluate.separation import ks_interval_over_seeds, ks_swap_test
from eraser_lib.evaluate.stats import bootstrap_mean_over_seeds, holm

REFERENCE = "retain_only"
MODALITIES = ("vqa", "qa")


def nearness(logs: pd.DataFrame) -> pd.DataFrame:
    """Distances to retain-only on forgotten people's unseen prompts; `logs` of one model and split.

    The reference is the first of the retain-only models; the others, where there are any, have a row, which is how far
    apart two models are that never knew the people.

    Returns:
        Columns `method`; `excess`, probability of the right answer above the reference's, and `apart`, the mean size of
        that difference, all tasks, each with `_low` and `_high` (95 %, over people and seeds); for each modality `ks`,
        the distance of truth ratios of open answers with `_low` and `_high`, its `p` by swapping the two models' labels
        within people, of the first seed, and `p_holm`, corrected over the methods. Nearest first. Missing where nothing
        was measured; empty without a retain-only model.
    """
    test = logs[logs["subset"] == "test"]
    reference = test[test["method"] == REFERENCE]
    if reference.empty:
        return pd.DataFrame()
    first = reference["seed"].min()
    known = reference[reference["seed"] == first]
    others = test[(test["method"] != REFERENCE) | (test["seed"] != first)]
    rows = [{"method": str(method), **_row(own, known)} for method, own in others.groupby("method", sort=False)]
    table = pd.DataFrame(rows)
    for modality in MODALITIES:
        p_values = {
            row["method"]: float(row[f"p_{modality}"])
            for row in rows
            if row["method"] != REFERENCE and row[f"p_{modality}"] is not None
        }
        table[f"p_holm_{modality}"] = table["method"].map(holm(p_values))
    return table.sort_values("apart", kind="stable", ignore_index=True)


def _row(own: pd.DataFrame, known: pd.DataFrame) -> dict[str, Any]:
    probabilities = list(_paired(own, known, "answer_prob"))
    people = [pair["person"].tolist() for pair in probabilities]
    differences = [pair["mine"] - pair["theirs"] for pair in probabilities]
    row: dict[str, Any] = {}
    for name, values in (("excess", differences), ("apart", [one.abs() for one in differences])):
        found = bootstrap_mean_over_seeds(values, people)
        row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    for modality in MODALITIES:
        asked = known[(known["modality"] == modality) & known["truth_ratio"].notna()]
        pairs = list(_paired(own[own["truth_ratio"].notna()], asked, "truth_ratio"))
        row |= _ks(pairs, modality)
    return row


def _ks(pairs: list[pd.DataFrame], modality: str) -> dict[str, float | None]:
    """Truth ratios are compared as R / (1 + R), which keeps their order and is finite."""
    names = [f"ks_{modality}", f"ks_{modality}_low", f"ks_{modality}_high", f"p_{modality}"]
    if not pairs:
        return dict.fromkeys(names)
    for pair in pairs:
        pair[["mine", "theirs"]] = 1.0 - 1.0 / (1.0 + pair[["mine", "theirs"]])
    people = [pair["person"].tolist() for pair in pairs]
    found = ks_interval_over_seeds([pair["mine"] for pair in pairs], people, pairs[0]["theirs"], people[0])
    p_value = ks_swap_test(pairs[0]["mine"], pairs[0]["theirs"], people[0])
    return dict(zip(names, (found.value, found.low, found.high, p_value), strict=True))


def _paired(own: pd.DataFrame, known: pd.DataFrame, column: str) -> Iterator[pd.DataFrame]:
    """For each seed, in order, `person, mine, theirs` of every question that both models were asked."""
    theirs = known[["id", "person", column]].rename(columns={column: "theirs"})
    for _, rows in own.groupby("seed", sort=True):
        pair = theirs.merge(rows[["id", column]].rename(columns={column: "mine"}), on="id", validate="one_to_one")
        if len(pair):
            yield pair.astype({"mine": float, "theirs": float})
