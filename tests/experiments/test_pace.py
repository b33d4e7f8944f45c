"""What a step of each training takes: rounds through all methods, and what searches and trainings cost in them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from eraser_lib import Eraser
from eraser_lib.baselines.ga import GA
from eraser_lib.baselines.idk import Idk
from eraser_lib.baselines.npo import NPO
from eraser_lib.bench.records import Prompt
from eraser_lib.experiments import closed, overheads, pace
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.sets import fit_sets
from eraser_lib.experiments.study import MICRO_SIZES, Study
from eraser_lib.sites import every_layer
from eraser_lib.study import kept


def searched(study: Study, method: str, settings: str, *, steps: int) -> None:
    choice = {"settings": settings, "lr": 1e-3, "steps": steps}
    study.note(f"tuning-{method}", {"choice": {"best": choice}, "rows": [{**choice, "score": 1.0}]})


def test_a_round_goes_through_all_and_each_begins_with_another(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(study, out=tmp_path)
    for method, objective in (("ga", GA()), ("npo", NPO(0.1)), ("idk", Idk(lam=1.0))):
        searched(here, method, str(objective), steps=2)
    calls: list[str] = []
    monkeypatch.setattr(pace, "_timed", lambda dev, method, *rest: calls.append(method) or {"step_seconds": 1.0})
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "kept"))
    dev = DevRows(here, {}, [], [], {})
    table = pace.timed(dev)
    assert calls == ["ga", "npo", "idk", "npo", "idk", "ga", "idk", "ga", "npo"]
    assert table["method"].tolist() == calls and table["round"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert pace.timed(dev).equals(table) and len(calls) == 9, "a stopped job times no round again"


def test_steps_and_a_look_are_timed_and_the_model_is_as_before(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(study, out=tmp_path)
    here.__dict__.update(vanilla=study.vanilla, world=study.world)
    searched(here, "ga", str(GA()), steps=3)
    people = here.world.population.by_id(here.world.population.dev)
    dev = DevRows(here, fit_sets(here.world, 5, forget=people, per_person=here.sizes.per_person), [], [], {})
    asked: list[Any] = []
    monkeypatch.setattr(DevRows, "score", lambda self, loaded: asked.append(loaded))
    before = {name: value.clone() for name, value in here.vanilla.model.state_dict().items()}
    (row,) = pace.timed(dev, rounds=1, steps=2).to_dict("records")
    assert 1 <= row["steps"] <= 2, "no more than asked for, though the choice takes three"
    assert min(row["first_seconds"], row["step_seconds"], row["look_seconds"]) > 0
    assert row["peak_memory_bytes"] > 2 * sum(value.nbytes for value in before.values()), "the model and its copy"
    assert len(asked) == 1 and asked[0] is not here.vanilla, "what the steps have left is looked at"
    assert all(value.equal(before[name]) for name, value in here.vanilla.model.state_dict().items())


def test_a_search_costs_its_longest_looks_and_every_look() -> None:
    rounds = pd.DataFrame({
        "first_seconds": [5.0, 7.0], "step_seconds": [1.0, 2.0], "look_seconds": [10.0, 20.0],
    })  # fmt: skip
    assert pace.training(rounds, 1).tolist() == [5, 7] and pace.training(rounds, 20).tolist() == [24, 45]
    looks = pd.DataFrame({
        "settings": ["a", "a", "b"], "lr": [1e-3, 1e-3, 1e-3], "steps": [20, 40, 20],
    })  # fmt: skip
    assert pace.search(rounds, looks).tolist() == [44 + 24 + 30, 85 + 45 + 60]


def test_nothing_is_told_of_what_was_not_timed_or_searched(tmp_path: Path) -> None:
    study = Study(preset="micro", model="llava", split=10, out=tmp_path)
    assert pace.rounds(study, "npo").empty and pace.looks(study, "npo").empty
    rows = [{"method": "ga", "step_seconds": 1.0}, {"method": "npo", "step_seconds": 2.0}]
    replace(study, split=5).note(pace.NOTE, {"rows": rows})
    assert pace.rounds(study, "npo")["step_seconds"].tolist() == [2], "timed at the smallest share, for all"
    assert pace.rounds(study, "idk").empty


def test_what_was_chosen_is_fitted_and_attached_in_rounds(study: Study, tmp_path: Path, folder: Path) -> None:
    here = replace(study, out=tmp_path, sizes=MICRO_SIZES)
    here.__dict__.update(vanilla=study.vanilla, world=study.world)
    shutil.copytree(folder, here.world_folder)
    rows, read, reading = pace.read(here)
    assert reading["prompts"] == len(rows["forget"]) + len(rows["retain"]) and reading["calibration_prompts"] > 0
    assert min(reading["seconds"], reading["calibration_seconds"]) > 0
    assert set(pace.fitted(here, rows, read)["method"]) == {"mllmeraser_published"}, "nothing else was chosen"

    blocks = len(read["retain"])
    here.note("selection-5", {"choice": {"decision": {"solver": "ridge", "layers": [0], "alpha": 0.01}}})
    here.note("quadratic", {"layers": [0], "curves": 1})
    leace, manu = closed.scrubbers(blocks)[-1], closed.PRUNERS[0]
    choice = {"detector": {"layers": [], "rule": "Gaussian"}, "leace": str(leace), "manu": str(manu)}
    here.note("closed", {"choice": choice})
    table = pace.fitted(here, rows, read, rounds=2)
    everything = ["mllmeraser_published", "mllmeraser", "mllmeraser_quadratic", "detector", "leace", "manu"]
    assert table["method"].tolist() == [*everything, *everything[3:], *everything[:3]], "begun with another"
    assert (table["seconds"] > 0).all()
    assert table["round"].tolist() == [0] * 6 + [1] * 6
    here.note(pace.NOTE, {"fits": table.to_dict("records")})
    assert pace.fits(here, "manu")["seconds"].tolist() == table.loc[table["method"] == "manu", "seconds"].tolist()
    assert (pace.fits(here, "leace")["peak_memory_bytes"] > 10**7).all() and reading["peak_memory_bytes"] > 10**7
    assert pace.fits(here, "npo").empty and pace.fits(replace(here, split=10), "manu").empty

    here.note("closed", {"choice": choice | {"detector": {"layers": [0, 1], "rule": "Gaussian"}}})
    site = every_layer(here.vanilla.model)[0]
    width = here.vanilla.model.config.get_text_config().hidden_size
    constant = Eraser(directions={site: torch.ones(1, width)}, mode="constant")
    constant.save_pretrained(here.artifact("constant"), model=here.vanilla.model)
    hooks = sum(len(part._forward_hooks) for part in here.vanilla.model.modules())
    found = overheads.passes(here, rows, read, rounds=2)
    wanted = {(method, batch) for method in ("constant", "leace", "detector") for batch in (1, 32)}
    assert set(zip(found["method"], found["batch"], strict=True)) == wanted and len(found) == 6
    assert (found["answer_ratio_low"] <= found["answer_ratio_high"]).all() and (found["prefill_ratio"] > 0).all()
    assert sum(len(part._forward_hooks) for part in here.vanilla.model.modules()) == hooks, "it is all detached"
    here.note(pace.NOTE, {"passes": found.to_dict("records")})
    assert set(overheads.answering(here, "leace")) == {"answer_ratio", "answer_ratio_low", "answer_ratio_high"}
    assert overheads.answering(here, "npo") == {}


def test_a_detector_judges_a_prompt_once(study: Study) -> None:
    model = study.vanilla.model
    inputs = study.vanilla.encode([Prompt("Who is this?"), Prompt("Who?")])
    seen: list[torch.Tensor] = []
    with overheads.judging(model, seen.append, [1, 0]):
        model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    (features,) = seen
    assert features.shape == (2, 2 * model.config.get_text_config().hidden_size), "the prefill alone, of all rows"
