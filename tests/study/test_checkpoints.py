from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from eraser_lib.study import checkpoints, manifest, matrix, preset
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


def unship(folder: Path) -> None:
    """Leave nothing of the models, as in a clone."""
    shutil.rmtree(folder)


def test_results_of_weights_that_are_not_committed_are_told_by_their_records(
    toy: preset.Preset, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = [job for job in matrix.jobs(toy).values() if job.branches]
    before = [manifest.inputs(job, toy)["checkpoint"] for job in reading]
    checkpoints.keep_records(toy, toy.records)
    unship(clone / "checkpoints" / "toy")
    assert [manifest.inputs(job, toy)["checkpoint"] for job in reading] == before and reading and None not in before
    assert checkpoints.problems(toy, to_run=False) == []
    with pytest.raises(StudyError, match="has no models that it could run"):
        checkpoints.require(toy)
    monkeypatch.setitem(recipe.RECIPES, "tiny", replace(recipe.TINY, version=recipe.TINY.version + 1))
    assert len(checkpoints.problems(toy, to_run=False)) == 4


def test_models_that_were_trained_here_stay_beside_the_records_of_others(toy: preset.Preset, clone: Path) -> None:
    """As on a runner that trains, is stopped, and checks out the commit again before it goes on."""
    checkpoints.keep_records(toy, toy.records)
    folder = clone / "checkpoints" / "toy"
    for path in folder.glob("*/*/model.safetensors"):
        path.write_bytes(b"trained here: " + path.read_bytes())
        (path.parent / "manifest.json").unlink(missing_ok=True)
    assert len(checkpoints.record(toy)) == 4
    assert checkpoints.retire(toy) == [] and checkpoints.problems(toy) == []
    mine = manifest.inputs(job := next(job for job in matrix.jobs(toy).values() if job.branches), toy)["checkpoint"]
    unship(folder)
    assert manifest.inputs(job, toy)["checkpoint"] not in (mine, None), "that of the reference"


def test_what_is_recorded_of_a_checkpoint_outlives_a_run_without_it(toy: preset.Preset, clone: Path) -> None:
    folder = clone / "checkpoints" / "toy"
    (folder / "llava" / "vanilla" / "training.json").write_text('{"device": "here"}')
    (folder / "llava" / "old.partial").mkdir()
    (folder / "llava" / "old.partial" / "training.json").write_text("{}")
    checkpoints.keep_records(toy, toy.records)
    unship(folder)
    checkpoints.keep_records(toy, clone / "again")
    kept = sorted(path.relative_to(clone / "again").as_posix() for path in (clone / "again").rglob("*.json"))
    assert kept == sorted(
        ["llava/vanilla/training.json"]
        + [f"{model}/{name}/manifest.json" for model in ("llava", "qwen") for name in ("vanilla", "retain_only_5")]
    )


@pytest.mark.parametrize("name", ["", *checkpoints.SHIPPED])
def test_of_committed_checkpoints_no_record_is_needed(toy: preset.Preset, clone: Path, name: str) -> None:
    checkpoints.keep_records(replace(toy, checkpoints=name), clone / "records")
    assert not (clone / "records").exists()


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
