"""What the page on cost shows for fitting without keeping activations: the lines run on both families as printed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eraser_lib import HookSite, contrast, every_layer, fit_eraser, run_capture
from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded


def test_an_eraser_is_fitted_from_prompts_with_pictures_as_the_page_says(loaded: Loaded, prompts: list[Prompt]) -> None:
    """And it is the eraser of kept activations, but for the float32 in which moments are added up."""
    page = (Path(__file__).parents[2] / "book" / "cost.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    sides: dict[str, Any] = {
        name: [replace(prompt, text=f"{prompt.text} {name} {number}") for number in range(12) for prompt in prompts]
        for name in ("refused", "answered", "forget", "retain")
    }
    names = {"loaded": loaded, **sides}
    exec(compile(lines.replace("HookSite(20)", "HookSite(3)").replace("last=10", "last=1"), "cost.md", "exec"), names)
    eraser = names["eraser"]

    def kept(name: str, sites: tuple[HookSite, ...]) -> dict[HookSite, torch.Tensor]:
        parts = [run_capture(loaded.model, loaded.encode(sides[name][n : n + 32]), sites) for n in (0, 32)]
        return {site: torch.cat([part[site] for part in parts]) for site in sites}

    early, late = every_layer(loaded.model, last=1), (HookSite(3),)
    direction = contrast(kept("refused", early), kept("answered", early))
    usual = fit_eraser(kept("forget", late), kept("retain", late), direction, bias=True)
    for site in early:
        torch.testing.assert_close(eraser.directions[site], usual.directions[site], rtol=1e-6, atol=1e-9)
    gate, wanted = eraser.gates[late[0]], usual.gates[late[0]]
    rows = torch.cat([kept("forget", late)[late[0]], kept("retain", late)[late[0]]]).double()
    torch.testing.assert_close(gate(rows), wanted(rows), rtol=0, atol=1e-3)
