"""The configurations that users have, on the meta device: hook sites, sizes and artifacts, without a weight.

The numbers are those of the checkpoints' own ``config.json`` on the hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from eraser_lib import Eraser, HookSite, every_layer, find_decoder
from eraser_lib.gate import Gate
from eraser_lib.hooks import capture, edit


@dataclass(frozen=True)
class Shape:
    """What is known of a checkpoint."""

    family: str
    hidden: int
    layers: int
    mlp: int
    heads: int
    key_value_heads: int
    billions: float
    """Weights of the whole model, with the vision tower."""


SHAPES = {
    "llava-hf/llava-1.5-7b-hf": Shape("llava", 4096, 32, 11008, 32, 32, 7.06),
    "llava-hf/llava-1.5-13b-hf": Shape("llava", 5120, 40, 13824, 40, 40, 13.35),
    "Qwen/Qwen2.5-VL-3B-Instruct": Shape("qwen", 2048, 36, 11008, 16, 2, 3.75),
    "Qwen/Qwen2.5-VL-7B-Instruct": Shape("qwen", 3584, 28, 18944, 28, 4, 8.29),
    "Qwen/Qwen2.5-VL-32B-Instruct": Shape("qwen", 5120, 64, 27648, 40, 8, 33.45),
    "Qwen/Qwen2.5-VL-72B-Instruct": Shape("qwen", 8192, 80, 29568, 64, 8, 73.41),
}


def empty(shape: Shape) -> Any:
    """The model in bfloat16 on the meta device."""
    text = {
        "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "intermediate_size": shape.mlp,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.key_value_heads,
    }  # fmt: skip
    if shape.family == "llava":
        vision = CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
            patch_size=14, projection_dim=768,
        )  # fmt: skip
        config: Any = LlavaConfig(
            vision_config=vision, text_config=LlamaConfig(vocab_size=32064, **text), image_token_index=32000
        )
        model: Any = LlavaForConditionalGeneration
    else:
        small = shape.hidden == 2048
        config = Qwen2_5_VLConfig(
            text_config={
                **text, "vocab_size": 151936 if small else 152064, "tie_word_embeddings": small,
                "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
            },
            vision_config={
                "depth": 32, "hidden_size": 1280, "intermediate_size": 3456 if shape.hidden > 5000 else 3420,
                "num_heads": 16, "out_hidden_size": shape.hidden, "patch_size": 14, "spatial_merge_size": 2,
                "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
            },
            tie_word_embeddings=small,
        )  # fmt: skip
        model = Qwen2_5_VLForConditionalGeneration
    with torch.device("meta"):
        return model._from_config(config, dtype=torch.bfloat16)


@pytest.fixture(scope="module", params=list(SHAPES))
def real(request: pytest.FixtureRequest) -> tuple[Shape, Any]:
    shape = SHAPES[request.param]
    return shape, empty(shape)


def test_it_is_the_checkpoint_that_it_says(real: tuple[Shape, Any]) -> None:
    shape, model = real
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    assert count == pytest.approx(shape.billions, rel=5e-3)


def test_the_language_decoder_is_found_and_not_the_vision_tower(real: tuple[Shape, Any]) -> None:
    shape, model = real
    decoder = find_decoder(model)
    assert decoder.module is model.model.language_model
    assert (len(decoder.layers), decoder.hidden_size) == (shape.layers, shape.hidden)
    assert decoder.device(HookSite(shape.layers - 1)).type == "meta"
    with pytest.raises(ValueError, match=f"the decoder has {shape.layers} blocks"):
        decoder.block(HookSite(shape.layers))


def test_every_site_is_read_and_edited_in_a_forward_pass(real: tuple[Shape, Any]) -> None:
    shape, model = real
    decoder = find_decoder(model)
    sites = (*every_layer(model), HookSite(0, "input"))
    stream = torch.empty(2, 5, shape.hidden, dtype=torch.bfloat16, device="meta")
    touched = []

    def push(site: HookSite) -> Any:
        def apply(values: torch.Tensor) -> torch.Tensor:
            touched.append(site)
            return values + torch.zeros(shape.hidden, dtype=values.dtype, device=values.device)

        return apply

    with (
        torch.no_grad(),
        edit(model, {site: push(site) for site in every_layer(model)}),
        capture(model, sites) as found,
    ):
        decoder.module(inputs_embeds=stream)
    assert touched == list(every_layer(model))
    assert set(found) == set(sites)
    assert {tuple(values.shape) for values in found.values()} == {(2, shape.hidden)}
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in decoder.layers)


def test_an_eraser_fits_the_model_and_stays_small(real: tuple[Shape, Any]) -> None:
    """One request, one gate, ten steered blocks: under 2 MB, against gigabytes of dense matrices."""
    shape, model = real
    late, early = HookSite(shape.layers - 8), every_layer(model, last=9)
    eraser = Eraser(
        directions={site: torch.zeros(1, shape.hidden) for site in early},
        gates={late: Gate(torch.zeros(1, shape.hidden), torch.zeros(1)).with_threshold(1.0)},
    )
    eraser.check(model)
    assert eraser.inspect()["bytes"] <= 2 * 2**20
    with pytest.raises(ValueError, match=f"{shape.layers} blocks"):
        eraser.with_(gates={HookSite(shape.layers): eraser.gates[late]}).check(model)
