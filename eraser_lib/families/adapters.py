"""Where LoRA adapters go."""

from __future__ import annotations

from typing import Any

from torch import nn


def decoder_maps(model: Any) -> list[str]:
    """Full names of all linear maps of the language decoder: names alone would match parts of the vision tower too."""
    decoder = model.get_decoder()
    (prefix,) = (name for name, module in model.named_modules() if module is decoder)
    return [f"{prefix}.{name}" for name, part in decoder.named_modules() if isinstance(part, nn.Linear)]
