"""One way to load, prompt and run a model of either family."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, BitsAndBytesConfig

from eraser_lib.bench.records import Prompt
from eraser_lib.families import hub, llava, qwen

FAMILIES: dict[str, ModuleType] = {"llava": llava, "qwen": qwen}
_MODEL_TYPES = {"llava": "llava", "qwen2_5_vl": "qwen"}


@dataclass
class Loaded:
    """A model with the processor and the chat format that belong to it."""

    model: Any
    processor: Any
    family: str
    """`llava` or `qwen`."""

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def module(self) -> ModuleType:
        """The family's own module (chat format, pixels, configuration)."""
        return FAMILIES[self.family]

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer as they follow a prompt, with the end of the turn.

        They are those of the whole text: a tokenizer of Llama's writes a blank of its own before a text, so that an
        answer alone would begin with one too many.
        """
        anchor, text = self.module.ANCHOR, self.module.render_answer(answer)
        before, whole, alone = self.tokenizer([anchor, anchor + text, text], add_special_tokens=False)["input_ids"]
        ids: list[int] = whole[len(before) :] if whole[: len(before)] == before else alone
        return ids

    def encode(
        self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None, *, padding_side: str = "left"
    ) -> dict[str, Tensor]:
        """Model inputs on the model's device; text-only and image prompts may be mixed.

        Returns `input_ids`, `attention_mask` of shape `(B, T)`, `pixel_values` and what else the family needs.
        With `answers`, each row ends with the answer and the end of the turn, and `labels` of shape `(B, T)`
        holds their ids, -100 elsewhere. `ValueError` for a wrong number of answers or an unknown padding side.
        """
        if answers is not None and len(answers) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(answers)} answers; give one answer for each prompt")
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is {padding_side!r}; it must be 'left' or 'right'")
        images = [image for prompt in prompts for image in prompt.images]
        texts = [self.module.render(prompt) for prompt in prompts]
        batch = self.processor(text=texts, images=images or None, return_mm_token_type_ids=True)
        rows, types = batch["input_ids"], batch["mm_token_type_ids"]
        tails = [[] if answers is None else self.answer_ids(answers[i]) for i in range(len(rows))]
        longest = max(len(row) + len(tail) for row, tail in zip(rows, tails, strict=True))
        columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": [], "mm": []}
        for row, tail, kinds in zip(rows, tails, types, strict=True):
            fill = longest - len(row) - len(tail)
            parts = {
                "input_ids": ([self.tokenizer.pad_token_id] * fill, [*row, *tail]),
                "attention_mask": ([0] * fill, [1] * (len(row) + len(tail))),
                "labels": ([-100] * fill, [-100] * len(row) + tail),
                "mm": ([0] * fill, [*kinds, *([0] * len(tail))]),
            }
            for name, (padding, content) in parts.items():
                columns[name].append(padding + content if padding_side == "left" else content + padding)
        inputs = {name: torch.tensor(columns[name]) for name in ("input_ids", "attention_mask")}
        if answers is not None:
            inputs["labels"] = torch.tensor(columns["labels"])
        if self.family == "qwen":
            inputs["mm_token_type_ids"] = torch.tensor(columns["mm"])
        for name in ("pixel_values", "image_grid_thw"):
            if images and name in batch:
                inputs[name] = torch.as_tensor(_stack(batch[name]))
        device = self.model.device
        dtype = self.model.dtype
        return {k: v.to(device, dtype) if v.is_floating_point() else v.to(device) for k, v in inputs.items()}

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 50, **options: Any) -> list[str]:
        """Greedy answers to prompts, see `generate_from`."""
        return self.generate_from(self.encode(prompts), max_new_tokens=max_new_tokens, **options)

    @torch.no_grad()
    def generate_from(self, inputs: dict[str, Tensor], *, max_new_tokens: int = 50, **options: Any) -> list[str]:
        """Greedy answers to what `encode` made of prompts, decoded and stripped.

        Calls `model.generate`, so whatever is attached to it acts. What a checkpoint asks for when nothing is said,
        such as the repetition penalty of Qwen2.5-VL, is not done: scores are read off the plain logits, and answers
        must come from the same model. `options` go before all.
        """
        options = {**GREEDY, "max_new_tokens": max_new_tokens, **options}
        out = self.model.generate(**inputs, **options)
        new = out[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def one_size(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """RGB pictures of one size that `pixel_inputs` takes: as they are where they are so, else resized and cut.

        What is cut is what the shorter side leaves over, at the middle, as the processor of LLaVA-1.5 does.
        """
        found = [image.convert("RGB") for image in images]
        sizes = {image.size for image in found}
        if len(sizes) == 1 and self.module.reads(self.processor, next(iter(sizes))):
            return found
        size = self.module.input_size(self.processor)
        return [ImageOps.fit(image, size, Image.Resampling.BICUBIC) for image in found]

    def pixel_inputs(self, images: Tensor) -> dict[str, Tensor]:
        """Differentiable model inputs for pixels in [0, 1] of shape `(B, 3, H, W)`; see the family's module."""
        inputs: dict[str, Tensor] = self.module.pixel_inputs(self.processor, images)
        return inputs


