"""Random pictures, prompts about them, and PGD on them, as it makes the recall side of the paper's direction."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import shapes
from eraser_lib.adversarial import Loss, pgd

EPSILON, STEP = 16 / 255, 2 / 255
"""Radius and step of the study's PGD, in units of the pixel range. What it costs depends on neither."""
TARGET = 4
"""Tokens of the answer that the attack wants to begin."""
TEXT = 24
"""Tokens beside the picture's that a prompt has at least, answer included."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Pictures with a prompt about each."""

    pixels: Tensor
    """Random, `(N, 3, H, W)` in [0, 1], of the size that the vision tower takes."""
    inputs: dict[str, Tensor]
    """What the model takes beside pixels, `(N, T)` each, and the `labels` of the wanted answer."""
    ready: Callable[[Tensor], dict[str, Tensor]]
    """Pixels -> model inputs, differentiable: the family's own way."""


def shown(model: Any, name: str, count: int, width: int) -> Shown:
    """Random pictures and prompts for a model that `shapes.open_model` made of `name`.

    `width`: tokens of a prompt with its picture and answer; more where the picture leaves no room for text.
    """
    family, processor = shapes.family_of(name), shapes.processor_of(name)
    config, generator = model.config, torch.Generator().manual_seed(0)
    across, down = family.input_size(processor)
    side = config.vision_config.patch_size * getattr(config.vision_config, "spatial_merge_size", 1)
    picture = [config.image_token_id] * ((across // side) * (down // side))
    if starts := getattr(config, "vision_start_token_id", None):
        picture = [starts, *picture, config.vision_end_token_id]
    ids = torch.randint(20, 200, (count, max(width, len(picture) + TEXT)), generator=generator)
    ids[:, 1 : 1 + len(picture)] = torch.tensor(picture)
    labels = torch.full_like(ids, -100)
    labels[:, -TARGET:] = ids[:, -TARGET:]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    if family is shapes.FAMILIES["qwen"]:
        inputs["mm_token_type_ids"] = ids.eq(config.image_token_id).long()
    pixels = torch.rand(count, 3, down, across, generator=generator)
    return Shown(
        pixels.to(model.device),
        {key: value.to(model.device) for key, value in inputs.items()},
        functools.partial(family.pixel_inputs, processor),
    )


def answer_loss(model: Any, inputs: dict[str, Tensor], ready: Callable[[Tensor], dict[str, Tensor]]) -> Loss:
    """What the study's PGD minimises: nats per token of the wanted answer, one for each picture. `inputs`, `ready`: of
    `Shown`."""
    wanted = inputs["labels"][:, 1:]
    fixed = {key: value for key, value in inputs.items() if key != "labels"}

    def loss(pixels: Tensor) -> Tensor:
        given = ready(pixels)
        given["pixel_values"] = given["pixel_values"].to(model.dtype)
        logits = model(**fixed, **given, use_cache=False).logits[:, :-1].float()
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none", ignore_index=-100)
        return each.sum(1) / (wanted >= 0).sum(1)  # (N,)

    return loss


def attack(model: Any, about: Shown, *, steps: int, at_once: int) -> None:
    """PGD on all pictures, `at_once` at a time: a pass forward and back, through decoder and vision tower, per step."""
    with _frozen(model):
        for start in range(0, len(about.pixels), at_once):
            part = slice(start, start + at_once)
            loss = answer_loss(model, {key: value[part] for key, value in about.inputs.items()}, about.ready)
            pgd(
                loss, about.pixels[part], epsilon=EPSILON, step=STEP, steps=steps,
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Weights that could learn would keep what their gradients need: at 7B more than the rest of a pass."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
