"""Models to measure on: the tiny ones, and real configurations with random weights.

The numbers of `REAL` are those of the checkpoints' own ``config.json`` on the hub. Random weights are right for cost
and for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from eraser_lib.families import FAMILIES, load_model
from eraser_lib.study.paths import root


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


REAL = {
    "llava-hf/llava-1.5-7b-hf": Shape("llava", 4096, 32, 11008, 32, 32, 7.06),
    "llava-hf/llava-1.5-13b-hf": Shape("llava", 5120, 40, 13824, 40, 40, 13.35),
    "Qwen/Qwen2.5-VL-3B-Instruct": Shape("qwen", 2048, 36, 11008, 16, 2, 3.75),
    "Qwen/Qwen2.5-VL-7B-Instruct": Shape("qwen", 3584, 28, 18944, 28, 4, 8.29),
    "Qwen/Qwen2.5-VL-32B-Instruct": Shape("qwen", 5120, 64, 27648, 40, 8, 33.45),
    "Qwen/Qwen2.5-VL-72B-Instruct": Shape("qwen", 8192, 80, 29568, 64, 8, 73.41),
}
TINY = tuple(f"tiny-{family}" for family in FAMILIES)


def real_model(shape: Shape, *, device: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """The model of a shape with random weights; on device `meta` it has none and takes no memory."""
    text: dict[str, Any] = {
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
    with torch.device(device):
        return model._from_config(config, dtype=dtype).eval()


def open_model(name: str, *, device: str, blocks: int = 0) -> Any:
    """A model to measure: `tiny-llava`, `tiny-qwen`, or a name of `REAL`.

    The tiny ones run in float32, as in the study, the others in bfloat16 with random weights. `blocks` leaves only so
    many decoder blocks of a real one, each of its full size, for a machine that cannot hold them all; 0 means all.
    `ValueError` for another name, or for a tiny model that is to be cut.
    """
    if name in TINY:
        if blocks:
            raise ValueError(f"{name} is small enough: leave out the number of blocks")
        return load_model(_folder(name), device=device).model
    if name not in REAL:
        raise ValueError(f"There is no model {name!r}. Known: {', '.join((*TINY, *REAL))}.")
    shape = REAL[name]
    return real_model(replace(shape, layers=min(blocks or shape.layers, shape.layers)), device=device)


def family_of(name: str) -> Any:
    """The family's module of `eraser_lib.families` for a name that `open_model` takes."""
    return FAMILIES[name.removeprefix("tiny-") if name in TINY else REAL[name].family]


def processor_of(name: str) -> Any:
    """A processor for a name that `open_model` takes. That of a real shape makes pictures ready and knows no words: it
    has an `image_processor` and no tokenizer."""
    family = family_of(name)
    if name in TINY:
        return family.build_processor(AutoTokenizer.from_pretrained(_folder(name)))
    if family is FAMILIES["llava"]:
        return SimpleNamespace(
            image_processor=CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
        )
    return SimpleNamespace(image_processor=Qwen2VLImageProcessorPil())  # its defaults are those of the checkpoints


def _folder(name: str) -> Path:
    return root() / "checkpoints" / "tiny" / name.removeprefix("tiny-") / "vanilla"
