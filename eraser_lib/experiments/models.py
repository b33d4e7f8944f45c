"""What the models of the study are made of."""

from __future__ import annotations

from typing import Any

from PIL import Image

from eraser_lib.bench.portraits import SIZE
from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded
from eraser_lib.sites import find_decoder


def describe(loaded: Loaded) -> dict[str, Any]:
    """Sizes by name: weights, blocks, widths, vocabulary, and how many tokens a portrait takes."""
    text = loaded.model.config.get_text_config(decoder=True)
    with_picture, without = (
        loaded.encode([Prompt("hat", image)])["input_ids"].shape[1] for image in (Image.new("RGB", (SIZE, SIZE)), None)
    )
    return {
        "parameters": int(loaded.model.num_parameters()),
        "blocks of the language decoder": len(find_decoder(loaded.model).layers),
        "width of the residual stream": int(text.hidden_size),
        "attention heads": int(text.num_attention_heads),
        "neurons of an MLP": int(text.intermediate_size),
        "tokens in the vocabulary": int(text.vocab_size),
        "pixels of a portrait": f"{SIZE} x {SIZE}",
        "tokens that a portrait adds": int(with_picture - without),
    }
