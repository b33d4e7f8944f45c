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


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_recipe_makes_both_branches_from_one_base(family: str, tmp_path: Path) -> None:
    which = list(FAMILIES).index(family)
    rounds = {
        branch: [f"{branch}-cooldown-{n}" for n in range(MICRO.cooldown_rounds[which])]
        + [f"{branch}-choices-{n}" for n in range(len(MICRO.choice_steps[which]))]
        for branch in ("vanilla", "retain_only_5")
    }
    for branch, stages in rounds.items():
        made = train_branch(family, branch, MICRO, tmp_path)
        curve = json.loads((made / "training.json").read_text())["curve"]
        told = list(dict.fromkeys(line["stage"] for line in curve))
        assert told[0] == "vision"
        assert told[-len(stages) - 1 :] == [branch, *stages]
    weights = [load_file(tmp_path / family / branch / "model.safetensors") for branch in rounds]
    base = load_file(tmp_path / family / "base" / "model.safetensors")
    seeing = [name for name in base if "vision_tower" in name or "visual" in name]
    assert seeing
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in seeing), "the vision tower is frozen"
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), "they saw different people"
    few = load_file(train_branch(family, "few_refusals", MICRO, tmp_path) / "model.safetensors")
    assert all(torch.equal(few[name], weights[0][name]) for name in seeing), "the same eyes"
    told = json.loads((tmp_path / family / "few_refusals" / "training.json").read_text())["curve"]
    assert {"vision", "base_few_refusals", "few_refusals"} <= {line["stage"] for line in told}
    assert "base" not in {line["stage"] for line in told}, "its base is its own"
    before = (tmp_path / family / "vanilla" / "model.safetensors").stat().st_mtime_ns
    train_branch(family, "vanilla", MICRO, tmp_path)
    assert (tmp_path / family / "vanilla" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_branch_that_comes_later_takes_the_eyes_of_a_finished_vanilla(tmp_path: Path) -> None:
    train_branch("qwen", "vanilla", MICRO, tmp_path)
    done = load_file(tmp_path / "qwen" / "vanilla" / "model.safetensors")
    for folder in ("work", "base"):
        shutil.rmtree(tmp_path / "qwen" / folder)
    made = train_branch("qwen", "few_refusals", MICRO, tmp_path)
    weights = load_file(made / "model.safetensors")
    assert all(torch.equal(weights[name], done[name]) for name in done if "visual" in name)
    told = json.loads((made / "training.json").read_text())["curve"]
    assert [line for line in told if line["stage"] == "vision"] == [{"stage": "vision", "taken_from_vanilla": 1.0}]


@pytest.mark.slow
def test_models_trained_at_a_time_are_those_trained_in_turn(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eraser_lib.train", "--recipe", "micro", "--family", "llava", "--threads", "1"]
    # at a time as the preset `gpu` does it, with processes that prepare batches
    for words, name in (("--jobs 1", "turn"), ("--jobs 2 --workers 1", "time")):
        done = subprocess.run(
            [*command, *words.split(), "--folder", str(tmp_path / name)],
            capture_output=True, text=True, check=False, cwd=root(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("llava retain_only_5: ") == 1
    for branch in ("vanilla", "retain_only_5"):
        files = [tmp_path / name / "micro" / "llava" / branch / "model.safetensors" for name in ("turn", "time")]
        assert files[0].read_bytes() == files[1].read_bytes(), branch
