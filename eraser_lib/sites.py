"""Where a vector is read from, or added to, the residual stream: hook sites and the language decoder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Where = Literal["input", "output"]


@dataclass(frozen=True, order=True)
class HookSite:
    """One place in the residual stream: the input or the output of one decoder block.

    The public code of MLLMEraser extracts at the input of block `i` and steers at the output of block `i`.
    The two streams differ by a whole block, so the site is part of every artifact here.
    """

    layer: int
    """Index of the decoder block, counted from 0."""

    where: Where = "output"
    """`"input"` (before the block) or `"output"` (after it, before the final norm)."""

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise ValueError(f"HookSite.layer is {self.layer}; blocks are counted from 0 upwards.")
        if self.where not in ("input", "output"):
            raise ValueError(f"HookSite.where is {self.where!r}; it must be 'input' or 'output'.")

    def __str__(self) -> str:
        return f"{self.layer}.{self.where}"

    @classmethod
    def parse(cls, text: str) -> HookSite:
        """The inverse of `str`: `"3.output"` -> `HookSite(3, "output")`."""
        match = re.fullmatch(r"(\d+)\.(input|output)", text)
        if match is None:
            raise ValueError(f"{text!r} is not a hook site; expected for example '3.output' or '0.input'.")
        return cls(int(match[1]), "input" if match[2] == "input" else "output")

    @property
    def depth(self) -> int:
        """Position along the forward pass: sites with a smaller depth are computed earlier."""
        return 2 * self.layer + (self.where == "output")


@dataclass(frozen=True)
class Decoder:
    """The language decoder of a multimodal model."""

    module: nn.Module
    """The module whose forward runs all blocks."""

    layers: nn.ModuleList
    """Its blocks, in order."""

    hidden_size: int
    """Width `d` of the residual stream."""

    def block(self, site: HookSite) -> nn.Module:
        """The block that a site belongs to. Raises `ValueError` for a layer that the decoder does not
        have."""
        if site.layer >= len(self.layers):
            raise ValueError(
                f"Hook site {site} asks for block {site.layer}, but the decoder has {len(self.layers)} "
                f"blocks (0 to {len(self.layers) - 1})."
            )
        return self.layers[site.layer]

    def device(self, site: HookSite) -> torch.device:
        """The device on which a site's activations live.

        Weights that accelerate keeps in memory or on disk are on the device `meta` between two passes; the block then
        says itself where it runs.
        """
        block = self.block(site)
        runs_on = getattr(getattr(block, "_hf_hook", None), "execution_device", None)
        if runs_on is not None:
            return torch.device(runs_on)
        return next(block.parameters()).device


def find_decoder(model: nn.Module) -> Decoder:
    """Find the language decoder of a transformers model from its configuration.

    Modules are never counted: the vision tower of Qwen2.5-VL has more blocks than many decoders. The decoder
    is what `model.get_decoder()` returns, and it is checked against `model.config.get_text_config()`.

    Raises `TypeError` when the model is not a transformers model or has no list of blocks, and `ValueError`
    when module and configuration disagree on the number of blocks or on the hidden size.
    """
    config: Any = getattr(model, "config", None)
    get_decoder: Any = getattr(model, "get_decoder", None)
    if not callable(get_decoder) or not hasattr(config, "get_text_config"):
        raise TypeError(
            f"{type(model).__name__} has no get_decoder() or no config.get_text_config(); pass a "
            "transformers model such as LlavaForConditionalGeneration or Qwen2_5_VLForConditionalGeneration."
        )
    text = config.get_text_config()
    module = get_decoder()
    layers = getattr(module, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise TypeError(
            f"The decoder of {type(model).__name__} is a {type(module).__name__} without a list of blocks in "
            "`.layers`; this architecture is not supported."
        )
    if len(layers) != text.num_hidden_layers:
        raise ValueError(
            f"The decoder {type(module).__name__} has {len(layers)} blocks, but the text configuration says "
            f"{text.num_hidden_layers}. Load the model with the configuration that belongs to its weights."
        )
    width = getattr(getattr(module, "config", text), "hidden_size", None)
    if width != text.hidden_size:
        raise ValueError(
            f"The decoder {type(module).__name__} has hidden size {width}, but the text configuration says "
            f"{text.hidden_size}."
        )
    return Decoder(module, layers, int(text.hidden_size))


def every_layer(
    model: nn.Module, where: Where = "output", *, first: int = 0, last: int | None = None
) -> tuple[HookSite, ...]:
    """Sites of all blocks `first..last` (inclusive; `last=None` is the last block)."""
    count = len(find_decoder(model).layers)
    stop = count - 1 if last is None else last
    if not 0 <= first <= stop < count:
        raise ValueError(f"Layers {first}..{stop} do not fit a decoder with blocks 0..{count - 1}.")
    return tuple(HookSite(layer, where) for layer in range(first, stop + 1))


def in_order(sites: Iterable[HookSite]) -> tuple[HookSite, ...]:
    """Sites without repetition, in the order of the forward pass."""
    return tuple(sorted(set(sites), key=lambda site: site.depth))


def last_real_token(mask: Tensor) -> Tensor:
    """Index of the last non-zero entry of each row, for left or right padding, without a device
    synchronisation.

    `mask`: shape `(B, T)`. Returns shape `(B,)`, int64. A row of zeros gives `T - 1`.
    """
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = (mask.ne(0) * steps).amax(dim=1) - 1  # (B,)
    return torch.where(last < 0, mask.shape[1] - 1, last)
