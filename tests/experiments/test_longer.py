"""Past the budget of a search: who is trained on, how far, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eraser_lib.baselines.npo import NPO
from eraser_lib.experiments import longer
from eraser_lib.experiments.study import Study
from eraser_lib.study import kept


def tuned(study: Study, method: str, *rows: tuple[str, int, float]) -> None:
    found = [{"settings": settings, "lr": 3e-4, "steps": steps, "score": score} for settings, steps, score in rows]
    study.note(f"tuning-{method}", {"rows": found})


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """At 10 %, for the searches of 5 % serve every split."""
    found = Study(preset="micro", model="llava", split=10, out=tmp_path)
    at_five = replace(found, split=5)
    tuned(at_five, "npo", (str(NPO(0.5)), 40, 0.9), (str(NPO(0.1)), 20, 0.8))
    tuned(at_five, "ga", ("GA()", 20, 0.9), ("GA()", 40, 0.8))
    return found


def test_those_at_the_end_of_the_budget_are_trained_on(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def watched(dev: Any, objective: Any, rate: float, stops: list[int], *, epochs: int) -> list[dict[str, Any]]:
        calls.append((objective, rate, stops, epochs))
        scores = {40: 0.9, 60: 0.95}  # it ended before the last stop
        measured = {"forget_prob": 0.1, "kept_prob": 0.8, "collapsed": False, "settings": str(objective), "lr": rate}
        return [{"steps": steps, "score": score, **measured} for steps, score in scores.items()]

    monkeypatch.setattr(longer, "watched", watched)
    monkeypatch.setenv(kept.VARIABLE, str(study.out / "kept"))
    best = longer.at_the_end(study)
    assert list(best["method"]) == ["npo"], "GA is best before the end, and the others were not searched"
    dev: Any = None
    rows = longer.trained_on(dev, best)
    assert calls == [(NPO(0.5), 3e-4, [40, 60, 80], 2)], "two passes, since one is what the search had"
    assert rows["passes"].tolist() == [1, 1.5]
    assert longer.trained_on(dev, best).equals(rows) and len(calls) == 1, "a stopped job does not train it again"
    (gain,) = longer.gains(rows).to_dict("records")
    assert gain["gain"] == pytest.approx(0.05) and (gain["best_passes"], gain["last"]) == (1.5, 1.5)
    assert (gain["method"], gain["score"], gain["best_score"]) == ("npo", 0.9, 0.95)


def test_npo_is_trained_with_other_weights_as_in_its_search(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def watched(dev: Any, objective: Any, rate: float, stops: list[int]) -> list[dict[str, Any]]:
        calls.append((objective, rate, stops))
        return [{"steps": 20, "score": 0.1 * objective.lam}, {"steps": 40, "score": 0.3}]

    monkeypatch.setattr(longer, "watched", watched)
    tuned(replace(study, split=5), "npo", (str(NPO(0.5)), 40, 0.9), (str(NPO(0.5)), 20, 0.8), (str(NPO(0.1)), 80, 0.7))
    dev: Any = None
    table = longer.weighed(study, dev, (0.5, 4.0))
    assert calls == [(NPO(0.5, 0.5), 3e-4, [20, 40]), (NPO(0.5, 4.0), 3e-4, [20, 40])], "the stops of that training"
    assert table["weight"].tolist() == [1, 0.5, 4] and table["steps"].tolist() == [40, 40, 20]
    assert table["score"].tolist() == pytest.approx([0.9, 0.3, 0.4]), "the best look of each, that of the search first"


def test_where_no_search_used_up_its_budget_nothing_is_trained(study: Study) -> None:
    tuned(replace(study, split=5), "npo", (str(NPO(0.1)), 20, 0.8), (str(NPO(0.5)), 40, 0.7))
    dev: Any = None
    rows = longer.trained_on(dev, longer.at_the_end(study))
    assert rows.empty and longer.gains(rows).empty
