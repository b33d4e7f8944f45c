"""What choosing takes where nothing is trained: each search once more, in the run that times the fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pandas as pd

from eraser_lib.direction import Direction
from eraser_lib.experiments import closed, curved, gates, selection
from eraser_lib.experiments.activations import join, of_questions
from eraser_lib.experiments.candidates import STRENGTHS_CONSTANT, STRENGTHS_PUBLISHED, pushes, thin
from eraser_lib.experiments.contest import note
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.directions import answer_direction
from eraser_lib.experiments.memory import peak
from eraser_lib.experiments.methods import constant
from eraser_lib.experiments.pace import NOTE, clock
from eraser_lib.experiments.reluctant import contrasted
from eraser_lib.experiments.sets import calibration_sets, practice_people
from eraser_lib.experiments.study import Study, read_choice

PARTS: dict[str, tuple[str, ...]] = {
    "mllmeraser": ("direction", "practice", "decision", "push"),
    curved.METHOD: ("direction", "practice", "detector", "curves", "push"),
    "mllmeraser_published": ("direction", "practice", "published"),
    "constant": ("direction", "push", "constant"),
    "detector": ("practice", "detector"),
    "leace": ("practice", "leace"),
    "manu": ("manu",),
}
"""Method -> what its choice is made of. A part that several need counts for each: who wants one of them pays it. The
quadratic gate reads where the search of the detector found that two Gaussians do best."""
T = TypeVar("T")


def again(rows: DevRows) -> pd.DataFrame:
    """Repeat every search whose choice is on record, on the dev people, and time its parts.

    Columns: `part` (`direction`: PGD pictures and all directions; `practice`: passes behind gates, detector and LEACE,
    over the dev people and others erased for practice; the others choose what `PARTS` says), `tried` (how many
    candidates, where there are some), `seconds`, and `peak_memory_bytes` of the process.
    """
    study, found = rows.study, []

    def take(part: str, make: Callable[[], T], count: Callable[[T], int] | None = None) -> T:
        with peak() as memory:
            began = clock(study)
            value = make()
            seconds = clock(study) - began
        tried = None if count is None else count(value)
        found.append({"part": part, "tried": tried, "seconds": seconds, **memory})
        return value

    def table(value: tuple[Any, pd.DataFrame]) -> int:
        return len(value[1])

    selected, unfitted = note(study, f"selection-{study.split}"), note(study, "closed")
    if not selected:
        return pd.DataFrame(found, columns=["part", "tried", "seconds", "peak_memory_bytes"])
    alpha = read_choice(study)["decision"]["alpha"]
    directions = take("direction", lambda: _directions(study))
    dev = take("practice", lambda: _practice(rows, directions))
    blocks = len(dev.rehearsals[0].unseen)
    readings = thin(gates.candidates(blocks), study)
    take("decision", lambda: selection.choose_decision(dev, readings, alpha=alpha, strict=study.strict), table)
    push, _ = take("push", lambda: selection.choose_push(dev, thin(pushes(blocks), study)), table)

    def ungated(strength: float) -> Any:
        return constant(replace(push, strength=strength), dev.directions, dev.directions["answer"])

    published = partial(selection.published_eraser, dev)
    strengths = thin(STRENGTHS_CONSTANT, study), thin(STRENGTHS_PUBLISHED, study)
    take("constant", lambda: selection.choose_strength(dev, ungated, strengths[0]), table)
    take("published", lambda: selection.choose_strength(dev, published, strengths[1]), table)
    if note(study, "quadratic"):
        layers = curved.chosen(study).layers
        numbers = thin(curved.counts(join(dev.rehearsals[0].unseen, layers).shape[1]), study)
        take("curves", lambda: curved.practised(dev, layers, numbers, alpha=alpha), len)
    if unfitted:
        detectors = thin(closed.detectors(blocks), study)
        take("detector", lambda: closed.choose_detector(dev, detectors, alpha=alpha), table)
        take("leace", lambda: closed.choose_scrubber(dev, thin(closed.scrubbers(blocks), study)), table)
        take("manu", lambda: closed.choose_pruner(dev, thin(closed.PRUNERS, study)), table)
    return pd.DataFrame(found)


def _practice(rows: DevRows, directions: dict[str, Direction]) -> selection.Dev:
    """`selection.open_dev` of rows that are open already, so that asking vanilla is not timed."""
    study = rows.study
    where = (study.world, study.world_folder, study.split)
    roles = {
        "fit": rows.fit,
        "calibrate": calibration_sets(*where, size=study.sizes.calibrate, role="select"),
        "select": {"dev": rows.forget, "kept": rows.kept},
    }
    read = {role: of_questions(study.vanilla, sets) for role, sets in roles.items()}
    own = selection.Rehearsal(rows.fit, read.pop("fit"), read["select"]["dev"])
    others = [selection.rehearse(study, group, own) for group in practice_people(study.world, study.split)]
    return selection.Dev(**vars(rows), directions=directions, activations=read, rehearsals=[own, *others])


def _directions(study: Study) -> dict[str, Direction]:
    directions, pairs = contrasted(study)
    return directions | {"answer": answer_direction(study.vanilla, pairs["instruction"][1])}


def seconds(study: Study, method: str) -> float | None:
    """Seconds of choosing a method's settings, by `again`; `None` where a part of them was not timed."""
    found = _noted(study)
    parts = PARTS.get(method, ())
    return sum(found[part]["seconds"] for part in parts) if parts and set(parts) <= set(found) else None


def direction_memory(study: Study) -> int | None:
    """Largest memory of the process while the directions were made, in bytes; `None` where that was not watched."""
    found: int | None = _noted(study).get("direction", {}).get("peak_memory_bytes")
    return found


def _noted(study: Study) -> dict[str, dict[str, Any]]:
    return {row["part"]: row for row in note(study, NOTE).get("searches", [])}
