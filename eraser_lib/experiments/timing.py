"""Seconds for the ledger that no other notebook takes: undoing, and fits that are made in passing."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from eraser_lib import Direction, Eraser
from eraser_lib.experiments import closed
from eraser_lib.experiments.contest import LATER, STEERED
from eraser_lib.experiments.ledger import ERASER, WEIGHTS
from eraser_lib.experiments.methods import published
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
        if (study.artifact(method) / ERASER).exists():
            seconds[method] = _detaching(Eraser.from_pretrained(study.artifact(method), model=model).attach(model))
    if study.figure("closed").with_suffix(".json").exists() and _activations(study).exists():
        seconds["leace"] = _detaching(_scrubber(study).attach(model))
    return seconds


def fit_seconds(study: Study) -> dict[str, float]:
    """One fit of the published form from activations at hand; constant steering knows no forget set, so nothing is
    fitted."""
    found = {"constant": 0.0}
    if _activations(study).exists():
        fit = load_activations(_activations(study))["fit"]
        sites = tuple(fit["retain"])
        width = fit["retain"][sites[0]].shape[1]
        direction = Direction(sites, torch.ones(len(sites), width))  # any: it is no part of the fit
        began = time.perf_counter()
        published(fit["forget"], fit["retain"], direction, 1.0)
        found["mllmeraser_published"] = time.perf_counter() - began
    return found


def _activations(study: Study) -> Path:
    return study.cache / "activations.safetensors"


def _detaching(attached: AbstractContextManager[Any]) -> float:
    with attached:
        began = time.perf_counter()
    return time.perf_counter() - began


def _scrubber(study: Study) -> Any:
    """The maps that 09_closed chose, fitted as there."""
    chosen = study.read_note("closed", made_by=f"notebook 09_closed for {study.model}")["choice"]["leace"]
    fit = load_activations(_activations(study))["fit"]
    (leace,) = [one for one in closed.scrubbers(len(fit["forget"])) if str(one) == chosen]
    forget = study.world.roles(study.split)["forget"]
    rows = fit_sets(study.world, study.split, forget=forget, per_person=study.sizes.per_person)["forget"]
    return leace.fit(fit["forget"], fit["retain"], closed.names(rows, leace.label))
