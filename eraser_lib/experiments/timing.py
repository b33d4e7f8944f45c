"""What undoing takes, for the ledger."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from eraser_lib import Eraser
from eraser_lib.artifact import TENSORS
from eraser_lib.experiments import pace
from eraser_lib.experiments.contest import LATER, STEERED
from eraser_lib.experiments.ledger import WEIGHTS
from eraser_lib.experiments.sets import fit_sets
from eraser_lib.experiments.store import load_activations
from eraser_lib.experiments.study import Study

BESIDE = ("prompt", "prompt_oracle", "detector")
"""They stand beside the model, which is asked without them from one call to the next."""


def undo_seconds(study: Study) -> dict[str, float]:
    """How long it takes to undo: reading the old `weights` and detaching what is attached, measured; none `BESIDE`.

    Attached are the saved erasers, and the maps of LEACE where 09_closed chose them.
    """
    began = time.perf_counter()
    model = study.load().model
    seconds = {WEIGHTS: time.perf_counter() - began, **dict.fromkeys(BESIDE, 0.0)}
    for method in (*STEERED, *LATER):
        if (study.artifact(method) / TENSORS).exists():
            seconds[method] = _detaching(Eraser.from_pretrained(study.artifact(method), model=model).attach(model))
    if study.figure("closed").with_suffix(".json").exists() and _activations(study).exists():
        seconds["leace"] = _detaching(_scrubber(study).attach(model))
    return seconds


def _activations(study: Study) -> Path:
    return study.cache / "activations.safetensors"


def _detaching(attached: AbstractContextManager[Any]) -> float:
    with attached:
        began = time.perf_counter()
    return time.perf_counter() - began


def _scrubber(study: Study) -> Any:
    """The maps that 09_closed chose, fitted as there."""
    read = load_activations(_activations(study))["fit"]
    forget = study.world.roles(study.split)["forget"]
    rows = fit_sets(study.world, study.split, forget=forget, per_person=study.sizes.per_person)
    return pace.scrubbed(study, rows, read)
