"""The lines that README and book show for a model of one's own: they run as printed, but for the size of the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from eraser_lib import Eraser
from tests.core.conftest import FAMILIES, LAYERS, Tiny, make_model

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def example(page: str) -> str:
    return EXAMPLE.findall((ROOT / page).read_text())[0]


def test_readme_and_book_show_the_same() -> None:
    assert example("README.md") == example("book/api.md")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_example_runs(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Tiny(family, torch.float32, make_model(family, torch.float32))
    g = torch.Generator().manual_seed(0)

    def prompts(count: int, first: int) -> dict[str, Any]:
        """Prompts of six tokens that begin with one of their kind."""
        rows = torch.randint(20, 60, (count, 6), generator=g).tolist()
        return tiny.inputs([([1, first, *row], None) for row in rows])

    names: dict[str, Any] = {
        "model": tiny.model, "forget_inputs": prompts(12, 10), "retain_inputs": prompts(80, 11),
        "other_retain_inputs": prompts(120, 11), "refused_inputs": prompts(8, 12), "answered_inputs": prompts(8, 11),
        "inputs": prompts(2, 11),
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    small = example("README.md").replace("HookSite(20)", f"HookSite({LAYERS - 1})").replace("last=10", "last=1")
    exec(compile(small, "README.md", "exec"), names)
    eraser = names["eraser"]
    assert isinstance(eraser, Eraser)
    scores = names["scores"]
    assert scores.shape == (120,)
    threshold = float(eraser.gates[names["late"]].threshold)
    assert (scores > threshold).float().mean() <= 0.01
    again = Eraser.from_pretrained(tmp_path / "my-eraser", model=tiny.model)
    assert torch.equal(again.gates[names["late"]].weight, eraser.gates[names["late"]].weight)
    assert again.metadata["config_hash"]
