"""Tiny random models of both real classes, and inputs made by hand: mixed rows, padding on either side."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

WIDTH, LAYERS, VOCABULARY = 32, 4, 64
PAD, IMAGE, IMAGE_TOKENS = 0, 5, 4
FAMILIES = ("llava", "qwen")

Row = tuple[list[int], Tensor | None]


def _llava() -> LlavaForConditionalGeneration:
    text = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, pad_token_id=PAD,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=LAYERS + 1, num_attention_heads=2,
        image_size=8, patch_size=4,
    )  # fmt: skip
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_token_id=IMAGE)
    )


def _qwen() -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 48,
            "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
            "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 2,
        },
        vision_config={
            "depth": LAYERS + 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16, "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [LAYERS],
        },
        image_token_id=IMAGE, video_token_id=8, vision_start_token_id=6, vision_end_token_id=7,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


@functools.cache
def make_model(family: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    model = _llava() if family == "llava" else _qwen()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:  # large weights: rows, positions and patches must all matter
            std = 1.0 if "embed_tokens" in name else 0.25
            parameter.data.normal_(0, std, generator=generator)
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None
    return model.to(dtype).eval()


def _image(seed: int) -> Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))


ROWS: tuple[Row, ...] = (
    ([1, *[IMAGE] * IMAGE_TOKENS, 20, 21, 22], _image(0)),
    ([1, 30, 31], None),
    ([1, 40, *[IMAGE] * IMAGE_TOKENS, 41, 42, 43, 44], _image(1)),
    ([1, 50, 51, 52, 53, 54], None),
)
"""Two rows with an image and two text-only rows, all of different length."""


@dataclass
class Tiny:
    """A tiny model and the inputs for it."""

    family: str
    dtype: torch.dtype
    model: Any
    rows: Sequence[Row] = ROWS

    def inputs(self, rows: Sequence[Row] = ROWS, *, side: str = "left") -> dict[str, Tensor]:
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), width), PAD)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for row, (tokens, _) in enumerate(rows):
            place = slice(width - len(tokens), width) if side == "left" else slice(0, len(tokens))
            ids[row, place], mask[row, place] = torch.tensor(tokens), 1
        result = {"input_ids": ids, "attention_mask": mask}
        images = [image for _, image in rows if image is not None]
        if self.family == "qwen":
            result["mm_token_type_ids"] = (ids == IMAGE).long()
        if images and self.family == "llava":
            result["pixel_values"] = torch.stack(images)[:, :, ::2, ::2].contiguous().to(self.dtype)
        elif images:
            # 4 x 4 patches of 4 x 4 pixels in groups of 2 x 2, the frame repeated over the temporal patch
            x = torch.stack(images).view(-1, 3, 2, 2, 4, 2, 2, 4).permute(0, 2, 5, 3, 6, 1, 4, 7)
            x = x.reshape(-1, 3, 1, 4, 4).expand(-1, 3, 2, 4, 4)
            result["pixel_values"] = x.reshape(-1, 3 * 2 * 4 * 4).to(self.dtype)
            result["image_grid_thw"] = torch.tensor([[1, 4, 4]] * len(images))
        return result

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return self.model(**inputs).logits

    def generate(self, inputs: dict[str, Tensor], *, tokens: Sequence[int] | None = None, **options: Any) -> Tensor:
        """Raw logits `(B, steps, V)` of greedy decoding, or of a forced continuation."""
        if tokens is not None:
            start = inputs["input_ids"].shape[1]
            options |= {
                "prefix_allowed_tokens_fn": lambda _, ids: [tokens[len(ids) - start]],
                "max_new_tokens": len(tokens),
            }
        options = {"max_new_tokens": 5, "do_sample": False, **options}
        out = self.model.generate(**inputs, output_logits=True, return_dict_in_generate=True, **options)
        return torch.stack(out.logits, dim=1)


@pytest.fixture(params=[f"{f}-{d}" for f in FAMILIES for d in ("float32", "bfloat16")])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    family, dtype = request.param.split("-")
    return Tiny(family, getattr(torch, dtype), make_model(family, getattr(torch, dtype)))


@pytest.fixture(params=[f"{f}-{d}" for f in FAMILIES for d in ("float64", "float32", "bfloat16")])
def tiny_any(request: pytest.FixtureRequest) -> Tiny:
    """As `tiny`, in float64 too, for claims with a tolerance."""
    family, dtype = request.param.split("-")
    return Tiny(family, getattr(torch, dtype), make_model(family, getattr(torch, dtype)))


@pytest.fixture(params=FAMILIES)
def tiny32(request: pytest.FixtureRequest) -> Tiny:
    """Both families in float32, for behaviour that does not depend on the dtype."""
    return Tiny(request.param, torch.float32, make_model(request.param, torch.float32))


@pytest.fixture
def qwen() -> Tiny:
    """Qwen2.5-VL in float32, for what only this family does."""
    return Tiny("qwen", torch.float32, make_model("qwen", torch.float32))


@pytest.fixture(params=["left", "right"])
def side(request: pytest.FixtureRequest) -> str:
    return request.param
