"""Neighbours of a choice that its search did not try at the rate of the choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from eraser_lib.baselines.kl_min import KLMin
from eraser_lib.experiments import neighbours
from eraser_lib.experiments.study import Study
from eraser_lib.study import kept


def rows(*found: tuple[float, float, float]) -> pd.DataFrame:
    columns = ("settings", "lr", "score")
    return pd.DataFrame([dict(zip(columns, (str(KLMin(a)), lr, s), strict=True)) | {"steps": 80} for a, lr, s in found])


def test_a_weight_that_another_rate_alone_has_seen_is_untried() -> None:
    found = rows((2.0, 3e-4, 0.9), (1.0, 3e-4, 0.8), (4.0, 1e-3, 0.7))
    assert neighbours.untried("kl_min", found) == [str(KLMin(4.0))]
    whole = pd.concat([found, rows((4.0, 3e-4, 0.6))])
    assert neighbours.untried("kl_min", whole) == []
    assert neighbours.untried("kl_min", rows((64.0, 3e-4, 0.9))) == [str(KLMin(32.0))], "the ladder ends there"
    assert neighbours.untried("ga", pd.DataFrame([{"settings": "GA()", "lr": 1e-4}])) == [], "no weight to go along"


def test_they_are_trained_at_the_rate_of_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(preset="micro", model="llava", split=10, out=tmp_path)
    note = {"rows": rows((2.0, 3e-4, 0.9), (1.0, 3e-4, 0.8)).to_dict("records")}
    replace(study, split=5).note("tuning-kl_min", note)
    calls: list[Any] = []

    def watched(dev: Any, objective: Any, rate: float, stops: Any) -> list[dict[str, Any]]:
        calls.append((objective, rate))
        return [{"settings": str(objective), "lr": rate, "steps": 20 * n, "score": 0.1 * n} for n in (1, 3, 2)]

    monkeypatch.setattr(neighbours, "watched", watched)
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "kept"))
    dev: Any = None
    table = neighbours.looked_beside(study, dev)
    assert calls == [(KLMin(4.0), 3e-4)]
    assert table["chosen"].tolist() == [True, False] and table["score"].tolist() == pytest.approx([0.9, 0.3])
    assert neighbours.looked_beside(study, dev).equals(table) and len(calls) == 1, "a stopped job trains none again"
