"""Gradient difference: the objective by hand, and a step that forgets without touching the given model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from eraser_lib.baselines.ga_diff import GaDiffConfig, answer_loss, difference, ga_diff
from eraser_lib.bench.people import ATTRIBUTES
from eraser_lib.bench.portraits import render, training_view
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.families import Loaded
from eraser_lib.train.models import new_model, population
from eraser_lib.train.recipe import MICRO


def test_answer_loss_by_hand() -> None:
    """Two learned tokens of probability 1/2 and 1/4; the position before a label predicts it."""
    logits = torch.zeros(1, 4, 4)
    logits[0, 1] = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125]))
    logits[0, 2] = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125]))
    logits[0, 3] = torch.tensor([9.0, 0.0, 0.0, 0.0])  # predicts nothing
    labels = torch.tensor([[-100, -100, 0, 1]])
    assert float(answer_loss(logits, labels)) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_answer_loss_is_a_mean_over_tokens_not_rows() -> None:
    logits = torch.zeros(2, 4, 8)
    logits[0, 0, 3] = 5.0
    labels = torch.tensor([[-100, 3, -100, -100], [-100, 1, 2, 3]])
    known = math.log(math.exp(5) + 7) - 5
    assert float(answer_loss(logits, labels)) == pytest.approx((known + 3 * math.log(8)) / 4, rel=1e-5)


def test_the_objective() -> None:
    forget, retain = torch.tensor(2.0), torch.tensor(3.0)
    assert float(difference(forget, retain, 1.0)) == 1.0
    assert float(difference(forget, retain, 0.0)) == -2.0
    assert float(difference(forget, retain, 2.5)) == 5.5


@pytest.fixture(scope="module", params=["llava", "qwen"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return new_model(request.param, MICRO)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """Two text and two visual questions of each of two people."""
    found = []
    for person in population(MICRO).people[:2]:
        image = render(person.genotype, training_view(person.id, 0))
        for number, attribute in enumerate(list(ATTRIBUTES)[:4]):
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


def loss_of(loaded: Loaded, rows: list[Question]) -> float:
    inputs = loaded.encode([row.prompt for row in rows], [row.answer for row in rows])
    labels = inputs.pop("labels")
    with torch.no_grad():
        return float(answer_loss(loaded.model(**inputs).logits, labels))


def test_it_forgets_and_keeps(loaded: Loaded, questions: list[Question]) -> None:
    forget, retain = questions[:4], questions[4:]
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    grads = [p.requires_grad for p in loaded.model.parameters()]
    f0, r0 = loss_of(loaded, forget), loss_of(loaded, retain)
    trained = ga_diff(loaded, forget, retain, GaDiffConfig(lr=3e-3, epochs=4, batch=4))
    assert loss_of(trained.loaded, forget) > f0 + 0.1
    assert loss_of(trained.loaded, retain) < r0 - 0.1
    # The model that was given is untouched.
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert [p.requires_grad for p in loaded.model.parameters()] == grads
    after = trained.loaded.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name or "visual" in name or "projector" in name for name in changed)
    assert not trained.loaded.model.training
    sizes = {id(p): p.numel() for p in (*loaded.model.get_decoder().parameters(), *loaded.model.lm_head.parameters())}
    assert trained.trained_parameters == sum(sizes.values())
    assert trained.losses[0] == pytest.approx((f0, r0), abs=1e-4)
    assert len(trained.losses) == 4


def test_epochs_batches_and_seed(loaded: Loaded, questions: list[Question]) -> None:
    seen: list[tuple[int, int]] = []
    config = GaDiffConfig(lr=1e-3, epochs=2, batch=3)
    one = ga_diff(loaded, questions[:4], questions[4:], config, progress=lambda n, of: seen.append((n, of)))
    again = ga_diff(loaded, questions[:4], questions[4:], config)
    other = ga_diff(loaded, questions[:4], questions[4:], replace(config, seed=1))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]  # two batches (3 + 1) an epoch
    assert one.losses == again.losses
    assert one.losses != other.losses


def test_a_rate_of_zero_changes_nothing(loaded: Loaded, questions: list[Question]) -> None:
    trained = ga_diff(loaded, questions[:4], questions[4:], GaDiffConfig(lr=0.0))
    ours = loaded.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in trained.loaded.model.state_dict().items())


def test_empty_sets_are_errors(loaded: Loaded, questions: list[Question]) -> None:
    for forget, retain in (([], questions), (questions, [])):
        with pytest.raises(ValueError, match="at least one of each"):
            ga_diff(loaded, forget, retain, GaDiffConfig(lr=1e-3))
