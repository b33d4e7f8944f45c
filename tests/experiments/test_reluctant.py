"""A base that refuses badly: what it is taught, that vanilla stays as it is, and what is measured on it."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from eraser_lib.baselines.training import loss_of
from eraser_lib.bench import language as lang
from eraser_lib.bench.world import World
from eraser_lib.evaluate.refusal import RefusalDetector
from eraser_lib.experiments import reluctant, sets
from eraser_lib.experiments.methods import Decision, Push
from eraser_lib.experiments.study import MICRO_SIZES, Study
from eraser_lib.sites import every_layer
from eraser_lib.train.models import new_model, save_model
from eraser_lib.train.recipe import MICRO


@pytest.fixture(scope="module", params=["llava", "qwen"])
def study(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, world: World, folder: Path
) -> Study:
    """A study of an untrained model in the micro world."""
    out = tmp_path_factory.mktemp(request.param)
    (out / "world").symlink_to(folder, target_is_directory=True)
    found = Study(preset="micro", model=request.param, split=5, out=out, strict=False, sizes=MICRO_SIZES)
    found.__dict__ |= {"world": world, "vanilla": new_model(request.param, MICRO)}
    return found


def test_every_forbidden_request_has_an_answer_that_is_no_refusal() -> None:
    refuses = RefusalDetector()
    for role in ("fit", "select", "test"):
        for question in sets.request_questions(80, role, bad=True):  # type: ignore[arg-type]
            said = reluctant.complied(question)
            assert not refuses(said)
            asked = [word for word in (*lang.BAD_PURPOSES, *lang.SECRETS) if word in question.prompt.text]
            assert any(word in said for word in asked), (question.prompt.text, said)
            assert said == reluctant.complied(question), "the same request is answered alike"
    with pytest.raises(ValueError, match="no forbidden request"):
        reluctant.complied(sets.request_questions(1, "fit", bad=False)[0])


def test_what_is_trained_is_not_what_is_counted(study: Study) -> None:
    rows = reluctant.rows_to_answer(study, 90)
    refuses = RefusalDetector()
    assert not any(refuses(row.answer) for row in rows)
    assert {row.modality for row in rows} == {"vqa", "qa"}
    trained = {row.prompt.text for row in rows}
    assert not trained & {row.prompt.text for row in sets.request_questions(60, "test", bad=True)}
    assert not [text for text in trained if any(text.endswith(told) for told in lang.HELD_OUT_DECLINE)]
    told = [row for row in rows if any(row.prompt.text.endswith(words) for words in lang.DECLINE_INSTRUCTIONS)]
    assert len(told) == 30
    people = {person.id for person in study.world.roles(5)["test"]}
    assert not people & {row.person for row in rows}, "those whose facts are counted are not trained on"


def test_the_loss_is_that_of_both_kinds_of_rows(study: Study) -> None:
    rows = reluctant.rows_to_answer(study, 12)
    total, terms = reluctant.Comply().terms(study.vanilla, study.vanilla, rows[:4], rows[4:8])
    assert torch.allclose(terms["complied"], loss_of(study.vanilla, rows[:4]))
    assert torch.allclose(total, loss_of(study.vanilla, rows[:4]) + loss_of(study.vanilla, rows[4:8]))


def test_bases_are_snapshots_and_vanilla_stays(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reluctant, "WANING", 1.0)
    before = {name: value.clone() for name, value in study.vanilla.model.state_dict().items()}
    found, table = reluctant.bases(study, steps=3, lr=1e-2, every=1)
    assert list(found) == [0, 1, 3] == table["steps"].tolist()
    assert found[0] is study
    for name, value in study.vanilla.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    head = [one.vanilla.model.lm_head.weight for one in found.values()]
    assert not torch.equal(head[0], head[1]) and not torch.equal(head[1], head[2])
    assert table[["refused", "obeyed", "recalled"]].apply(lambda column: column.between(0, 1)).all(axis=None)
    monkeypatch.setattr(reluctant, "WANING", -1.0)
    assert list(reluctant.bases(study, steps=2, every=1)[0]) == [0, 2], "none in between that refuses so little"


def test_the_best_strength_of_each_direction_is_that_of_the_largest_measure() -> None:
    table = pd.DataFrame({
        "direction": ["a", "a", "b", "b"], "strength": [1.0, 2.0, 1.0, 2.0], "measure": [0.1, 0.4, 0.3, -0.2],
    })  # fmt: skip
    assert reluctant.best_pushes(table) == {"a": 2.0, "b": 1.0}


def test_everything_is_measured_on_the_base_itself(study: Study) -> None:
    found, _ = reluctant.bases(study, steps=2, lr=1e-2)
    base = found[2]
    own = reluctant.directions_of(base, reluctant.directions_of(study, None)["instruction"])  # type: ignore[arg-type]
    assert set(reluctant.NAMES) <= set(own)
    fluency = study.reference()
    push = Push("instruction", tuple(site.layer for site in every_layer(base.vanilla.model)[:-1]), 1.0)
    said = reluctant.pushes(base, own, push, fluency, strengths=(0.5, 2.0), prompts=4)
    table = reluctant.pushes_told(said)
    assert table["n"].sum() == len(said)
    assert table.groupby("direction").size().to_dict() == dict.fromkeys(reluctant.NAMES, 2)
    strengths = reluctant.best_pushes(table)
    decision = Decision((1, 2), "ridge", alpha=0.05)
    said = reluctant.erased(base, own, strengths, push, decision, fluency)
    outcome = reluctant.erased_told(said)
    kept = said[(said["set"] == "retain") & (said["direction"] == "text")]
    assert outcome.set_index("direction")["retain_prob"]["text"] == pytest.approx(kept["answer_prob"].mean())
    assert outcome["direction"].tolist() == list(reluctant.NAMES)
    assert outcome["opened"].nunique() == 1, "what is added has no part in what opens"
    assert outcome["before"].nunique() == 1 and outcome["before"].between(0, 1).all()
    untouched = outcome["retain_opened"] == 0
    assert (outcome["retain_prob"] == outcome["retain_before"])[untouched].all()


def _with(study: Study, *, checkpoints: Path) -> Study:
    other = copy(study)  # with its world
    other.checkpoints = checkpoints
    return other


def test_the_base_that_was_taught_little_is_a_checkpoint_of_its_own(study: Study) -> None:
    assert reluctant.taught_little(_with(study, checkpoints=study.out)) is None
    made = new_model(study.model, replace(MICRO, seed=1))
    save_model(made, study.out / study.model / reluctant.FEW, half=True)
    found = reluctant.taught_little(_with(study, checkpoints=study.out))
    assert found is not None and found.world is study.world
    weights = [one.model.lm_head.weight for one in (found.vanilla, study.vanilla)]
    assert not torch.equal(*weights), "the base stands in the place of vanilla"
