"""What notebooks open: fingerprints of weights, checkpoints from elsewhere, and the floor of forgetting."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from eraser_lib.experiments import dev as module
from eraser_lib.experiments import study as opened
from eraser_lib.experiments.study import Study, open_study


def test_weights_are_told_by_one_file_or_by_all_shards(tmp_path: Path) -> None:
    study = Study(preset="toy", model="llava", split=5, checkpoints=tmp_path)
    folder = study.branch("vanilla")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    assert study.weights("vanilla") == hashlib.sha256(b"weights").hexdigest()[:16]
    seen = {study.weights("vanilla")}
    for content in (b"first", b"other"):
        (folder / "model-2.safetensors").write_bytes(content)
        seen.add(study.weights("vanilla"))
    assert len(seen) == 3
    for name in ("retain_only_5_seed1", "retain_only_5", "retain_only_10"):
        (tmp_path / "llava" / name).mkdir()
        (tmp_path / "llava" / name / "model-00001-of-00002.safetensors").write_bytes(b"shard")
        (tmp_path / "llava" / name / "model-00002-of-00002.safetensors").write_bytes(b"shard")
    assert study.retain_only() == ["retain_only_5", "retain_only_5_seed1"]


def test_a_preset_may_ask_its_models_to_know_less() -> None:
    floors = {name: open_study(name, "llava", 5).memorised for name in ("tiny", "tiny-128", "gpu")}
    assert floors == {"tiny": 0.95, "tiny-128": 0.9, "gpu": 0.4}


def test_weights_from_elsewhere_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"weights")
    elsewhere = {"vanilla": str(tmp_path / "mine"), "retain_only_5": "somebody/retained"}
    study = Study(preset="toy", model="llava", split=5, checkpoints=tmp_path / "none", elsewhere=elsewhere)
    assert study.weights("vanilla") == hashlib.sha256(b"weights").hexdigest()[:16]
    assert study.weights("retain_only_5") == hashlib.sha256(b"somebody/retained").hexdigest()[:16]
    assert study.retain_only() == ["retain_only_5"]
    with pytest.raises(FileNotFoundError, match="holds no"):
        study.weights("base")


def test_a_branch_may_come_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(opened, "load_model", lambda source, **options: asked.append((source, options["dtype"])))
    study = open_study("paper", "qwen", 10, out=str(tmp_path))
    study.load("base")
    study.load("vanilla")
    assert [str(dtype) for _, dtype in asked] == ["torch.bfloat16"] * 2
    assert asked[0][0] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert asked[1][0] == study.checkpoints / "qwen" / "vanilla"
    assert study.vocabulary is None, "these models know more words than the tiny world"
    with pytest.raises(FileNotFoundError, match="notebook 01_benchmark"):
        print(study.world)


def test_without_strangers_the_floor_is_a_model_that_has_met_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = {("vanilla", "dev"): 0.9, ("vanilla", "kept"): 0.8, ("base", "dev"): 0.2, ("vanilla", "x"): 0.3}

    def quick(rows: list[str], model: str) -> pd.DataFrame:
        return pd.DataFrame({"answer_prob": [probabilities[model, row] for row in rows]})

    study: Any = SimpleNamespace(
        world=SimpleNamespace(population=SimpleNamespace(dev=(), by_id=lambda ids: [])), world_folder=None, split=5,
        sizes=SimpleNamespace(per_person=1, select=2), vanilla="vanilla", quick=quick, load=lambda branch: branch,
    )  # fmt: skip
    monkeypatch.setattr(module, "fit_sets", lambda *_, **__: {})
    monkeypatch.setattr(module, "dev_questions", lambda *_, **__: ["dev", "dev"])
    monkeypatch.setattr(module, "kept_select_questions", lambda *_, **__: ["kept"])
    for strangers, floor in (([], 0.2), (["x"], 0.3)):
        monkeypatch.setattr(module, "stranger_questions", lambda *_, found=strangers, **__: found)
        assert module.open_rows(study).baseline == {"dev": 0.9, "kept": 0.8, "stranger": floor}
