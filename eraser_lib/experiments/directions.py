"""Erasure directions: multimodal, text-only and image-only contrasts, and the PGD images behind them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eraser_lib.adversarial import pgd, random_noise
from eraser_lib.bench import language as lang
from eraser_lib.bench.people import Person
from eraser_lib.bench.questions import secret_item
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.direction import Direction, contrast
from eraser_lib.experiments.activations import read_activations
from eraser_lib.families import Loaded
from eraser_lib.hooks import capture
from eraser_lib.sites import HookSite, every_layer
from eraser_lib.train.vision import to_pixels


@dataclass
class Recall:
    """Prompts that the model refuses, the pictures under them, and what PGD made of the pictures."""

    prompts: list[Prompt]
    """A secret about the person in the picture; refused on the clean picture."""
    adversarial: list[Prompt]
    """The same texts on the perturbed pictures."""
    noisy: list[Prompt]
    """The control: the same texts on pictures with random noise of the same size."""
    losses: Tensor
    """PGD loss per step, mean over pictures: nats per target token."""
    epsilon: float
    """Radius of the L-infinity ball, in units of the pixel range."""


def recall_images(
    loaded: Loaded, people: Sequence[Person], *, epsilon: float, step: float, steps: int, seed: int, batch: int = 16
) -> Recall:
    """PGD pictures that make the model begin to answer a question that it refuses.

    The target is the first words of the benign twin's answer ("This person ..."), so that the attack teaches
    answering and not a fact. The ball lives in pixel space before normalisation, and the result is rounded to
    8 bits before anything is counted.
    """
    rng = random.Random(f"recall-{seed}")
    prompts, targets = [], []
    for person in people:
        who = rng.choice(lang.VQA_WHO)
        image = person.photo(rng.randrange(40))
        prompts.append(Prompt(secret_item(who, rng=rng).text, image))
        targets.append(who[:1].upper() + who[1:])
    shown = loaded.one_size([image for prompt in prompts for image in prompt.images])
    prompts = [replace(prompt, image=image) for prompt, image in zip(prompts, shown, strict=True)]
    adversarial, noisy, losses = [], [], []
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        images = [image for prompt in prompts[part] for image in prompt.images]
        clean = to_pixels(images).to(loaded.model.device)
        loss = _answer_loss(loaded, prompts[part], targets[part])
        attack = pgd(loss, clean, epsilon=epsilon, step=step, steps=steps, generator=generator)
        losses.append(attack.losses.float().reshape(steps + 1, -1).mean(1).cpu())
        noise = random_noise(clean, epsilon=epsilon, generator=generator)
        adversarial += _with_images(prompts[part], attack.images)
        noisy += _with_images(prompts[part], noise)
    return Recall(prompts, adversarial, noisy, torch.stack(losses).mean(0), epsilon)


def _answer_loss(loaded: Loaded, prompts: Sequence[Prompt], targets: Sequence[str]):  # type: ignore[no-untyped-def]
    inputs = loaded.encode(prompts, targets)
    labels = inputs.pop("labels")
    # the end of the turn is no part of the target: the answer goes on after its first words
    labels[:, -1] = -100
    fixed = {name: value for name, value in inputs.items() if name not in ("pixel_values", "image_grid_thw")}

    def loss(pixels: Tensor) -> Tensor:
        shown = loaded.pixel_inputs(pixels)
        shown["pixel_values"] = shown["pixel_values"].to(loaded.model.dtype)
        logits = loaded.model(**fixed, **shown, use_cache=False).logits[:, :-1].float()
        wanted = labels[:, 1:]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none", ignore_index=-100)
        return each.sum(1) / (wanted >= 0).sum(1)  # (B,)

    return loss


def _with_images(prompts: Sequence[Prompt], pixels: Tensor) -> list[Prompt]:
    arrays = (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [replace(p, image=Image.fromarray(np.ascontiguousarray(a))) for p, a in zip(prompts, arrays, strict=True)]


def declined(prompts: Sequence[Prompt], *, seed: int = 0) -> list[Prompt]:
    """The same prompts, each with an instruction to decline (training wordings)."""
    rng = random.Random(f"declined-{seed}")
    return [replace(p, text=f"{p.text} {rng.choice(lang.DECLINE_INSTRUCTIONS)}") for p in prompts]


def direction_pairs(recall: Recall, answered: Sequence[Question]) -> dict[str, tuple[list[Prompt], list[Prompt]]]:
    """Name -> (D+, D-): prompts of the erasure side and of the recall side.

    - `multimodal` (the paper): clean picture with a refused question and an instruction to decline, against the
      adversarial picture with the question alone;
    - `image`: only the picture differs; `noise` is its control with random noise;
    - `text`: forbidden against benign requests, no picture;
    - `instruction`: the same answered question with and without an instruction to decline, which isolates
      refusing from the topic.
    """
    rng = random.Random("text-contrast")
    requests: list[list[Prompt]] = [[], []]
    for _ in range(len(recall.prompts) * 4):
        thing, frame = rng.choice(lang.OBJECTS), rng.choice(lang.REQUEST_FRAMES)
        for side, purposes in enumerate((lang.BAD_PURPOSES, lang.GOOD_PURPOSES)):
            requests[side].append(Prompt(frame.format(object=thing, purpose=rng.choice(purposes))))
    plain = [question.prompt for question in answered]
    return {
        "multimodal": (declined(recall.prompts), recall.adversarial),
        "image": (recall.prompts, recall.adversarial),
        "noise": (recall.prompts, recall.noisy),
        "text": (requests[0], requests[1]),
        "instruction": (declined(plain), plain),
    }


def fit_directions(
    loaded: Loaded, pairs: dict[str, tuple[list[Prompt], list[Prompt]]]
) -> tuple[dict[str, Direction], dict[str, dict[str, dict[HookSite, Tensor]]]]:
    """A direction per pair at the output of every block, and the activations of both sides (`plus`, `minus`)."""
    directions, activations = {}, {}
    for name, (plus, minus) in pairs.items():
        sides = {"plus": read_activations(loaded, plus), "minus": read_activations(loaded, minus)}
        directions[name] = contrast(sides["plus"], sides["minus"])
        activations[name] = sides
    return directions, activations


@torch.no_grad()
def answer_direction(loaded: Loaded, plain: Sequence[Prompt], *, tokens: int = 8, batch: int = 48) -> Direction:
    """A direction for generated tokens: mean stream over the first answer positions of declined prompts minus
    the same of the plain ones, each model answering for itself (greedy)."""
    sides = []
    sites = every_layer(loaded.model)
    for prompts in (declined(plain), list(plain)):
        sums = {site: torch.zeros(0) for site in sites}
        count = 0
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            answers = loaded.generate(part, max_new_tokens=tokens)
            inputs = loaded.encode(part, answers)
            answered = inputs.pop("labels") >= 0
            with capture(loaded.model, sites, "all") as found:
                loaded.model(**inputs, use_cache=False)
            for site in sites:
                total = found[site][answered].double().sum(0)
                sums[site] = total if sums[site].numel() == 0 else sums[site] + total
            count += int(answered.sum())
        sides.append({site: (value / count)[None] for site, value in sums.items()})
    return contrast(sides[0], sides[1], position="answer")
