"""Reads the residual stream at the last prompt token for many questions, sorted by length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from eraser_lib.bench.records import Prompt, Question
from eraser_lib.families import Loaded
from eraser_lib.hooks import run_capture
from eraser_lib.sites import HookSite, every_layer
from eraser_lib.stream import ahead

Activations = dict[HookSite, Tensor]
"""Hook site -> activations of shape `(N, d)`, one row per prompt."""


def read_activations(
    loaded: Loaded, prompts: Sequence[Prompt], *, sites: Iterable[HookSite] | None = None, batch_size: int = 64
) -> Activations:
    """Residual stream at the last prompt token of every prompt, by default at the output of every block.

    Returns one float32 tensor `(N, d)` per site on the CPU, rows in the order of `prompts`. Attach an eraser
    around the call to read the steered stream.
    """
    wanted = tuple(sites) if sites is not None else every_layer(loaded.model)
    order = sorted(range(len(prompts)), key=lambda i: (prompts[i].image is None, len(prompts[i].text)))
    parts: dict[HookSite, list[Tensor]] = {site: [] for site in wanted}
    chunks = [[prompts[i] for i in order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    for inputs in ahead(loaded.encode, chunks, workers=1):  # pictures are decoded while the model reads
        for site, values in run_capture(loaded.model, inputs, wanted).items():
            parts[site].append(values.float().cpu())
    back = torch.argsort(torch.tensor(order))
    return {site: torch.cat(found)[back] for site, found in parts.items()}


def of_questions(loaded: Loaded, sets: Mapping[str, Sequence[Question]], **options: int) -> dict[str, Activations]:
    """Activations of several question sets in one sweep, split again by set."""
    prompts = [question.prompt for rows in sets.values() for question in rows]
    everything = read_activations(loaded, prompts, **options)  # type: ignore[arg-type]
    found: dict[str, Activations] = {}
    start = 0
    for name, rows in sets.items():
        found[name] = {site: values[start : start + len(rows)] for site, values in everything.items()}
        start += len(rows)
    return found


def join(activations: Activations, layers: Sequence[int]) -> Tensor:
    """The outputs of several blocks side by side, `(N, len(layers) * d)`."""
    return torch.cat([activations[HookSite(layer, "output")] for layer in layers], dim=1)
