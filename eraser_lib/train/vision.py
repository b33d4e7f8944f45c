"""First stage: the vision tower learns to read the drawing, then every picture is embedded once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from eraser_lib.bench.portraits import FACTORS, VIEW_FACTORS, Genotype, View, render
from eraser_lib.families import Loaded
from eraser_lib.train.optimise import muon_and_adamw, scale_rates

ALL_FACTORS: dict[str, tuple[str, ...]] = {**FACTORS, **VIEW_FACTORS}


def to_pixels(images: list[Image.Image]) -> Tensor:
    """Pixels in [0, 1], shape `(B, 3, H, W)`."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255


def embed_pixels(loaded: Loaded, pixels: Tensor, **options: Any) -> Tensor:
    """Image embeddings as the language model receives them, shape `(B, image tokens, hidden)`; differentiable."""
    inputs = loaded.pixel_inputs(pixels)
    out = loaded.model.model.get_image_features(**inputs, **options, return_dict=True).pooler_output
    return torch.stack(list(out)) if isinstance(out, (list, tuple)) else out.reshape(len(pixels), -1, out.shape[-1])


@contextmanager
def embedder(loaded: Loaded, *, joined: bool | None = None) -> Iterator[Callable[[Tensor], Tensor]]:
    """`embed_pixels` of a model; `joined`, on a GPU unless said otherwise, for Qwen2.5-VL in few operations.

    That tower takes every window of every picture by itself: tens of thousands of operations a step, for which a GPU
    waits. Our pictures have one size, so all windows of a block can be attended to at once, which is the same
    computation up to rounding.
    """
    on_gpu = bool(loaded.model.device.type == "cuda")
    if loaded.family != "qwen" or not (on_gpu if joined is None else joined):
        yield partial(embed_pixels, loaded)
        return
    attentions = [block.attn for block in loaded.model.model.visual.blocks]
    config = loaded.model.model.visual.config

    @lru_cache
    def layout(count: int, height: int, width: int) -> dict[str, Tensor]:
        p, m = config.patch_size, config.spatial_merge_size
        grid = torch.tensor([[1, height // p, width // p]] * count)
        index, ends = get_vision_window_index(grid, m, config.window_size, p)
        made = {"position_ids": get_vision_position_ids(grid, m), "window_index": index, "cu_window_seqlens": ends}
        return {name: value.to(loaded.model.device) for name, value in made.items()}

    for attention in attentions:
        attention.forward = partial(_attend_joined, attention)
    try:
        yield lambda pixels: embed_pixels(loaded, pixels, **layout(len(pixels), *pixels.shape[-2:]))
    finally:
        for attention in attentions:
            del attention.forward


def _attend_joined(
    attention: Any, states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
) -> Tensor:
    """`Qwen2_5_VLVisionAttention.forward` for windows of one length: `states` is `(windows x length, d)`."""
    windows = len(cu_seqlens) - 1
    query, key, value = attention.qkv(states).reshape(len(states), 3, attention.num_heads, -1).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    query, key, value = (x.unflatten(0, (windows, -1)).transpose(1, 2) for x in (query, key, value))
    # back to the order of tokens: (windows, heads, length, d / heads) -> (windows x length, d)
    out = nn.functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
    done: Tensor = attention.proj(out.transpose(1, 2).reshape(len(states), -1))
    return done


def visual_parameters(loaded: Loaded) -> list[nn.Parameter]:
    """Parameters of the vision tower and of what connects it to the language model."""
    decoder = {id(p) for p in loaded.model.get_decoder().parameters()}
    head = {id(p) for p in loaded.model.lm_head.parameters()}
    return [p for p in loaded.model.parameters() if id(p) not in decoder | head]


def train_vision(
    loaded: Loaded, *, steps: int, batch: int, lr: float, seed: int, report: Callable[[dict[str, float]], None]
) -> float:
    """Teach the tower all drawing factors through linear heads on the mean image token and on all tokens.

    The second kind learns local detail early; the first makes every factor readable by plain attention.

    Returns the mean accuracy over factors on 512 pictures in held-out views of new faces. The heads are thrown
    away; what stays is a tower whose tokens tell how a face looks.
    """
    torch.manual_seed(seed)
    hidden = loaded.model.config.get_text_config().hidden_size
    device = loaded.model.device
    heads = nn.ModuleDict({name: nn.Linear(hidden, len(values)) for name, values in ALL_FACTORS.items()}).to(device)
    tokens = embed_pixels(loaded, _faces(1, random.Random(0), device, held_out=False)[0]).shape[1]
    local = nn.ModuleDict({name: nn.Linear(tokens * hidden, len(values)) for name, values in ALL_FACTORS.items()})
    local.to(device)
    parameters = [*visual_parameters(loaded), *heads.parameters(), *local.parameters()]
    optimisers = muon_and_adamw(*_split(visual_parameters(loaded), [*heads.parameters(), *local.parameters()]), lr=lr)
    bases = [group["lr"] for optimiser in optimisers for group in optimiser.param_groups]
    loaded.model.train()
    rng = random.Random(f"vision-{seed}")
    with embedder(loaded) as embed:
        for step in range(steps):
            pixels, targets = _faces(batch, rng, device, held_out=False)
            with torch.autocast(device.type, torch.bfloat16):
                embedded = embed(pixels)
                pooled, flat = embedded.mean(1), embedded.flatten(1)
                losses = [
                    nn.functional.cross_entropy(head[name](x).float(), targets[name])
                    for head, x in ((heads, pooled), (local, flat))
                    for name in ALL_FACTORS
                ]
            loss = torch.stack(losses).mean()
            factor = min(1.0, (step + 1) / 30, (steps - step) / max(1.0, 0.5 * steps))
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            scale_rates(optimisers, bases, factor)
            for optimiser in optimisers:
                optimiser.step()
            if step % 50 == 0 or step == steps - 1:
                half = len(losses) // 2
                pooled_loss, local_loss = (
                    float(torch.stack(part).detach().mean()) for part in (losses[:half], losses[half:])
                )
                report({"step": step, "loss": pooled_loss, "loss_local": local_loss})
    loaded.model.eval()
    pixels, targets = _faces(512, random.Random(f"vision-test-{seed}"), device, held_out=True)
    with torch.no_grad():
        pooled = embed_pixels(loaded, pixels).mean(1)
        hits = [(heads[name](pooled).argmax(1) == targets[name]).float().mean() for name in ALL_FACTORS]
    accuracy = {name: round(float(hit), 3) for name, hit in zip(ALL_FACTORS, hits, strict=True)}
    report({"step": steps, **accuracy})
    return float(torch.stack(hits).mean())


def _split(tower: list[nn.Parameter], heads: list[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices of the tower, which Muon trains, and all the rest."""
    matrices = [p for p in tower if p.ndim == 2 and min(p.shape) > 32]
    inside = {id(p) for p in matrices}
    return matrices, [p for p in (*tower, *heads) if id(p) not in inside]


def _faces(count: int, rng: random.Random, device: torch.device, *, held_out: bool) -> tuple[Tensor, dict[str, Tensor]]:
    faces = [Genotype.sample(rng) for _ in range(count)]
    views = [View.sample(rng, held_out=held_out) for _ in range(count)]
    pixels = to_pixels([render(face, view) for face, view in zip(faces, views, strict=True)])
    targets = {}
    for name, values in ALL_FACTORS.items():
        holders: list[Genotype] | list[View] = faces if name in FACTORS else views
        targets[name] = torch.tensor([values.index(getattr(holder, name)) for holder in holders], device=device)
    return pixels.to(device), targets


@torch.no_grad()
def embed_all(loaded: Loaded, images: Callable[[int], Image.Image], count: int, *, batch: int = 256) -> Tensor:
    """Embeddings of pictures 0..count-1, shape `(count, image tokens, hidden)`, bfloat16."""
    loaded.model.eval()
    parts = []
    with embedder(loaded) as embed:
        for start in range(0, count, batch):
            pixels = to_pixels([images(index) for index in range(start, min(start + batch, count))])
            parts.append(embed(pixels.to(loaded.model.device)).to(torch.bfloat16))
    return torch.cat(parts)
