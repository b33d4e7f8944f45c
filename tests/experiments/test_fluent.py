"""The best training that goes on speaking: which points are tried, where it ends, and what the table shows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from eraser_lib.baselines.leace import Leace
from eraser_lib.baselines.npo import NPO
from eraser_lib.experiments import fluent, quiet, speaking
from eraser_lib.experiments.sets import general_questions
from eraser_lib.experiments.study import Study


def point(beta: float, steps: int, score: float, gibberish: float = 0.0, kept: float = 0.0) -> dict[str, Any]:
    """A row of a search."""
    seen = {"score": score, "gibberish": gibberish, "kept_gibberish": kept, "forget_prob": 1 - score}
    return {"settings": str(NPO(beta)), "lr": 1e-3, "steps": steps, **seen}


SEARCH = pd.DataFrame(
    [
        point(0.5, 40, 0.9, gibberish=0.3),
        point(0.1, 40, 0.8),
        point(0.2, 40, 0.8),  # ended as the one before: its weight no longer matters
        point(0.5, 20, 0.7, kept=0.2),
        point(0.1, 20, 0.6, gibberish=fluent.LIMIT),
        point(0.2, 20, 0.5),
    ]
)


def tried(monkeypatch: pytest.MonkeyPatch, babble: dict[tuple[float, int], float]) -> pd.DataFrame:
    """Points tried where (beta, steps) babbles so much by the rule of the tables."""

    def unlearn(_: object, forget: list[Any], __: object, objective: NPO, config: Any, *, watch: Any) -> None:
        assert len(forget) == 4 and config.lr == 1e-3
        assert objective.beta not in trainings, "stops of one training are read together"
        trainings.append(objective.beta)
        for step in range(1, config.steps + 1):
            assert watch(step, (objective.beta, step)) == (step == config.steps)

    def score(*, loaded: tuple[float, int], **options: Any) -> dict[str, float]:
        assert options == {"reference_floor": -1.0, "truth_ratios": False}
        return {"score": 0.0, "gibberish": babble.get(loaded, 0.0), "kept_gibberish": 0.0}

    trainings: list[float] = []
    monkeypatch.setattr(fluent, "unlearn", unlearn)
    study = SimpleNamespace(vanilla=None, seed=0, sizes=SimpleNamespace(train=4))
    dev: Any = SimpleNamespace(study=study, fit={"forget": general_questions(10, "fit"), "retain": []}, score=score)
    return fluent.speaking(dev, SEARCH, "npo", {"reference_floor": -1.0, "truth_ratios": True})


def test_points_that_babble_already_are_not_tried_and_twins_are_tried_once() -> None:
    found = fluent.candidates(SEARCH.sample(frac=1, random_state=1))
    assert found["score"].tolist() == [0.8, 0.6, 0.5]


def test_the_first_that_speaks_by_the_rule_of_the_tables_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tried(monkeypatch, {(0.1, 40): 0.6})
    assert table["speaks"].tolist() == [False, True] and table["searched"].tolist() == [0.0, fluent.LIMIT]
    assert fluent.choice(table) == {"settings": str(NPO(0.1)), "lr": 1e-3, "steps": 20}


def test_none_may_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tried(monkeypatch, {(0.1, 40): 0.6, (0.1, 20): 0.2, (0.2, 20): 0.11})
    assert len(table) == 3 and fluent.choice(table) is None
    assert fluent.choice(pd.DataFrame()) is None, "nor where there is nothing to try"
    monkeypatch.setattr(fluent, "TRIES", 1)
    assert len(tried(monkeypatch, {(0.1, 40): 0.6})) == 1


def test_best_and_speaking_stand_in_one_table(tmp_path: Path) -> None:
    study = Study(preset="toy", model="llava", split=5, out=tmp_path)
    best = {"settings": "RMU(1)", "lr": 1e-3, "steps": 120}
    for method in ("rmu", "npo"):
        study.note(f"tuning-{method}", {"choice": {"best": best}, "rows": []})
    quiet = {"settings": "RMU(2)", "lr": 3e-3, "steps": 40}
    rows = [{"model": "llava", "method": "rmu", "gone": 0.2}]
    study.note("fluent_rmu", {"method": "rmu", "tried": [{}, {}], "choice": quiet, "rows": rows})
    study.note("fluent_npo", {"method": "npo", "tried": [{}], "choice": None, "rows": []})
    points = pd.DataFrame(
        [
            {"model": model, "method": method, "gone": gone}
            for model, method, gone in (("llava", "rmu", 0.1), ("llava", "npo", 0.3), ("qwen", "rmu", 0.4))
        ]
    )
    found = speaking.collected([study], points)
    assert found[["method", "form", "gone", "settings"]].to_dict("split")["data"] == [
        ["npo", "best", 0.3, "RMU(1)"], ["rmu", "best", 0.1, "RMU(1)"], ["rmu", "speaking", 0.2, "RMU(2)"],
    ]  # fmt: skip
    assert found["tried"].tolist() == [1, 2, 2]
    none = speaking.collected([study.at("qwen")], points)
    assert none.empty and {"model", "form"} <= set(none), "no note, no row"
    assert json.loads(study.figure("fluent_rmu").with_suffix(".json").read_text())["choice"] == quiet


def test_with_more_people_a_choice_is_read_after_as_many_steps_and_as_many_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Twice the people: 40 steps, then 80; each stop has the answers of every seed."""
    asked: list[tuple[int, int]] = []

    def unlearn(_: object, forget: list[Any], __: object, objective: NPO, config: Any, *, watch: Any) -> None:
        assert (len(forget), objective.beta, config.lr, config.steps) == (8, 0.2, 1e-3, 80)
        assert [step for step in range(1, 81) if watch(step, (config.seed, step))] == [80], (
            "it ends after the last stop"
        )

    def quick(_: Study, questions: list[Any], loaded: tuple[int, int], **options: Any) -> pd.DataFrame:
        assert options == {"reference_floor": -1.0, "truth_ratios": False}
        asked.append(loaded)
        return pd.DataFrame({"subset": ["test", "retain"], "answer_prob": [loaded[1] / 100, 0.9]})

    monkeypatch.setattr(quiet, "unlearn", unlearn)
    monkeypatch.setattr(quiet, "asked", lambda _: [])
    monkeypatch.setattr(quiet, "fit_sets", lambda *_, **__: {"forget": general_questions(40, "fit"), "retain": []})
    monkeypatch.setattr(Study, "quick", quick)
    monkeypatch.setattr(Study, "fluency", lambda _: {"reference_floor": -1.0, "truth_ratios": True})
    monkeypatch.setattr(Study, "world", SimpleNamespace(roles=lambda split: {"forget": [split]}))
    monkeypatch.setattr(Study, "vanilla", None)
    few: Any = SimpleNamespace(train=4, per_person=1)
    study = Study(preset="toy", model="llava", split=10, out=tmp_path, sizes=few)
    choice = {"settings": str(NPO(0.2)), "lr": 1e-3, "steps": 40}
    found = quiet.answers(study, "npo", choice, (3, 4))
    assert [about for about, _ in found] == [
        {"kept_of_choice": "steps", "steps": 40}, {"kept_of_choice": "passes", "steps": 80},
    ]  # fmt: skip
    assert asked == [(3, 40), (3, 80), (4, 40), (4, 80)]
    assert [log["seed"].tolist() for _, log in found] == [[3, 3, 4, 4]] * 2
    assert {about["steps"] / 100 for about, _ in found} == {log["answer_prob"].iloc[0] for _, log in found}


