"""What is particular to Qwen2.5-VL: chat format, processor, patchify, and the tiny configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from eraser_lib.bench.records import Prompt

MODEL_CLASS = Qwen2_5_VLForConditionalGeneration
PROCESSOR_CLASS = Qwen2_5_VLProcessor
HUB_ID = "Qwen/Qwen2.5-VL-7B-Instruct"
IMAGE_TOKEN = "<|image_pad|>"
END_OF_TURN = "<|im_end|>"
ANCHOR = "<|im_start|>assistant\n"
"""How every rendered prompt ends; an answer is tokenised behind it."""
SPECIAL_TOKENS: tuple[str, ...] = (
    "<|endoftext|>", "<|im_start|>", END_OF_TURN, "<|vision_start|>", "<|vision_end|>", IMAGE_TOKEN, "<|video_pad|>",
)  # fmt: skip
ROLES: tuple[str, ...] = ("system", "user", "assistant", "You are a helpful assistant.")
"""Words of the chat format; the tiny tokenizer is trained on them too."""
DEFAULT_SYSTEM = "You are a helpful assistant."

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ImageOnlyProcessor(Qwen2_5_VLProcessor):
    """`Qwen2_5_VLProcessor` without its video half, whose base class needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.video_token = IMAGE_TOKEN, "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts this processor is made of."""
        return ["image_processor", "tokenizer"]

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model inputs that a call returns."""
        return [*self.tokenizer.model_input_names, *self.image_processor.model_input_names, "mm_token_type_ids"]


def render(prompt: Prompt) -> str:
    """The chat text of a prompt up to the point where the assistant speaks; one placeholder for each image."""
    system = prompt.system or DEFAULT_SYSTEM
    shown = "".join(f"{_image(shot)}{shot.text}\n" for shot in prompt.shots)
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{shown}{_image(prompt)}{prompt.text}<|im_end|>\n"
        f"{ANCHOR}"
    )


def _image(prompt: Prompt) -> str:
    return "" if prompt.image is None else f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"


def render_answer(answer: str) -> str:
    """The text that follows `render`: the answer and the end of the turn."""
    return f"{answer}{END_OF_TURN}"


def build_processor(tokenizer: PreTrainedTokenizerFast, *, size: int = 56, patch: int = 7) -> ImageOnlyProcessor:
    """The processor for a tiny model whose pictures have `size` x `size` pixels."""
    images = Qwen2VLImageProcessorPil(min_pixels=size * size, max_pixels=size * size, patch_size=patch, merge_size=2)
    return ImageOnlyProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE)


def without_torchvision(name: str, revision: str | None = None) -> ImageOnlyProcessor:
    """The processor of a checkpoint where there is no torchvision, which the video half of the real one needs."""
    images = Qwen2VLImageProcessorPil.from_pretrained(name, revision=revision or "main")
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    return ImageOnlyProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def on_gpu(model: Any) -> None:
    """Let the positions of a prompt be worked out in memory: token by token, on a GPU, is a wait for each of them."""
    inner = model.model
    inner.get_rope_index = partial(_in_memory, type(inner).get_rope_index, inner)


def _in_memory(find: Callable[..., tuple[Tensor, Tensor]], inner: Any, ids: Tensor, **given: Any) -> tuple[Tensor, ...]:
    """`Qwen2_5_VLModel.get_rope_index`, which counts in whole numbers, on the CPU; results come back to `ids`."""
    here = {
        name: value.cpu() if isinstance(value, Tensor) and not value.is_floating_point() else value
        for name, value in given.items()
    }
    return tuple(part.to(ids.device) for part in find(inner, ids.cpu(), **here))


SIDE = 448
"""Side in pixels, about, to which pictures are cut that do not reach the vision tower as they are."""


def input_size(processor: Any) -> tuple[int, int]:
    """Width and height of a square near `SIDE` that the processor leaves as it is."""
    return _resized(processor, (SIDE, SIDE))


def reads(processor: Any, size: tuple[int, int]) -> bool:
    """Whether a picture of this width and height reaches the vision tower as it is."""
    return size == _resized(processor, size)


def _resized(processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height that the processor gives a picture."""
    settings = processor.image_processor
    height, width = smart_resize(
        size[1], size[0], settings.patch_size * settings.merge_size,
        min_pixels=settings.size["shortest_edge"], max_pixels=settings.size["longest_edge"],
    )  # fmt: skip
    return width, height


def pixel_inputs(processor: Any, images: Tensor) -> dict[str, Tensor]:
    """Model inputs for pixels in [0, 1], differentiable.

    `images`: shape `(B, 3, H, W)`, H and W multiples of patch x merge size. Returns `pixel_values` of shape
    `(B * H/p * W/p, 3 * T * p * p)`, where the T temporal copies are tied to the same pixels, and `image_grid_thw`.
    """
    settings = processor.image_processor
    p, m, t = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    mean = torch.tensor(settings.image_mean, dtype=images.dtype, device=images.device)
    std = torch.tensor(settings.image_std, dtype=images.dtype, device=images.device)
    x = (images - mean[:, None, None]) / std[:, None, None]  # (B, 3, H, W)
    batch, channels, height, width = x.shape
    if height % (p * m) or width % (p * m):
        raise ValueError(f"images of {height} x {width} pixels do not divide into patches of {p} merged {m} x {m}")
    gh, gw = height // p, width // p
    x = x.reshape(batch, channels, gh // m, m, p, gw // m, m, p)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, gh/m, gw/m, m, m, 3, p, p)
    x = x.unsqueeze(6).expand(*x.shape[:6], t, p, p)  # the same frame in every temporal slot
    grid = torch.tensor([[1, gh, gw]] * batch, device=images.device)
    return {"pixel_values": x.reshape(batch * gh * gw, channels * t * p * p), "image_grid_thw": grid}


def tiny_config(
    tokenizer: PreTrainedTokenizerFast, *, hidden: int = 256, layers: int = 6, mlp: int = 512, size: int = 56
) -> Qwen2_5_VLConfig:
    """Configuration of the tiny Qwen2.5-VL: windowed vision tower of 3 blocks, grouped-query text model with M-RoPE."""
    ids: Callable[[str], Any] = tokenizer.convert_tokens_to_ids
    head_dim = hidden // 8
    third = head_dim // 2 // 3
    section = [head_dim // 2 - 2 * third, third, third]
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": hidden, "intermediate_size": mlp,
            "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 4,
            "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section},
            "bos_token_id": ids("<|endoftext|>"), "eos_token_id": ids(END_OF_TURN),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 3, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "patch_size": 7,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 28, "fullatt_block_indexes": [1, 2],
            "out_hidden_size": hidden,
        },
        image_token_id=ids(IMAGE_TOKEN), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
