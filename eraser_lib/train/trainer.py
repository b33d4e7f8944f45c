"""The training loop of the language stages: block-masked rows, bf16 autocast, checkpoints that resume."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from eraser_lib.families import Loaded
from eraser_lib.train.curriculum import Sampler
from eraser_lib.train.data import Batch, Packer, Steps, batches
from eraser_lib.train.guidance import Seen, choice_guidance
from eraser_lib.train.optimise import muon_and_adamw, scale_rates
from eraser_lib.train.replay import Pass, Passed, replayed


def language_parameters(loaded: Loaded) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices inside the decoder blocks, and all the rest of the language model (embeddings, head, norms, biases)."""
    decoder = loaded.model.get_decoder()
    matrices = [p for p in decoder.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    rest = [p for p in (*decoder.parameters(), *loaded.model.lm_head.parameters()) if id(p) not in inside]
    return matrices, rest


def batch_loss(loaded: Loaded, batch: Batch, table: Tensor, packer: Packer, run: Passed) -> Tensor:
    """Mean cross-entropy over answer tokens; the head is applied to those positions only.

    `run` is the decoder's pass; where it is guided, the losses of `guidance` are added.
    """
    hidden, *seen = run(*pass_inputs(loaded, batch, table, packer))
    learned = batch.labels >= 0
    logits = loaded.model.lm_head(hidden[learned]).float()
    loss = nn.functional.cross_entropy(logits, batch.labels[learned])
    return loss + choice_guidance(loaded, batch, Seen(*seen)) if seen else loss


def pass_inputs(loaded: Loaded, batch: Batch, table: Tensor, packer: Packer) -> tuple[Tensor, Tensor, Tensor]:
    """What the decoder's pass takes: embeddings with the pictures in their places, the mask, and positions."""
    embeds = loaded.model.get_decoder().embed_tokens(batch.input_ids)  # (B, T, d)
    where = batch.input_ids == packer.image_id
    if batch.pictures:
        pictures = table[torch.tensor(batch.pictures, device=table.device)].reshape(-1, table.shape[-1])
        embeds = embeds.masked_scatter(where[..., None], pictures.to(embeds.dtype))
    positions = batch.position_ids if loaded.family == "qwen" else batch.position_ids[0]
    mask = torch.zeros(batch.mask.shape, dtype=torch.bfloat16, device=embeds.device)
    mask.masked_fill_(~batch.mask, float("-inf"))
    return embeds, mask, positions


def train_language(
    loaded: Loaded,
    sampler: Sampler,
    table: Tensor,
    *,
    steps: int,
    rows: int,
    length: int,
    lr: float,
    seed: int,
    state: Path,
    report: Callable[[dict[str, float]], None],
    warmup: int = 50,
    cooldown: float = 0.4,
    guided: bool = False,
    workers: int = 0,
    save_every_seconds: float = 120.0,
) -> float:
    """Train the language model on `rows` rows of `length` tokens a step, for `steps` steps.

    Hidden matrices learn by Muon (rate `lr`), embeddings, head and norms by AdamW (rate `lr` / 2). The rate warms
    up, stays, and falls linearly over the last `cooldown` share. `state` is the resume file: it is written every
    `save_every_seconds` and removed by the caller when the stage is finished. The vision side is frozen. It
    runs on the model's device; `workers` processes prepare batches ahead, which a GPU would wait for. Returns the
    running mean of the loss.
    """
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)
    matrices, rest = language_parameters(loaded)
    for parameter in (*matrices, *rest):
        parameter.requires_grad_(True)
    loaded.model.set_attn_implementation("eager")  # its backward is twice as fast as the fused one for short rows
    optimisers = muon_and_adamw(matrices, rest, lr=lr)
    bases = [group["lr"] for optimiser in optimisers for group in optimiser.param_groups]
    start, running = 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=loaded.model.device)
        loaded.model.load_state_dict(saved["model"], strict=True)
        for optimiser, content in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(content)
        start, running = int(saved["step"]), float(saved.get("running", 0.0))
        report({"step": start, "resumed": 1.0})
    packer = Packer(loaded, length=length, image_tokens=table.shape[1])
    loaded.model.train()
    device = loaded.model.device
    table = table.to(device)
    source = batches(packer, sampler, rows=rows, seed=seed, start=start, stop=steps, workers=workers)
    plain = Pass(loaded.model.get_decoder(), guided=guided)
    with ExitStack() as stack:
        run: Passed = plain
        if device.type == "cuda" and start < steps:
            like = pass_inputs(loaded, Steps(packer, sampler, rows, seed)[start].to(device), table, packer)
            run = stack.enter_context(replayed(plain, *like))
        last_save = began = time.monotonic()
        for step, batch in enumerate(source, start):
            factor = min(1.0, (step + 1) / warmup, (steps - step) / max(1.0, cooldown * steps))
            scale_rates(optimisers, bases, factor)
            with torch.autocast(device.type, torch.bfloat16):
                loss = batch_loss(loaded, batch.to(device), table, packer, run)
            loss.backward()
            nn.utils.clip_grad_norm_((*matrices, *rest), 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            value = float(loss.detach())
            running = 0.98 * running + 0.02 * value if running else value
            if step % 50 == 0 or step == steps - 1:
                pace = (time.monotonic() - began) / (step - start + 1)
                report({"step": step, "loss": running, "seconds_per_step": pace, "seconds_left": pace * (steps - step)})
            if time.monotonic() - last_save > save_every_seconds:
                _save_state(loaded, optimisers, step + 1, running, state)
                last_save = time.monotonic()
    loaded.model.set_attn_implementation("sdpa")
    loaded.model.eval()
    return running


def _save_state(loaded: Loaded, optimisers: list[torch.optim.Optimizer], step: int, running: float, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    content = {
        "model": loaded.model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "step": step,
        "running": running,
    }
    torch.save(content, temporary)
    os.replace(temporary, path)


def json_reporter(path: Path, stage: str) -> Callable[[dict[str, float]], None]:
    """A reporter that appends one JSON line for each report to `path` and prints it."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def report(values: dict[str, float]) -> None:
        line = json.dumps({"stage": stage, **{k: round(v, 5) for k, v in values.items()}})
        with path.open("a") as out:
            out.write(line + "\n")
        print(line, flush=True)

    return report
