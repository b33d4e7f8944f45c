"""Every stage of the curriculum in seconds: models that know nothing, but were made by the whole recipe."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eraser_lib.families import FAMILIES
from eraser_lib.study.paths import root
from eraser_lib.train.models import train_branch
from eraser_lib.train.recipe import MICRO

BOTH = ("vanilla", "retain_only_5")


def trained(folder: Path, family: str, *words: str) -> Path:
    """Where the command left the models of a family; one thread, which is part of what makes weights alike."""
    command = [sys.executable, "-m", "eraser_lib.train", "--recipe", "micro", "--family", family, "--threads", "1"]
    done = subprocess.run(
        [*command, *words, "--folder", str(folder)], capture_output=True, text=True, check=False, cwd=root()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{family} retain_only_5: ") == 1
    return folder / "micro" / family


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a family whose models were trained in turn."""
    return trained(tmp_path_factory.mktemp("trained"), request.param, "--branch", *BOTH, "few_refusals")


@pytest.mark.slow
def test_the_recipe_makes_both_branches_from_one_base(made: Path) -> None:
    which = list(FAMILIES).index(made.name)
    told: dict[str, list[str]] = {}
    for branch in (*BOTH, "few_refusals"):
        curve = json.loads((made / branch / "training.json").read_text())["curve"]
        told[branch] = list(dict.fromkeys(line["stage"] for line in curve))
        assert told[branch][0] == "vision"
    for branch in BOTH:
        stages = [f"{branch}-cooldown-{n}" for n in range(MICRO.cooldown_rounds[which])]
        stages += [f"{branch}-choices-{n}" for n in range(len(MICRO.choice_steps[which]))]
        assert told[branch][-len(stages) - 1 :] == [branch, *stages]
    vanilla, retain_only, few, base = (
        load_file(made / branch / "model.safetensors") for branch in (*BOTH, "few_refusals", "base")
    )
    seeing = [name for name in base if "vision_tower" in name or "visual" in name]
    assert seeing
    assert all(torch.equal(vanilla[name], retain_only[name]) for name in seeing), "the vision tower is frozen"
    assert any(not torch.equal(vanilla[name], retain_only[name]) for name in vanilla), "they saw different people"
    assert all(torch.equal(few[name], vanilla[name]) for name in seeing), "the same eyes"
    assert {"vision", "base_few_refusals", "few_refusals"} <= set(told["few_refusals"])
    assert "base" not in told["few_refusals"], "its base is its own"
    before = (made / "vanilla" / "model.safetensors").stat().st_mtime_ns
    train_branch(made.name, "vanilla", MICRO, made.parent)
    assert (made / "vanilla" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_branch_that_comes_later_takes_the_eyes_of_a_finished_vanilla(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "vanilla", tmp_path / made.name / "vanilla")
    later = train_branch(made.name, "few_refusals", MICRO, tmp_path)
    weights, done = (load_file(folder / "model.safetensors") for folder in (later, made / "vanilla"))
    assert all(torch.equal(weights[name], done[name]) for name in done if "vision_tower" in name or "visual" in name)
    told = json.loads((later / "training.json").read_text())["curve"]
    assert [line for line in told if line["stage"] == "vision"] == [{"stage": "vision", "taken_from_vanilla": 1.0}]


@pytest.mark.slow
@pytest.mark.parametrize("made", ["llava"], indirect=True)
def test_models_trained_at_a_time_are_those_trained_in_turn(made: Path, tmp_path: Path) -> None:
    # at a time as the preset `gpu` does it, with processes that prepare batches
    at_a_time = trained(tmp_path, "llava", "--jobs", "2", "--workers", "1")
    for branch in BOTH:
        one, other = ((folder / branch / "model.safetensors").read_bytes() for folder in (made, at_a_time))
        assert one == other, branch
