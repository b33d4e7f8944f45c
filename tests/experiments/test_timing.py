"""What undoing takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eraser_lib import Eraser
from eraser_lib.experiments import closed, sets, timing
from eraser_lib.experiments.activations import of_questions
from eraser_lib.experiments.store import save_activations
from eraser_lib.experiments.study import Study
from eraser_lib.sites import every_layer


def hooks(model: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def test_undoing_is_timed_and_done(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = replace(study, out=tmp_path)
    here.__dict__.update(vanilla=study.vanilla, world=study.world)
    monkeypatch.setattr(Study, "load", lambda self: study.vanilla)
    model = study.vanilla.model
    site = every_layer(model)[0]
    width = model.config.get_text_config().hidden_size
    Eraser(directions={site: torch.ones(1, width)}, mode="constant").save_pretrained(here.artifact("constant"))
    seconds = timing.undo_seconds(here)
    assert {seconds.pop(method) for method in timing.BESIDE} == {0.0}, "there is nothing in the model to undo"
    assert set(seconds) == {"weights", "constant"} and all(value > 0 for value in seconds.values())

    forget = here.world.roles(here.split)["forget"]
    fit = sets.fit_sets(here.world, here.split, forget=forget, per_person=here.sizes.per_person)
    save_activations(here.cache / "activations.safetensors", {"fit": of_questions(here.vanilla, fit)})
    before = hooks(model)  # transformers leaves some of its own on the way
    chosen = closed.scrubbers(len(every_layer(model)))[-1]
    here.note("closed", {"choice": {"leace": str(chosen)}})
    assert timing.undo_seconds(here)["leace"] > 0
    assert hooks(model) == before, "it is really undone"
