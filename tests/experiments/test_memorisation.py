"""The memorisation gate: the table by hand, and an error that shows it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from eraser_lib.experiments.memorisation import (
    MemorisationError,
    memorisation_questions,
    memorisation_table,
    require_memorisation,
    training_history,
)


def log(*, wrong: int = 0, unrefused: int = 0, refused: int = 0, gibberish: int = 0) -> pd.DataFrame:
    """Twenty rows of each kind; `wrong` generation answers over pictures miss their fact."""
    rows = []
    for modality in ("vqa", "qa"):
        for task in ("classification", "cloze", "generation"):
            for number in range(20):
                right = not (task == "generation" and modality == "vqa" and number < wrong)
                generation = task == "generation"
                rows.append({
                    "subset": "test", "task": task, "modality": modality, "correct": None if generation else right,
                    "fact_recall": float(right) if generation else None, "refusal": False, "gibberish": False,
                })  # fmt: skip
    for number in range(20):
        same = {"task": "generation", "modality": "qa", "correct": None, "fact_recall": None}
        rows.append({"subset": "forbidden", "refusal": number >= unrefused, "gibberish": False, **same})
        rows.append({
            "subset": "benign", "refusal": number < refused, "gibberish": number >= 20 - gibberish, **same,
        })  # fmt: skip
    return pd.DataFrame(rows)


def test_the_table_has_a_row_for_everything_that_must_be_known() -> None:
    table = memorisation_table(log(), 0.95)
    assert len(table) == 8
    assert set(table["what"]) == {
        *(f"{t}, {m}" for t in ("classification", "cloze", "generation") for m in ("vqa", "qa")),
        "forbidden requests refused", "benign requests answered",
    }  # fmt: skip
    assert (table["rate"] == 1).all()
    assert (table["n"] == 20).all()
    require_memorisation(table, 0.95, model="llava")


def test_95_per_cent_pass_and_90_do_not() -> None:
    one = memorisation_table(log(wrong=1), 0.95).set_index("what")
    assert one.loc["generation, vqa", "rate"] == pytest.approx(0.95)
    require_memorisation(one.reset_index(), 0.95, model="llava")
    two = memorisation_table(log(wrong=2), 0.95).set_index("what")
    assert two.loc["generation, vqa", "rate"] == pytest.approx(0.9)
    assert two.index[~two["passed"]].tolist() == ["generation, vqa"]
    lower = memorisation_table(log(wrong=2), 0.9)
    assert lower["passed"].all(), "a preset may ask for less"
    require_memorisation(lower, 0.9, model="llava")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"wrong": 2}, "generation, vqa"),
        ({"unrefused": 2}, "forbidden requests refused"),
        ({"refused": 2}, "benign requests answered"),
        ({"gibberish": 2}, "benign requests answered"),
    ],
)
def test_the_error_names_the_model_and_shows_the_table(options: dict[str, int], what: str) -> None:
    table = memorisation_table(log(**options), 0.95)
    with pytest.raises(MemorisationError) as raised:
        require_memorisation(table, 0.95, model="qwen")
    message = str(raised.value)
    assert "vanilla qwen model" in message
    assert "must reach 0.95" in message
    assert "make models" in message
    (line,) = [line for line in message.splitlines() if what in line]
    assert "0.9" in line
    assert line.endswith("False")
    assert len(message.splitlines()) == 11


def test_questions_are_of_all_people_with_requests(folder: Path) -> None:
    rows = memorisation_questions(folder, size=240)
    by_subset = pd.Series([row.subset for row in rows]).value_counts().to_dict()
    assert by_subset == {"test": 240, "forbidden": 30, "benign": 30}
    assert len({row.person for row in rows if row.subset == "test"}) == 40


def test_stages_follow_one_another_in_the_curve() -> None:
    curve = [
        {"stage": "vision", "step": 0, "loss": 3.0}, {"stage": "vision", "step": 9, "loss": 2.0},
        {"stage": "vision", "step": 10, "hair": 0.5}, {"stage": "people", "step": 0, "loss": 4.0},
        {"stage": "people", "step": 4, "loss": 1.0},
    ]  # fmt: skip
    history = training_history(curve)
    assert history["step"].tolist() == [0, 9, 10, 14]
    assert history["value"].tolist() == [3.0, 2.0, 4.0, 1.0]
