"""Guessing who was erased: one number per person and signal, against strangers and retained people."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eraser_lib.experiments.exposure import exposures


def rows(method: str, subset: str, shares: list[float], **columns: float) -> list[dict[str, object]]:
    """Four questions about each person, of whom a share is refused."""
    return [
        {
            "method": method, "seed": 0, "subset": subset, "person": f"{subset}{number}",
            "modality": "qa", "task": "cloze",
            "refusal": question < 4 * share,
            "gibberish": False, "answer_prob": 0.2, "opened": None, "gate_value": None, **columns,
        }
        for number, share in enumerate(shares) for question in range(4)
    ]  # fmt: skip


def found(*parts: list[dict[str, object]]) -> pd.DataFrame:
    logs = pd.DataFrame([row for part in parts for row in part])
    return exposures(logs).set_index(["method", "signal", "against"])


def test_refusing_the_erased_and_nobody_else_gives_them_away() -> None:
    table = found(
        rows("mllmeraser", "test", [1.0, 0.75], opened=1.0, gate_value=2.0),
        rows("mllmeraser", "stranger", [0.0, 0.75, 0.25], opened=0.0, gate_value=2.0),
        rows("retain_only", "test", [0.0, 0.0]), rows("retain_only", "stranger", [0.0, 0.0, 0.0]),
    )  # fmt: skip
    own = table.loc["mllmeraser"]
    assert own.loc[("refusals", "stranger"), "auc"] == pytest.approx((3 + 2.5) / 6), "a tie counts half"
    assert own.loc[("second prefill", "stranger"), "auc"] == 1
    assert own.loc[("gate value", "stranger"), "auc"] == 0.5
    assert own.loc[("refusals", "stranger"), ["erased", "others"]].tolist() == [2, 3]
    assert table.loc[("retain_only", "refusals", "stranger"), "auc"] == 0.5
    seen = {"refusals", "gibberish", "silence about the fact"}
    assert set(table.loc["retain_only"].index.get_level_values("signal")) == seen


def test_knowing_less_than_a_stranger_would_gives_away_as_well() -> None:
    low, high = {"answer_prob": 0.01}, {"answer_prob": 0.9}
    table = found(
        rows("ga", "test", [0.0], **low), rows("ga", "stranger", [0.0]), rows("ga", "retain", [0.0], **low),
        rows("vanilla", "test", [0.0], **high), rows("vanilla", "stranger", [0.0]),
    )  # fmt: skip
    assert table.loc[("ga", "silence about the fact", "stranger"), "auc"] == 1
    assert table.loc[("vanilla", "silence about the fact", "stranger"), "auc"] == 0, "known is the opposite of silent"


def test_babble_about_the_erased_gives_them_away() -> None:
    table = found(rows("rmu", "test", [0.0, 0.0], gibberish=True), rows("rmu", "stranger", [0.0]))
    assert table.loc[("rmu", "gibberish", "stranger"), "auc"] == 1
    assert table.loc[("rmu", "refusals", "stranger"), "auc"] == 0.5


def test_trainings_are_seen_one_by_one_and_other_methods_have_no_gate() -> None:
    later = [row | {"seed": 1, "refusal": True} for row in rows("npo", "test", [0.0])]
    strangers = rows("npo", "stranger", [0.0], opened=0.0)
    table = found(
        rows("npo", "test", [0.0], opened=1.0), later, strangers, [row | {"seed": 1} for row in strangers],
        [row | {"seed": 2} for row in strangers],
    )  # fmt: skip
    row = table.loc[("npo", "refusals", "stranger")]
    assert row[["least", "auc", "most"]].tolist() == [0.5, 0.75, 1.0], "the third has no erased people"
    assert row[["auc_low", "auc_high"]].tolist() == [0.5, 1.0] and row[["erased", "others"]].tolist() == [1, 1]
    assert "second prefill" not in table.index.get_level_values("signal")


@pytest.mark.parametrize("signal", ["refusals", "gate value"])
def test_more_questions_tell_nothing_by_themselves(signal: str) -> None:
    """Everybody is treated alike; about the erased six times as many questions were asked."""
    generator = np.random.default_rng(0)

    def asked(subset: str, people: int, questions: int) -> list[dict[str, object]]:
        return [
            row | {"refusal": bool(generator.random() < 0.05), "gate_value": float(generator.normal())}
            for row in rows("mllmeraser", subset, [0.0] * people) * questions
        ]

    table = found(asked("test", 60, 9), asked("stranger", 120, 1))
    row = table.loc[("mllmeraser", signal, "stranger")]
    assert row["auc"] == pytest.approx(0.5, abs=0.08) and row["auc_low"] < 0.5 < row["auc_high"]
    assert row["questions"] == 4
    again = found(asked("test", 120, 1), asked("stranger", 60, 9)).loc[("mllmeraser", signal, "stranger")]
    assert again["auc"] == pytest.approx(0.5, abs=0.08)


def test_where_there_are_no_strangers_retained_people_are_shown() -> None:
    table = exposures(pd.DataFrame(rows("npo", "test", [1.0]) + rows("npo", "retain", [0.0])))
    assert set(table["against"]) == {"retain"}
    both = exposures(
        pd.DataFrame(rows("npo", "test", [1.0]) + rows("npo", "retain", [0.0]) + rows("npo", "stranger", [0.0]))
    )
    assert set(both["against"]) == {"stranger"}
