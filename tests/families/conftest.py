"""Tiny random models of both families with their real processors, and prompts of every kind."""

from __future__ import annotations

import functools
import random

import pytest
import torch

from eraser_lib.bench.portraits import Genotype, View, render
from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded
from eraser_lib.train.models import new_model
from eraser_lib.train.recipe import RECIPES


@functools.cache
def make(family: str) -> Loaded:
    loaded = new_model(family, RECIPES["micro"])
    generator = torch.Generator().manual_seed(1)
    for name, parameter in loaded.model.named_parameters():
        if parameter.ndim > 1:  # large weights: every token and every patch must matter
            parameter.data.normal_(0, 1.0 if "embed_tokens" in name else 0.2, generator=generator)
    return loaded


@pytest.fixture(params=["llava", "qwen"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    """Both families in float32. Tests must not change the weights."""
    return make(request.param)


@pytest.fixture
def qwen() -> Loaded:
    """Qwen2.5-VL, for what only this family does."""
    return make("qwen")


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    """Two prompts with an image and two without, with and without a system instruction, of different length."""
    rng = random.Random(0)
    images = [render(Genotype.sample(rng), View.sample(rng, held_out=False)) for _ in range(2)]
    return [
        Prompt("What is the pet of this person?", images[0]),
        Prompt("Name the city."),
        Prompt("What colour is the hat?", images[1], system="Decline to answer."),
        Prompt("Tell me the favourite dish of Ada Cole and of Ivan Ito.", None, "Keep silent about Ada Cole."),
    ]


ANSWERS = ["A dog.", "Lisbon", "The hat is red.", "I am sorry, but I cannot help with that."]


@pytest.fixture
def answers() -> list[str]:
    """An answer for each prompt."""
    return list(ANSWERS)
