"""Constant steering: what it adds is the direction, on every prompt, and it moves a model along it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eraser_lib import Direction, HookSite, every_layer, run_capture
from eraser_lib.baselines.constant import constant
from eraser_lib.bench.language import REFUSALS
from eraser_lib.bench.records import Question
from eraser_lib.experiments.methods import Push
from eraser_lib.families import Loaded
from tests.baselines.answers import gained


@pytest.fixture
def direction(loaded: Loaded) -> Direction:
    width = loaded.model.config.get_text_config().hidden_size
    sites = every_layer(loaded.model)
    return Direction(sites, torch.randn(len(sites), width, generator=torch.Generator().manual_seed(0)))


def test_every_prompt_gets_the_strength_times_the_direction(
    loaded: Loaded, questions: list[Question], direction: Direction
) -> None:
    eraser = constant(Push("way", (1,), 3.0), {"way": direction}, seed=4)
    inputs, site = loaded.encode([row.prompt for row in questions]), HookSite(1)
    plain = run_capture(loaded.model, inputs, [site], "all")[site]
    with eraser.attach(loaded.model) as handle:
        moved = run_capture(loaded.model, inputs, [site], "all")[site]
    real = inputs["attention_mask"].bool()
    expected = (plain + 3.0 * direction[site])[real]
    torch.testing.assert_close(moved[real], expected)
    assert bool(handle.opened.all()) and not eraser.gates, "nothing decides"
    assert eraser.metadata["push"]["strength"] == 3.0 and eraser.metadata["seed"] == 4


def test_a_stronger_push_moves_what_comes_after_further_along(
    loaded: Loaded, questions: list[Question], direction: Direction
) -> None:
    inputs, last = loaded.encode([row.prompt for row in questions]), direction.sites[-1]
    places = []
    for strength in (0.0, 1.0, 4.0):
        eraser = constant(Push("way", tuple(range(len(direction.sites))), strength), {"way": direction})
        with eraser.attach(loaded.model):
            places.append(run_capture(loaded.model, inputs, [last])[last] @ direction[last])
    assert bool((places[0] < places[1]).all()) and bool((places[1] < places[2]).all())


def test_a_push_towards_a_refusal_makes_it_likelier_and_the_answers_of_everybody_less(
    learned: Loaded, questions: list[Question]
) -> None:
    """Along what the head reads as the refusal's first token, behind the last block."""
    site = every_layer(learned.model)[-1]
    first = learned.answer_ids(REFUSALS[0])[0]
    way = Direction((site,), learned.model.lm_head.weight[first].detach()[None])
    eraser = constant(Push("way", (site.layer,), 5.0), {"way": way})
    refused = [replace(row, answer=REFUSALS[0]) for row in questions]
    answers, refusals = (gained(learned, rows, lambda: eraser.attach(learned.model)) for rows in (questions, refused))
    assert bool((refusals > 0.1).all()), "nothing asks whom a prompt is about"
    assert bool((answers < -0.1).all())


def test_generated_tokens_get_vectors_of_their_own_only_where_they_are_pushed(direction: Direction) -> None:
    answer = Direction(direction.sites, -direction.vectors)
    both = Push("way", (0, 1), 1.0, "prompt+generation")
    eraser = constant(both, {"way": direction}, answer)
    assert eraser.decode_directions is not None
    torch.testing.assert_close(eraser.decode_directions[HookSite(1)], -direction[HookSite(1)][None])
    assert constant(Push("way", (0, 1), 1.0), {"way": direction}, answer).decode_directions is None
