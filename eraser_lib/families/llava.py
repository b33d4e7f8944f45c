"""What is particular to LLaVA-1.5: chat format, processor, pixel normalisation, and the tiny configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from eraser_lib.bench.records import Prompt

MODEL_CLASS = LlavaForConditionalGeneration
PROCESSOR_CLASS = LlavaProcessor
HUB_ID = "llava-hf/llava-1.5-7b-hf"
IMAGE_TOKEN = "<image>"
END_OF_TURN = "</s>"
ANCHOR = "ASSISTANT:"
"""How every rendered prompt ends; an answer is tokenised behind it."""
SPECIAL_TOKENS: tuple[str, ...] = ("<pad>", "<s>", END_OF_TURN, "<unk>", IMAGE_TOKEN)
ROLES: tuple[str, ...] = ("USER:", ANCHOR)
"""Words of the chat format; the tiny tokenizer is trained on them too."""

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }} "
    "{% elif m['role'] == 'user' %}USER: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ '\\n' }}{% else %}ASSISTANT: {{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def render(prompt: Prompt) -> str:
    """The chat text of a prompt up to the point where the assistant speaks; one `<image>` for each image."""
    system = f"{prompt.system} " if prompt.system else ""
    shown = "".join(f"USER: {_image(shot)}{shot.text}\n" for shot in prompt.shots)
    return f"{system}{shown}USER: {_image(prompt)}{prompt.text}\n{ANCHOR}"


def _image(prompt: Prompt) -> str:
    return "" if prompt.image is None else f"{IMAGE_TOKEN}\n"


def render_answer(answer: str) -> str:
    """The text that follows `render`: the answer and the end of the turn."""
    return f" {answer}{END_OF_TURN}"


def build_processor(tokenizer: PreTrainedTokenizerFast, *, size: int = 56, patch: int = 14) -> LlavaProcessor:
    """The real processor class for a tiny model whose pictures have `size` x `size` pixels."""
    images = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, do_resize=True
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def input_size(processor: Any) -> tuple[int, int]:
    """Width and height of the one input resolution of the vision tower."""
    crop = processor.image_processor.crop_size
    return int(crop["width"]), int(crop["height"])


def reads(processor: Any, size: tuple[int, int]) -> bool:
    """Whether a picture of this width and height reaches the vision tower as it is."""
    return size == input_size(processor)


def pixel_inputs(processor: Any, images: Tensor) -> dict[str, Tensor]:
    """Model inputs for pixels in [0, 1], differentiable.

    `images`: shape `(B, 3, H, W)` at the model's own input resolution. Returns `pixel_values` of the same shape.
    """
    mean = torch.tensor(processor.image_processor.image_mean, dtype=images.dtype, device=images.device)
    std = torch.tensor(processor.image_processor.image_std, dtype=images.dtype, device=images.device)
    return {"pixel_values": (images - mean[:, None, None]) / std[:, None, None]}


def tiny_config(
    tokenizer: PreTrainedTokenizerFast, *, hidden: int = 256, layers: int = 6, mlp: int = 512, size: int = 56
) -> LlavaConfig:
    """Configuration of the tiny LLaVA: a CLIP tower of 4 layers (the last is unused, as in LLaVA-1.5) and a Llama."""
    ids: Callable[[str], Any] = tokenizer.convert_tokens_to_ids
    vision = CLIPVisionConfig(
        hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        image_size=size, patch_size=14, projection_dim=192,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=1024, rms_norm_eps=1e-5,
        bos_token_id=ids("<s>"), eos_token_id=ids(END_OF_TURN), pad_token_id=ids("<pad>"),
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids(IMAGE_TOKEN),
        image_seq_length=(size // 14) ** 2,
        vision_feature_layer=-2,
    )
