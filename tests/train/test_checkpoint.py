"""Files of a model: half precision survives the way to the disk, and a folder appears whole or not at all."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from eraser_lib.bench.records import Prompt
from eraser_lib.families import load_model
from eraser_lib.train import models
from eraser_lib.train.recipe import MICRO, RECIPES, Recipe


def test_half_precision_round_trip(school: Any, tmp_path: Path) -> None:
    loaded = school.fresh()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    asked = loaded.encode([Prompt("What is the pet of Ada Cole?")])
    with torch.no_grad():
        answered = loaded.model(**asked).logits
    models.save_model(loaded, tmp_path / "vanilla", half=True)
    with torch.no_grad():
        assert torch.equal(loaded.model(**asked).logits, answered)  # buffers included
    again = load_model(tmp_path / "vanilla").model.state_dict()
    assert set(again) == set(before)
    for name, value in before.items():
        assert torch.equal(again[name], value.half().float()), name
        assert torch.equal(loaded.model.state_dict()[name], value), name  # the model in memory keeps its precision
    assert loaded.model.dtype == torch.float32
    files = {path.name for path in (tmp_path / "vanilla").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tiny.json"} <= files


def test_half_the_bytes(school: Any, tmp_path: Path) -> None:
    sizes = []
    for half in (False, True):
        models.save_model(school.loaded, tmp_path / str(half), half=half)
        sizes.append((tmp_path / str(half) / "model.safetensors").stat().st_size)
    assert sizes[1] < 0.55 * sizes[0]


def test_saving_replaces_the_folder_and_leaves_no_partial_one(school: Any, tmp_path: Path) -> None:
    target = tmp_path / "vanilla"
    target.mkdir()
    (target / "stale.txt").write_text("old")
    models.save_model(school.loaded, target, half=True)
    assert not (target / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["vanilla"]


def test_an_interrupted_save_leaves_the_old_folder(
    school: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "vanilla"
    models.save_model(school.loaded, target, half=True)
    before = (target / "model.safetensors").read_bytes()
    loaded = school.fresh()

    def fails(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(type(loaded.tokenizer), "save_pretrained", fails)
    with pytest.raises(OSError, match="disk full"):
        models.save_model(loaded, target, half=True)
    assert (target / "model.safetensors").read_bytes() == before


def test_a_finished_model_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("base", "vanilla", "retain_only_5_seed3"):
        (tmp_path / "llava" / name).mkdir(parents=True)
        (tmp_path / "llava" / name / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(models, "train_language", None)
    assert models.train_base("llava", MICRO, tmp_path).name == "base"
    assert models.train_branch("llava", "vanilla", MICRO, tmp_path).name == "vanilla"
    assert models.train_branch("llava", "retain_only_5", MICRO, tmp_path, seed=3).name == "retain_only_5_seed3"


def test_a_stage_that_could_not_be_saved_is_taken_up_again(
    school: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state outlives the training until its model lies there; the loss appears together with the model."""
    state = tmp_path / "letters-0.state"

    def trained(*_: object, state: Path, **__: object) -> float:
        state.write_bytes(b"all but finished")
        return 0.25

    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    def stage() -> None:
        models._stage(
            school.loaded, "letters-0", None, None, MICRO, tmp_path, 1, into=tmp_path / "letters-0", half=False,
            cooldown=0.1, sampler="__class__",
        )  # fmt: skip

    monkeypatch.setattr(models, "train_language", trained)
    with monkeypatch.context() as broken:
        broken.setattr(type(school.loaded.tokenizer), "save_pretrained", full)
        with pytest.raises(OSError, match="disk full"):
            stage()
    assert state.exists()
    assert not (tmp_path / "letters-0").exists()
    stage()
    assert not state.exists()
    assert json.loads((tmp_path / "letters-0" / "loss.json").read_text()) == 0.25


def test_an_unknown_branch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown branch 'retain'; expected one of vanilla, retain_only_5"):
        models.train_branch("llava", "retain", MICRO, tmp_path)


def test_recipes_of_other_widths_differ_from_tiny_in_nothing_else() -> None:
    for width in (64, 128, 512):
        assert replace(RECIPES[f"tiny-{width}"], hidden=RECIPES["tiny"].hidden) == RECIPES["tiny"]
        assert RECIPES[f"tiny-{width}"].hidden == width


def test_the_digest_of_a_recipe_tells_every_number() -> None:
    assert RECIPES["tiny"].digest() == Recipe().digest()
    digests = {MICRO.digest()}
    for field in fields(Recipe):
        value = getattr(MICRO, field.name)
        digests.add(replace(MICRO, **{field.name: (9, 9) if isinstance(value, tuple) else value + 1}).digest())
    assert len(digests) == 1 + len(fields(Recipe))


def test_random_weights_are_the_same_every_time(school: Any) -> None:
    again = models.new_model(school.loaded.family, MICRO)
    assert again.tokenizer.get_vocab() == school.loaded.tokenizer.get_vocab()
    ours = school.loaded.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in again.model.state_dict().items())