GREEDY = {"do_sample": False, "repetition_penalty": 1.0, "temperature": None, "top_p": None, "top_k": None}
"""The most likely token at every step, whatever `generation_config.json` says."""


def _stack(values: Any) -> Any:
    return values if isinstance(values, Tensor) else torch.stack([torch.as_tensor(value) for value in values])


def load_model(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    revision: str | None = None,
    spread: bool = False,
    bits: int | None = None,
) -> Loaded:
    """Load a checkpoint of either family from a folder or, where the hub can be reached, by its hub id.

    Attention is SDPA, and batches are padded on the left.

    Args:
        path: a folder, or an id such as `llava-hf/llava-1.5-7b-hf`.
        dtype: of weights and activations; bfloat16 for the published models.
        device: where the model goes, unless it is spread.
        revision: commit on the hub; the checkpoints of the paper have a fixed one.
        spread: lay the model out over all devices, and over memory and disk if it must be (`device_map="auto"`).
        bits: 4 or 8 loads quantised weights through bitsandbytes.

    Raises:
        FileNotFoundError: no such folder, or an incomplete one; or the hub was not reached. Says what to fetch.
        ValueError: the architecture is not supported, or `bits` is neither 4 nor 8.
        ImportError: `bits` without bitsandbytes.
    """
    name, folder = str(path), Path(path)
    is_local = folder.exists()
    if is_local and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{path} holds no config.json, so it is no checkpoint; name the folder that does")
    if not is_local and (name.count("/") != 1 or folder.is_absolute()):
        raise FileNotFoundError(
            f"no checkpoint at {path}. Name a folder, or OWNER/NAME of a model on the hub, such as "
            f"{next(iter(hub.PUBLISHED))}; `make models` trains the tiny ones"
        )
    revision = None if is_local else hub.revision_of(name, revision)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa", "revision": revision}
    if spread or bits is not None:
        options["device_map"] = "auto" if spread else device
    if bits is not None:
        options["quantization_config"] = _quantised(bits, dtype)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
        family = _MODEL_TYPES.get(config.model_type)
        if family is None:
            raise ValueError(f"{path} is a {config.model_type!r} model; supported are {', '.join(_MODEL_TYPES)}")
        if is_local:
            hub.check_weights(folder)
        module = FAMILIES[family]
        model = module.MODEL_CLASS.from_pretrained(name, **options)
        if is_local and (folder / "tiny.json").exists():
            processor = module.build_processor(AutoTokenizer.from_pretrained(name))
        else:
            processor = _processor(module, name, revision)
    except SafetensorError as error:
        raise OSError(f"the weights of {path} cannot be read ({error}); copy or download them again") from error
    except OSError as error:
        if is_local:
            raise
        raise hub.cannot_fetch(name, revision, error) from error
    if "device_map" not in options:
        model = model.to(device)
    if model.device.type == "cuda" and hasattr(module, "on_gpu"):
        module.on_gpu(model)
    return Loaded(model.eval(), processor, family)


def _quantised(bits: int, dtype: torch.dtype) -> Any:
    if bits not in (4, 8):
        raise ValueError(f"bits is {bits}; weights can be loaded with 4 or 8 bits, or leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError(f"{bits}-bit weights need bitsandbytes: pip install bitsandbytes")
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_type="nf4")


def _processor(module: ModuleType, name: str, revision: str | None) -> Any:
    """The checkpoint's processor; without torchvision the family's own way to make one for pictures alone."""
    if importlib.util.find_spec("torchvision") is not None or not hasattr(module, "without_torchvision"):
        return AutoProcessor.from_pretrained(name, revision=revision)
    return module.without_torchvision(name, revision)
