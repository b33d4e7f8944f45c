"""Loading a checkpoint: the right class and processor, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from eraser_lib.bench.records import Prompt
from eraser_lib.families import FAMILIES, Loaded, load_model
from eraser_lib.train.models import save_model


def test_a_saved_model_loads_as_the_same_model(loaded: Loaded, prompts: list[Prompt], tmp_path: Path) -> None:
    save_model(loaded, tmp_path / "model", half=False)
    again = load_model(tmp_path / "model")
    assert again.family == loaded.family
    assert type(again.model) is FAMILIES[loaded.family].MODEL_CLASS
    assert type(again.processor) is type(loaded.processor)
    assert not again.model.training
    one, two = loaded.encode(prompts), again.encode(prompts)
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    with torch.no_grad():
        assert torch.equal(loaded.model(**one).logits, again.model(**two).logits)


def test_dtype_is_the_asked_one(loaded: Loaded, prompts: list[Prompt], tmp_path: Path) -> None:
    save_model(loaded, tmp_path / "model", half=False)
    again = load_model(tmp_path / "model", dtype=torch.bfloat16)
    assert again.model.dtype == torch.bfloat16
    assert again.encode(prompts)["pixel_values"].dtype == torch.bfloat16


def test_a_missing_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*vanilla\. Name a folder.*; `make models` trains"):
        load_model(tmp_path / "vanilla")
    with pytest.raises(FileNotFoundError, match="checkpoints/tiny/llava/nothing"):
        load_model("checkpoints/tiny/llava/nothing")


def test_another_architecture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="is a 'llama' model; supported are llava, qwen2_5_vl"):
        load_model(tmp_path)
