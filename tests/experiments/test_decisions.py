"""The push behind another decision: logs put together row by row, and a detector calibrated on the study's rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from eraser_lib.experiments import decisions
from eraser_lib.sites import HookSite


@dataclass
class Asked:
    id: str


@dataclass
class FakeStudy:
    """Answers every question with .5 and remembers what it was asked, and under what."""

    model: str = "llava"
    seed: int = 0
    vanilla: Any = None
    asked: list[str] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)

    def attach(self, eraser: Any) -> Any:
        self.thresholds.append(eraser)
        return None

    def fluency(self) -> dict[str, Any]:
        return {}

    def quick(self, questions: list[Asked], loaded: Any, **options: Any) -> pd.DataFrame:
        self.asked += [question.id for question in questions]
        return log([question.id for question in questions], 0.5)


class FakeEraser:
    def with_threshold(self, value: float) -> float:
        return value


def log(ids: list[str], prob: float, opened: list[bool] | None = None) -> pd.DataFrame:
    rows = pd.DataFrame({"id": ids, "subset": "test", "person": "a", "modality": "qa", "task": "cloze"})
    rows = rows.assign(answer_prob=prob, fact_recall=0.0, refusal=False, gibberish=False)
    return rows.assign(opened=opened if opened is not None else False)


def test_rows_come_from_where_the_decision_puts_them() -> None:
    ids = ["q0", "q1", "q2", "q3"]
    study, questions = FakeStudy(), [Asked(name) for name in ids]
    vanilla, erased = log(ids, 0.9), log(ids, 0.1, [True, True, False, False])
    opened = torch.tensor([True, False, True, False])
    arguments: Any = (study, questions, opened, vanilla, erased, FakeEraser())
    found = decisions.behind(*arguments)
    assert found["id"].tolist() == ids
    assert found["answer_prob"].tolist() == [0.1, 0.9, 0.5, 0.9]
    assert found["opened"].tolist() == opened.tolist() and set(found["model"]) == {"llava"}
    assert study.asked == ["q2"] and study.thresholds == [float("-inf")], "only what is new is asked, and it opens"
    assert decisions.shares(found) == {"test_opened": 0.5}


def test_the_decision_of_the_gate_asks_nothing_and_changes_nothing() -> None:
    ids = ["q0", "q1", "q2"]
    study, questions = FakeStudy(), [Asked(name) for name in ids]
    vanilla, erased = log(ids, 0.9), log(ids, 0.1, [True, False, True])
    sets: Any = {"test": questions[:2], "retain": questions[2:]}
    both = decisions.side_by_side(erased, sets, {"test": torch.tensor([False, True])})
    assert both["detector"].tolist() == [False, True, False], "what it has not seen stays closed"
    arguments: Any = (study, questions, both["gate"], vanilla, erased, FakeEraser())
    assert decisions.behind(*arguments)["answer_prob"].tolist() == [0.1, 0.9, 0.1]
    assert study.asked == []


def test_logs_of_other_questions_are_refused() -> None:
    arguments: Any = (
        FakeStudy(),
        [Asked("q1")],
        torch.tensor([True]),
        log(["q1"], 0.9),
        log(["q2"], 0.1),
        FakeEraser(),
    )
    with pytest.raises(ValueError, match="logs are of other questions"):
        decisions.behind(*arguments)


def test_a_detector_is_fitted_calibrated_and_applied_set_by_set() -> None:
    generator = torch.Generator().manual_seed(0)

    def cloud(count: int, shift: float) -> dict[HookSite, Tensor]:
        return {HookSite(n, "output"): torch.randn(count, 4, generator=generator) + shift for n in range(3)}

    read = {
        "fit": {"forget": cloud(40, 4.0), "retain": cloud(200, 0.0)},
        "calibrate": {"retain": cloud(150, 0.0), "celebrity": cloud(150, 0.0)},
        "test": {"test": cloud(50, 4.0), "retain": cloud(100, 0.0), "general": cloud(0, 0.0)},
    }
    for rule in ("Gaussian", "5 nearest"):
        opened = decisions.opened_by(rule, (0, 2), read, alpha=0.02)
        assert opened["test"].double().mean() > 0.95 and opened["retain"].double().mean() < 0.1
        assert "general" not in opened, "a set without prompts"
