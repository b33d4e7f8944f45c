"""Micro models of both families, a teacher of a micro world, and float32 embeddings of its pictures."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from eraser_lib.bench.people import Population
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.families import Loaded
from eraser_lib.train.curriculum import Teacher, build_gallery
from eraser_lib.train.models import new_model, population
from eraser_lib.train.recipe import MICRO
from eraser_lib.train.vision import embed_pixels, to_pixels


@dataclass(frozen=True)
class School:
    """One family's model with a teacher and the table of image embeddings."""

    loaded: Loaded
    people: Population
    teacher: Teacher
    table: Tensor

    def fresh(self) -> Loaded:
        """A copy of the model that a test may train."""
        return Loaded(copy.deepcopy(self.loaded.model), self.loaded.processor, self.loaded.family)


def asked(text: str, answer: str) -> Question:
    """A question without a picture to learn."""
    return Question(text, "retain", "fit", "qa", "generation", Prompt(text), answer)


@functools.cache
def make(family: str) -> School:
    loaded = new_model(family, MICRO)
    people = population(MICRO)
    learned, celebrities = people.of_kind("fictitious"), people.of_kind("celebrity")
    gallery = build_gallery([*learned, *celebrities], views=2, anonymous=4)
    with torch.no_grad():
        table = embed_pixels(loaded, to_pixels([gallery.render(n) for n in range(len(gallery.faces))]))
    return School(loaded, people, Teacher(gallery, tuple(learned), tuple(celebrities)), table)


@pytest.fixture(params=["llava", "qwen"])
def school(request: pytest.FixtureRequest) -> School:
    """Both families. Tests train copies only."""
    return make(request.param)