def test_the_first_map_that_speaks_with_the_floor_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [str(Leace((layer,))) for layer in range(4)]
    tuned = pd.DataFrame({
        "settings": maps, "score": [0.9, 0.8, 0.7, 0.6], "gibberish": [0.3, 0.0, 0.0, 0.0], "kept_gibberish": 0.0,
    })  # fmt: skip
    babble = {maps[1]: 0.2, maps[2]: fluent.LIMIT}
    monkeypatch.setattr(quiet, "of_questions", lambda *_: {"forget": None, "retain": [0] * 6})
    monkeypatch.setattr(
        quiet, "find_scrubber", lambda blocks, settings: FakeScrubber(settings) if blocks == 6 else None
    )

    def score(*, context: str, **options: Any) -> dict[str, float]:
        assert options == {"reference_floor": -1.0, "truth_ratios": False}
        return {"gibberish": babble[context], "kept_gibberish": 0.0}

    study = SimpleNamespace(vanilla=None, fluency=lambda: {"reference_floor": -1.0, "truth_ratios": True})
    asked = [SimpleNamespace(person="anna", modality="vqa")]
    dev: Any = SimpleNamespace(study=study, fit={"forget": asked, "retain": []}, score=score, attach=lambda made: made)
    table = quiet.scrubbed(dev, tuned.sample(frac=1, random_state=0))
    assert table["settings"].tolist() == maps[1:3], "what babbled in the search is not read again"
    assert table["speaks"].tolist() == [False, True]


class FakeScrubber:
    """Names its settings where it is attached, and wants the names of people with the kind of prompt."""

    label = "kind"

    def __init__(self, settings: str) -> None:
        self.settings = settings

    def fit(self, *given: Any) -> str:
        assert given[-1] == ["anna, vqa"], "names for its label"
        return self.settings


def test_what_speaks_with_more_people_names_its_stop(tmp_path: Path) -> None:
    first = Study(preset="toy", model="qwen", split=5, out=tmp_path)
    study = Study(preset="toy", model="qwen", split=15, out=tmp_path)
    first.note("tuning-ga", {"choice": {"best": {"settings": "GA()", "lr": 1e-3, "steps": 20}}, "rows": []})
    choice = {"settings": "GA()", "lr": 1e-4, "steps": 40}
    rows = [
        {"model": "qwen", "method": "ga", "gone": gone, "kept_of_choice": kept, "steps": steps}
        for kept, steps, gone in (("steps", 40, 0.5), ("passes", 120, 0.3))
    ]
    study.note("fluent_ga", {"method": "ga", "tried": [], "choice": choice, "rows": rows})
    study.note("closed", {"choice": {"leace": "Leace(a)"}})
    quiet_map = {"settings": "Leace(b)", "lr": None, "steps": None}
    row = {"model": "qwen", "method": "leace", "gone": 0.6, "kept_of_choice": None, "steps": None}
    study.note("fluent_leace", {"method": "leace", "tried": [{}], "choice": quiet_map, "rows": [row]})
    points = pd.DataFrame([{"model": "qwen", "method": name, "gone": 0.1} for name in ("ga", "leace")])
    found = speaking.collected([study], points)
    wanted = [
        ["ga", "best", 60, "GA()"], ["ga", speaking.FORMS["steps"], 40, "GA()"],
        ["ga", speaking.FORMS["passes"], 120, "GA()"], ["leace", "best", None, "Leace(a)"],
        ["leace", "speaking", None, "Leace(b)"],
    ]  # fmt: skip
    table = found[["method", "form", "steps", "settings"]].astype(object)
    assert table.where(table.notna(), None).to_numpy().tolist() == wanted
    with pytest.raises(ValueError, match="08_fluent"):
        quiet.found(first, "ga", (0,), limit=0.1)
