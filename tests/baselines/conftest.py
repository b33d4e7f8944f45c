"""Random tiny models of both families and a few questions about two people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from torch import Tensor

from eraser_lib.baselines.ga import GA
from eraser_lib.baselines.training import TrainConfig, unlearn
from eraser_lib.bench.people import ATTRIBUTES, Person
from eraser_lib.bench.portraits import render, training_view
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.families import Loaded
from eraser_lib.train.models import new_model, population
from eraser_lib.train.recipe import MICRO


@pytest.fixture(scope="package", params=["llava", "qwen"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return new_model(request.param, MICRO)


def questions_about(people: Sequence[Person], attributes: int) -> list[Question]:
    """One question about each of so many attributes of every person, about a picture and in text by turns."""
    found = []
    for person in people:
        image = render(person.genotype, training_view(person.id, 0))
        for number, attribute in enumerate(list(ATTRIBUTES)[:attributes]):
            visual = number % 2 == 0
            text = f"What is the {attribute} of {'this person' if visual else person.name}?"
            found.append(
                Question(
                    id=f"{person.id}/{attribute}", subset="forget", role="fit", modality="vqa" if visual else "qa",
                    task="cloze", prompt=Prompt(text, image if visual else None), person=person.id,
                    answer=person.attributes[attribute],
                )
            )  # fmt: skip
    return found


@pytest.fixture(scope="package")
def questions() -> list[Question]:
    """Two text and two visual questions of each of two people."""
    return questions_about(population(MICRO).people[:2], 4)


@pytest.fixture(scope="package")
def forget(questions: list[Question]) -> list[Question]:
    """The first person's rows."""
    return questions[:4]


@pytest.fixture(scope="package")
def retain(questions: list[Question]) -> list[Question]:
    """The second person's rows."""
    return questions[4:]


class Lesson(GA):
    """Descent on the forget rows: the opposite of gradient ascent."""

    def terms(self, *rows: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""
        total, terms = super().terms(*rows)
        return -total, terms


@pytest.fixture(scope="package")
def learned(loaded: Loaded, questions: list[Question]) -> Loaded:
    """The model after it has learned the answers by heart: from one that knows nothing little can be taken."""
    trained = unlearn(loaded, questions, questions, Lesson(), TrainConfig(lr=3e-3, epochs=100, batch=len(questions)))
    assert trained.losses[-1]["forget"] < 0.1
    return trained.loaded
