"""From whom gates and detectors tell the forgotten: on a log small enough to count by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from eraser_lib.experiments.groups import told_apart

VALUES = {
    "test": [3.0, 1.0], "retain": [2.0, 0.0], "celebrity": [0.5, 0.5], "stranger": [4.0], "general": [0.0],
    "forbidden": [9.0],
}  # fmt: skip


def log(method: str = "mllmeraser") -> pd.DataFrame:
    rows = [
        {"method": method, "subset": subset, "id": f"{subset}{i}", "gate_value": value, "opened": value > 1.5,
         "person": None if subset == "general" else f"{subset}{i}"}
        for subset, values in VALUES.items() for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_ranking_and_openings_are_counted_by_group() -> None:
    unasked = log("vanilla").assign(gate_value=None)
    found = told_apart(pd.concat([log(), log("detector"), unasked])).set_index(["method", "others"])
    assert list(dict.fromkeys(found.index.get_level_values("method"))) == ["mllmeraser", "detector"]
    own = found.loc["mllmeraser"]
    # of the four pairs with retained people 3 > 2, 3 > 0 and 1 > 0
    assert own["auc"].to_dict() == pytest.approx({"retain": 0.75, "celebrity": 1.0, "outside": 0.5})
    assert own["opened"].to_dict() == pytest.approx({"retain": 0.5, "celebrity": 0.0, "outside": 0.5})
    assert own["n"].to_dict() == {"retain": 2, "celebrity": 2, "outside": 2}, "forbidden requests are in no group"
    assert ((own["auc_low"] <= own["auc"]) & (own["auc"] <= own["auc_high"])).all()


def test_a_group_that_was_not_asked_is_left_out() -> None:
    own = log()
    assert list(told_apart(own[own["subset"].isin(["test", "retain"])])["others"]) == ["retain"]
    assert told_apart(own[own["subset"] == "test"]).empty
