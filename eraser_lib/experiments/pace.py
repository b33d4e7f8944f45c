"""What each fit takes, of trainings a step and a look at what it has left, and in how much memory: all in one run.

The jobs that search and fit ran on different days, some beside others, so that their seconds say as much about the day
as about the method. What a training did is on record and the same on any machine: how many steps, how many looks. Times
their pace this is what it costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pandas as pd
import torch

from eraser_lib.baselines.detector import RULES, Detector, embed
from eraser_lib.baselines.leace import Leace, Scrubber
from eraser_lib.baselines.low_rank import LowRank
from eraser_lib.baselines.training import TrainConfig, unlearn
from eraser_lib.bench.records import Question
from eraser_lib.direction import Direction
from eraser_lib.experiments import closed, curved, trained
from eraser_lib.experiments.activations import Activations, join, of_questions
from eraser_lib.experiments.contest import note
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.gates import fit_joined
from eraser_lib.experiments.memory import peak
from eraser_lib.experiments.methods import published
from eraser_lib.experiments.sets import calibration_sets, fit_sets, stratified
from eraser_lib.experiments.study import Study
from eraser_lib.families import Loaded
from eraser_lib.study.kept import kept

ROUNDS = 3
STEPS = 20
"""Steps of a training that are timed in a round: a sixth of what most take."""
NOTE = "pace"
T = TypeVar("T")
Fit = Callable[[Mapping[str, Sequence[Question]], Mapping[str, Activations]], Any]
"""Fits a method again, from the questions of the sets `forget` and `retain` and from what blocks say at them."""


def timed(dev: DevRows, *, lora: int = 0, rounds: int = ROUNDS, steps: int = STEPS) -> pd.DataFrame:
    """The first steps of the training that each search chose, on the dev people: one row per round and method.

    A round goes through all methods, each begins with another one, and a job that was stopped goes on after its last
    round. Columns: `round, method, settings, lr, steps`; `first_seconds` (of the first step, with all that the method
    prepares), `step_seconds` (of a later one, the median), `look_seconds` (of one look by the questions of the search,
    at what these steps have left) and `peak_memory_bytes` (of the process, in these steps).
    """
    study = dev.study
    choices = {method: trained.read_choice(study, method) for method in trained.OBJECTIVES if len(looks(study, method))}
    found: list[dict[str, Any]] = []
    for number in range(rounds):
        turn = partial(_round, dev, turned(choices, number, rounds), steps, lora)
        found += [{"round": number, **row} for row in kept(f"round {number}", turn)]
    return pd.DataFrame(found)


def _round(
    dev: DevRows, choices: Sequence[tuple[str, Mapping[str, Any]]], steps: int, lora: int
) -> list[dict[str, Any]]:
    return [{"method": method, **_timed(dev, method, choice, steps, lora)} for method, choice in choices]


def _timed(dev: DevRows, method: str, choice: Mapping[str, Any], steps: int, lora: int) -> dict[str, Any]:
    ends: list[float] = []

    def watch(step: int, model: Loaded) -> bool:
        ends.append(clock(dev.study))
        return False

    forget = stratified(dev.fit["forget"], dev.study.sizes.train)
    rank = lora if choice["settings"].startswith(LowRank.__name__) else 0  # some have no form with adapters
    objective = trained.objective(method, choice["settings"], lora=rank)
    config = TrainConfig(lr=choice["lr"], steps=min(steps, choice["steps"]), seed=dev.study.seed)
    with peak() as memory:
        done = unlearn(dev.study.vanilla, forget, dev.fit["retain"], objective, config, watch=watch)
    first = done.seconds - (ends[-1] - ends[0])
    began = clock(dev.study)
    dev.score(loaded=done.loaded)
    return {
        "settings": choice["settings"], "lr": choice["lr"], "steps": len(ends), "first_seconds": first,
        "step_seconds": float(pd.Series(ends).diff().median()) if len(ends) > 1 else first,
        "look_seconds": clock(dev.study) - began, **memory,
    }  # fmt: skip


def clock(study: Study) -> float:
    """Seconds, once all that was asked of the model's device is done: a GPU goes on after a call has returned."""
    device = torch.device(study.vanilla.model.device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def read(study: Study) -> tuple[dict[str, list[Question]], dict[str, Activations], dict[str, float]]:
    """The questions that everything is fitted on (sets `forget` and `retain`), what the model's blocks say at them, and
    what reading took: `prompts, seconds` of these, and `calibration_prompts, calibration_seconds` of those that set
    the thresholds of gates and detectors; `peak_memory_bytes` of the process, with both."""
    forget = study.world.roles(study.split)["forget"]
    rows = fit_sets(study.world, study.split, forget=forget, per_person=study.sizes.per_person)
    calibrate = calibration_sets(study.world, study.world_folder, study.split, size=study.sizes.calibrate)
    taken: dict[str, float] = {}
    with peak() as memory:
        for name, sets in (("calibration_", calibrate), ("", rows)):
            began = clock(study)
            found = of_questions(study.vanilla, sets)
            taken[f"{name}seconds"] = clock(study) - began
            taken[f"{name}prompts"] = sum(map(len, sets.values()))
    return rows, found, taken | memory


def fitted(
    study: Study, rows: Mapping[str, Sequence[Question]], read: Mapping[str, Activations], *, rounds: int = ROUNDS
) -> pd.DataFrame:
    """One fit per round of each method that trains nothing, with the settings that the run chose; `rows, read` of
    `read`. Columns: `round, method, seconds`, and `peak_memory_bytes` of the process, which holds what was read.
    Methods that were not chosen are left out."""
    fits = fits_of(study)
    found = []
    for number in range(-1, rounds):  # the first warms up and is dropped
        for method, fit in turned(fits, number, rounds):
            with peak() as memory:
                began = clock(study)
                fit(rows, read)
                seconds = clock(study) - began
            found.append({"round": number, "method": method, "seconds": seconds, **memory})
    return pd.DataFrame(found).query("round >= 0")


def turned(methods: Mapping[str, T], number: int, rounds: int) -> list[tuple[str, T]]:
    """All methods, beginning with another one in each round."""
    start = max(number, 0) * len(methods) // rounds
    return [*list(methods.items())[start:], *list(methods.items())[:start]]


def fits_of(study: Study) -> dict[str, Fit]:
    """By method, what fits it again with the settings that the run chose; methods that were not chosen are left out.

    MANU passes what it needs through the model itself; so does a detector that looks at input embeddings.
    """
    found: dict[str, Fit] = {"mllmeraser_published": _published}
    if select := note(study, f"selection-{study.split}"):
        gate = select["choice"]["decision"]
        found["mllmeraser"] = lambda rows, read: fit_joined(gate["solver"], read, rows, gate["layers"])
    if note(study, "quadratic"):
        found[curved.METHOD] = lambda rows, read: curved.fit_gate(curved.chosen(study), read)
    if choice := note(study, "closed").get("choice"):
        (manu,) = [one for one in closed.PRUNERS if str(one) == choice["manu"]]
        found["detector"] = partial(_detector, study, choice["detector"])
        found["leace"] = partial(scrubbed, study)
        found["manu"] = lambda rows, read: manu.fit(study.vanilla, rows["forget"], rows["retain"])
    return found


def _published(rows: Any, read: Mapping[str, Activations]) -> Any:
    sites = tuple(read["retain"])
    direction = Direction(sites, torch.ones(len(sites), read["retain"][sites[0]].shape[1]))  # any: no part of the fit
    return published(read["forget"], read["retain"], direction, 1.0)


def _detector(study: Study, choice: Mapping[str, Any], rows: Any, read: Mapping[str, Activations]) -> Detector:
    reading = tuple(choice["layers"])
    forget, retain = (
        join(read[name], reading) if reading else embed(study.vanilla, [row.prompt for row in rows[name]])
        for name in ("forget", "retain")
    )
    return RULES[choice["rule"]](forget, retain)


def scrubbed(study: Study, rows: Mapping[str, Sequence[Question]], read: Mapping[str, Activations]) -> Scrubber:
    """The maps of LEACE that 09_closed chose, fitted. `FileNotFoundError` where it has not run."""
    leace = scrubber(study, len(read["retain"]))
    return leace.fit(read["forget"], read["retain"], closed.names(rows["forget"], leace.label))


def scrubber(study: Study, blocks: int) -> Leace:
    """The map of LEACE that 09_closed chose. `FileNotFoundError` where it has not run."""
    chosen = study.read_note("closed", made_by=f"notebook 09_closed for {study.model}")["choice"]["leace"]
    (found,) = [one for one in closed.scrubbers(blocks) if str(one) == chosen]
    return found


def fits(study: Study, method: str) -> pd.DataFrame:
    """Rows of `fitted` about a method; empty where 27_pace did not time it, as at larger shares."""
    rows = pd.DataFrame(note(study, NOTE).get("fits", []))
    return rows.reindex(columns=["method", "seconds", "peak_memory_bytes"]).query("method == @method")


def rounds(study: Study, method: str) -> pd.DataFrame:
    """Rows of `timed` about a method; empty where 27_pace did not run."""
    rows = pd.DataFrame(note(replace(study, split=5), NOTE).get("rows", []))
    return rows[rows["method"] == method] if len(rows) else rows


def looks(study: Study, method: str) -> pd.DataFrame:
    """Rows of the search of a method, one per look; empty where it was not searched."""
    return pd.DataFrame(note(replace(study, split=5), f"tuning-{method}").get("rows", []))


def training(rounds: pd.DataFrame, steps: int) -> pd.Series:
    """Seconds of a training of so many steps, at the pace of each round."""
    return rounds["first_seconds"] + (steps - 1) * rounds["step_seconds"]


def search(rounds: pd.DataFrame, looks: pd.DataFrame) -> pd.Series:
    """Seconds of a search, at the pace of each round: all its trainings, as long as they were, and all its looks."""
    lengths = looks.groupby(["settings", "lr"])["steps"].max()
    return sum((training(rounds, int(steps)) for steps in lengths), start=len(looks) * rounds["look_seconds"])
