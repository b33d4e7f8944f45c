"""Doses: strengths of whole erasers and attacks behind a direction, on a model that was never trained."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from eraser_lib import Eraser
from eraser_lib.direction import Direction
from eraser_lib.experiments import dose, sets
from eraser_lib.experiments.methods import Push, constant
from eraser_lib.experiments.sets import person_rows
from eraser_lib.experiments.study import Study
from eraser_lib.figures.dose import attack_curves, strength_curves


@pytest.fixture
def asked(study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[sets.Question]]:
    monkeypatch.setattr(Study, "fluency", lambda self: self.reference())
    found = sets.test_sets(study.world, folder, 5, size=12)
    return {name: found[name][:6] for name in ("test", "retain")}


def test_at_no_strength_a_form_is_vanilla(study: Study, direction: Direction, asked) -> None:  # type: ignore[no-untyped-def]
    eraser: Eraser = constant(Push("a", (0, 1), 2.0), {"a": direction})
    answers = dose.by_strength(study, {"constant": eraser}, asked, times=(0.0, 1.0, 50.0))
    assert len(answers) == 3 * sum(map(len, asked.values()))
    table = dose.strengths_told(answers)
    for name in ("gone", "kept", "refused", "recalled", "gibberish", "kept_refused"):
        assert (table[f"{name}_low"] <= table[name]).all() and (table[name] <= table[f"{name}_high"]).all()
    assert table["strength"].tolist() == [0.0, 2.0, 100.0]
    plain = {name: study.quick(rows, study.vanilla)["answer_prob"].astype(float).mean() for name, rows in asked.items()}
    assert table["gone"][0] == pytest.approx(plain["test"]) and table["kept"][0] == pytest.approx(plain["retain"])
    assert abs(table["gone"][2] - plain["test"]) > 1e-6, "and a large one changes it"
    assert len(strength_curves(table).axes) == 3


def test_the_curve_of_the_trade_off_is_read_from_the_note(study: Study) -> None:
    assert dose.curve(study) == {}
    rows = [{"method": name, "times": t, "strength": 4 * t, "gone": 1 - t, "kept": 1.0, "refused": t}
            for name in ("constant", "mllmeraser") for t in (1.0, 0.0, 0.5)]  # fmt: skip
    study.note("dose_strength", {"rows": rows})
    (line,) = dose.curve(study).values()
    assert line.to_dict("list") == {"dial": [0.0, 2.0, 4.0], "gone": [1.0, 0.5, 0.0], "kept": [1.0] * 3}
    assert dose.curve(study.at("other")) == {}, "each model has its own"


def test_an_attack_is_made_once_and_clean_pictures_are_as_they_are(
    study: Study,
    direction: Direction,
    asked,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    seen: list[dict[str, float]] = []
    real = dose.dirs.recall_images

    def watched(*arguments, **options):  # type: ignore[no-untyped-def]
        recall = real(*arguments, **options)
        moved = [
            a.image.tobytes() != b.image.tobytes() for a, b in zip(recall.prompts, recall.adversarial, strict=True)
        ]
        seen.append({"epsilon": 255 * options["epsilon"], "steps": options["steps"], "moved": sum(moved)})
        return recall

    monkeypatch.setattr(dose.dirs, "recall_images", watched)
    people = study.world.roles(5)["fit"][:2]
    attacks = (
        dose.Attack("radius", 0.0, 0.0), dose.Attack("radius", 16.0, 2.0, 2), dose.Attack("steps", steps=2),
        dose.Attack("step", step=8.0, steps=2),
    )  # fmt: skip
    table, answers = dose.by_attack(
        study, people, person_rows(people, "retain", "fit", rows=2), Push("a", (0, 1), 1.0), direction, asked["test"],
        attacks, strengths=(1.0, 4.0),
    )  # fmt: skip
    assert [(one["steps"], bool(one["moved"])) for one in seen] == [(1, False), (2, True), (2, True)]
    assert len(table) == 2 * len(attacks)
    assert len(answers) == 3 * 2 * len(asked["test"]), "three attacks, each made once"
    of_study = table[(table["radius"] == 16) & (table["step"] == 2)]
    assert set(of_study["varied"]) == {"radius", "steps"}, "one value of either"
    assert of_study.drop(columns="varied").groupby("strength").nunique(dropna=False).max().max() == 1
    assert table["cosine"].between(-1, 1).all() and table["answered"].between(0, 1).all()
    assert table[table["radius"] == 0]["steps"].eq(0).all()
    assert len(attack_curves(pd.DataFrame(json.loads(table.to_json(orient="records")))).axes) == 6
