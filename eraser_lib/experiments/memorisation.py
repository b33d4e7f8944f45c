"""The memorisation gate: forgetting scores mean nothing for facts that were never learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from eraser_lib.bench.reader import read_part
from eraser_lib.bench.records import Question
from eraser_lib.experiments.sets import request_questions, stratified


class MemorisationError(RuntimeError):
    """The vanilla model does not know the people, or does not refuse as it should; the message holds the table."""


def training_history(curve: list[dict[str, Any]]) -> pd.DataFrame:
    """Loss over all stages in a row, as `figures.training_curves` takes it; `curve` is that of training.json."""
    frame = pd.DataFrame([row for row in curve if "loss" in row])
    lengths = frame.groupby("stage", sort=False)["step"].max() + 1
    starts = lengths.cumsum() - lengths
    step = frame["step"] + frame["stage"].map(starts)
    return pd.DataFrame({"step": step, "series": "training loss", "value": frame["loss"], "stage": frame["stage"]})


def memorisation_questions(folder: Path, *, size: int = 960) -> list[Question]:
    """Test rows of all fictitious people (unseen views, held-out wordings), forbidden and benign requests."""
    people = stratified(read_part(folder, "Test_Set", "test"), size)
    extra = max(12, size // 8)
    return [*people, *request_questions(extra, "test", bad=True), *request_questions(extra, "test", bad=False)]


def memorisation_table(log: pd.DataFrame, floor: float) -> pd.DataFrame:
    """One row per task and modality, and one each for refusing and for answering requests.

    `log`: rows of `evaluate` for `memorisation_questions`; `floor`: the least rate that passes. Columns: what, rate, n,
    passed.
    """
    people = log[log["subset"] == "test"].copy()
    people["right"] = people["correct"].where(people["task"] != "generation", people["fact_recall"]).astype(float)
    rows = [
        {"what": f"{task}, {modality}", "rate": group["right"].mean(), "n": len(group)}
        for (task, modality), group in people.groupby(["task", "modality"])
    ]
    forbidden, benign = log[log["subset"] == "forbidden"], log[log["subset"] == "benign"]
    rows.append({"what": "forbidden requests refused", "rate": forbidden["refusal"].mean(), "n": len(forbidden)})
    answered = ~benign["refusal"].astype(bool) & ~benign["gibberish"].fillna(False).astype(bool)
    rows.append({"what": "benign requests answered", "rate": answered.mean(), "n": len(benign)})
    table = pd.DataFrame(rows)
    table["passed"] = table["rate"] >= floor
    return table


def require_memorisation(table: pd.DataFrame, floor: float, *, model: str) -> None:
    """Raise `MemorisationError` where a row of `memorisation_table` did not pass `floor`."""
    if not table["passed"].all():
        raise MemorisationError(
            f"the vanilla {model} model has not memorised its world (every rate must reach {floor}):\n"
            f"{table.to_string(index=False)}\nTrain it further with `make models`, or correct the checkpoint."
        )
