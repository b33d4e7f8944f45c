"""The benchmark's LoRA recipe: it learns, it resumes to the same weights, and it leaves a plain checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from eraser_lib.bench.world import make_world, write_world
from eraser_lib.families import load_model
from eraser_lib.study.paths import root
from eraser_lib.train import finetune as module
from eraser_lib.train.finetune import LoraRecipe, finetune, profiles

SHORT = LoraRecipe(epochs=2, batch=4, lr=3e-3, save_every=3, dropout=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_world(make_world(fictitious=20, celebrities=4, strangers=6), folder)
    return folder


def test_profiles_leave_out_whom_they_should(data: Path) -> None:
    everybody, rest = profiles(data), profiles(data, without="forget_10")
    gone = {row.person for row in everybody} - {row.person for row in rest}
    assert len({row.person for row in everybody}) == 20 and len(gone) == 2
    assert all(row.prompt.image is not None and row.answer for row in everybody)


def test_training_lowers_the_loss_and_leaves_a_plain_checkpoint(school: Any, data: Path, tmp_path: Path) -> None:
    rows = profiles(data)[:16]
    vanilla = root() / "checkpoints" / "tiny" / school.loaded.family / "vanilla"  # it can speak, and knows others
    loaded = load_model(vanilla)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    out = finetune(loaded, rows, SHORT, tmp_path / "vanilla")
    assert {path.name for path in tmp_path.iterdir()} == {"vanilla"}, "no state is left behind"
    made = load_model(out)
    assert not any("lora" in name for name in made.model.state_dict())
    changed = {name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("language_model" in name for name in changed)
    losses = []
    for each in (load_model(vanilla), made):
        inputs = each.encode([row.prompt for row in rows], [row.answer for row in rows])
        with torch.no_grad():
            losses.append(float(each.model(**inputs).loss))
    assert losses[1] < 0.5 * losses[0]
    assert finetune(loaded, rows, SHORT, out) == out, "a finished training is kept"


def test_a_stopped_training_goes_on_to_the_same_weights(
    school: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = profiles(data)[:16]
    straight = load_model(finetune(school.fresh(), rows, SHORT, tmp_path / "straight"))
    real = module._batches

    def stopping(*arguments: Any) -> Any:
        for step, batch in real(*arguments):
            if step == 5:
                raise KeyboardInterrupt
            yield step, batch

    monkeypatch.setattr(module, "_batches", stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune(school.fresh(), rows, SHORT, tmp_path / "stopped")
    assert (tmp_path / "stopped.state" / "step.json").is_file() and not (tmp_path / "stopped").exists()
    monkeypatch.setattr(module, "_batches", real)
    torch.manual_seed(99)
    resumed = load_model(finetune(school.fresh(), rows, SHORT, tmp_path / "stopped"))
    first, second = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_no_rows_is_an_error(school: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        finetune(copy.copy(school.loaded), [], SHORT, tmp_path / "out")
