from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from eraser_lib.study import checkpoints, manifest, preset
from eraser_lib.study.paths import StudyError
from eraser_lib.train import recipe
from tests.study.toys import PRESET


@pytest.fixture
def toy(clone: Path, monkeypatch: pytest.MonkeyPatch) -> preset.Preset:
    """A preset with recorded checkpoints for both models; the world is not drawn."""
    monkeypatch.setattr(checkpoints, "world_hash", lambda name: "the world")
    text = PRESET.replace('checkpoints: ""', "checkpoints: checkpoints/toy")
    (clone / "presets" / "toy.yml").write_text(text)
    for model in ("llava", "qwen"):
        for name in ("vanilla", "retain_only_5", "base", "work/letters"):
            folder = clone / "checkpoints" / "toy" / model / name
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_bytes(f"{model} {name}".encode())
            (folder / "config.json").write_text("{}")
    found = preset.load("toy")
    assert len(checkpoints.record(found)) == 4
    return found


def test_a_manifest_says_where_the_model_was_trained(toy: preset.Preset, clone: Path) -> None:
    folder = clone / "checkpoints" / "toy" / "llava" / "retain_only_5"
    assert json.loads((folder / "manifest.json").read_text())["device"] == "cpu", "nothing is known: the preset's"
    (folder / "manifest.json").unlink()
    ran = {"device": "cuda", "machine": "a large one", "torch": "9.9", "threads": 1}
    (folder / "training.json").write_text(json.dumps({**ran, "curve": []}))
    assert len(checkpoints.record(toy)) == 1
    written = json.loads((folder / "manifest.json").read_text())
    assert (written["device"], written["trained"]) == ("cuda", ran)


def test_recorded_checkpoints_are_current_whatever_their_times(toy: preset.Preset, clone: Path) -> None:
    for path in (clone / "checkpoints").rglob("*"):
        os.utime(path, (0, 0))
    assert checkpoints.problems(toy) == []
    checkpoints.require(toy)
    assert checkpoints.record(toy) == [], "a manifest is never rewritten over what it no longer describes"


def test_a_changed_or_missing_file_is_named_with_the_command_that_mends_it(toy: preset.Preset, clone: Path) -> None:
    folder = clone / "checkpoints" / "toy"
    (folder / "llava" / "vanilla" / "config.json").write_text('{"hidden": 3}')
    (folder / "qwen" / "retain_only_5" / "config.json").unlink()
    (folder / "qwen" / "vanilla" / "manifest.json").unlink()
    with pytest.raises(StudyError, match="make models") as caught:
        checkpoints.require(toy)
    for line in (
        "checkpoints/toy/llava/vanilla: config.json is not the file that the manifest names",
        "checkpoints/toy/qwen/retain_only_5: config.json is missing",
        "checkpoints/toy/qwen/vanilla: no manifest.json",
    ):
        assert line in str(caught.value)


def test_absent_weights_are_a_problem(toy: preset.Preset, clone: Path) -> None:
    (clone / "checkpoints/toy/llava/vanilla/model.safetensors").unlink()
    assert checkpoints.problems(toy)[0] == "checkpoints/toy/llava/vanilla holds no model.safetensors"


def test_results_of_weights_that_are_not_shipped_are_told_by_their_manifests(
    toy: preset.Preset, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clone / "checkpoints" / "toy"
    before = [manifest.checkpoint_hash(folder, model, ["vanilla", "retain_only_5*"]) for model in ("llava", None)]
    for path in folder.glob("*/*"):
        for file in (*path.rglob("*.safetensors"), *path.rglob("config.json")):
            file.unlink()
    again = [manifest.checkpoint_hash(folder, model, ["vanilla", "retain_only_5*"]) for model in ("llava", None)]
    assert again == before and None not in before
    assert checkpoints.problems(toy, to_run=False) == []
    with pytest.raises(StudyError, match="has no models that it could run"):
        checkpoints.require(toy)
    monkeypatch.setitem(recipe.RECIPES, "tiny", replace(recipe.TINY, version=recipe.TINY.version + 1))
    assert len(checkpoints.problems(toy, to_run=False)) == 4


def test_another_recipe_makes_checkpoints_stale(toy: preset.Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipe.RECIPES, "tiny", replace(recipe.TINY, version=recipe.TINY.version + 1))
    assert len(checkpoints.problems(toy)) == 4
    assert "which has changed since" in checkpoints.problems(toy)[0]


def test_the_world_is_drawn_again_only_if_its_code_changed(toy: preset.Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def world(name: str) -> str:
        drawn.append(name)
        return "another world"

    monkeypatch.setattr(checkpoints, "world_hash", world)
    assert checkpoints.problems(toy) == []
    assert drawn == []
    monkeypatch.setattr(checkpoints, "_world_code", lambda: "edited")
    assert all(line.endswith("trained on another world") for line in checkpoints.problems(toy))
    assert drawn == ["tiny"]
    monkeypatch.setattr(checkpoints, "world_hash", lambda name: "the world")
    assert checkpoints.problems(toy) == []


def test_stale_models_are_moved_away_and_current_ones_stay(toy: preset.Preset, clone: Path) -> None:
    folder = clone / "checkpoints" / "toy"
    path = folder / "qwen" / "vanilla" / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "recipe": {**content["recipe"], "digest": "old"}}))
    assert checkpoints.retire(toy) == ["checkpoints/toy/.stale/qwen"]
    assert not (folder / "qwen").exists()
    assert (folder / "llava" / "base").exists()
    assert checkpoints.retire(toy) == []


def test_a_preset_without_checkpoints_needs_none(clone: Path) -> None:
    assert checkpoints.problems(preset.load("toy")) == []


def test_fine_tuned_checkpoints_need_weights_and_no_recipe(clone: Path) -> None:
    text = PRESET.replace('checkpoints: ""', "checkpoints: checkpoints/large\nsettings: {data: some/where}")
    (clone / "presets" / "large.yml").write_text(text)
    large = preset.load("large")
    with pytest.raises(StudyError, match="checkpoints/large/llava/vanilla holds no weights") as caught:
        checkpoints.require(large)
    assert "make models PRESET=large" in str(caught.value)
    assert "checkpoints of your own" in str(caught.value)
    assert "git" not in str(caught.value), "they were never committed"
    (clone / "presets" / "large.yml").write_text(text + "\ndevice: cuda\n")
    with pytest.raises(StudyError, match=r"make models PRESET=large REQUIREMENTS=requirements-gpu\.txt"):
        checkpoints.require(preset.load("large"))
    for model in ("llava", "qwen"):
        folder = clone / "checkpoints" / "large" / model / "vanilla"
        folder.mkdir(parents=True)
        (folder / "model-00001-of-00002.safetensors").write_bytes(b"weights")
    checkpoints.require(large)
    assert checkpoints.record(large) == checkpoints.retire(large) == []
