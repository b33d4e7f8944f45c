"""Searches without training, once more: their parts are timed, and what a choice is made of is all counted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from eraser_lib.experiments import pace, searches
from eraser_lib.experiments.dev import open_rows
from eraser_lib.experiments.study import MICRO_SIZES, Study

CHOICE = {"decision": {"solver": "ridge", "layers": [0], "alpha": 0.01}}


def test_what_has_been_chosen_is_chosen_again(study: Study, tmp_path: Path, folder: Path) -> None:
    here = replace(study, out=tmp_path, sizes=MICRO_SIZES)
    met_nobody = study.vanilla  # it is untrained
    here.__dict__.update(vanilla=study.vanilla, world=study.world, load=lambda branch="vanilla": met_nobody)
    shutil.copytree(folder, here.world_folder)
    rows = open_rows(here)
    assert searches.again(rows).empty, "nothing has been searched"
    here.note("selection-5", {"choice": CHOICE})
    here.note("quadratic", {"layers": [0], "curves": 1})
    here.note("closed", {"choice": {}})
    hooks = sum(len(part._forward_hooks) for part in here.vanilla.model.modules())
    table = searches.again(rows).set_index("part")
    assert set(table.index) == {part for parts in searches.PARTS.values() for part in parts}
    assert (table["seconds"] > 0).all() and (table["peak_memory_bytes"] > 10**7).all()
    counted = table["tried"].dropna()
    assert set(table.index) - set(counted.index) == {"direction", "practice"}
    assert (counted >= 2).all(), "the ends of each grid at least"
    assert sum(len(part._forward_hooks) for part in here.vanilla.model.modules()) == hooks, "it is all detached"


def test_a_method_pays_for_every_part_of_its_choice(tmp_path: Path) -> None:
    study = Study(preset="micro", model="llava", split=5, out=tmp_path)
    assert searches.seconds(study, "leace") is None and searches.direction_memory(study) is None
    parts = sorted({part for names in searches.PARTS.values() for part in names})
    rows = [{"part": part, "seconds": float(2**number)} for number, part in enumerate(parts)]
    study.note(pace.NOTE, {"searches": rows})
    for method, names in searches.PARTS.items():
        assert searches.seconds(study, method) == sum(2.0 ** parts.index(name) for name in names)
    assert searches.seconds(study, "npo") is None, "trainings are counted in steps"
    study.note(pace.NOTE, {"searches": [row for row in rows if row["part"] != "push"]})
    assert searches.seconds(study, "constant") is None and searches.seconds(study, "manu") is not None


@pytest.mark.parametrize("method", ["mllmeraser", "mllmeraser_quadratic", "mllmeraser_published", "constant"])
def test_what_is_steered_needs_a_direction(method: str) -> None:
    assert searches.PARTS[method][0] == "direction"
