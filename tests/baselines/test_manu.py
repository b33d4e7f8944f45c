"""MANU: importance by hand, that the right neurons are cut, and what is forgotten without them."""

from __future__ import annotations

import math

import pytest
import torch

from eraser_lib.baselines.manu import Activity, Manu, activity, importance
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded
from eraser_lib.sites import find_decoder
from tests.baselines.test_objectives import change

Rows = list[Question]


def test_importance_by_hand() -> None:
    """One neuron: two picture tokens of 1 and 3, one text token of -1; tau 2."""
    pictures, text = Activity.of(torch.tensor([[1.0], [3.0]]), 2.0), Activity.of(torch.tensor([[-1.0]]), 2.0)
    sums = [(4 - 1) / 5, 1.0, math.sqrt(1.0), math.sqrt((10 - 1) / 11)]
    assert float(importance(pictures, text, raw=True)) == pytest.approx(sum(sums), rel=1e-6)
    # one neuron is its block's mean, so that each standardised term is 1
    assert float(importance(pictures, text)) == pytest.approx(4.0, rel=1e-6)
    two = [Activity.of(torch.tensor(rows), 2.0) for rows in ([[1.0, 0.0], [3.0, 0.0]], [[-1.0, 0.0]])]
    found = importance(*two)
    assert found.tolist() == pytest.approx([8.0, 0.0], abs=1e-6)  # twice the mean of a block of one active neuron


def test_lengths_do_not_decide_per_token() -> None:
    """The same activations, once and ten times: per token nothing changes, in sums it does."""
    g = torch.Generator().manual_seed(0)
    z, t = torch.randn(6, 3, generator=g), torch.randn(4, 3, generator=g)
    short, long, text = Activity.of(z, 0.1), Activity.of(z.repeat(10, 1), 0.1), Activity.of(t, 0.1)
    assert torch.allclose(importance(short, text), importance(long, text))
    assert not torch.allclose(importance(short, text, raw=True), importance(long, text, raw=True))


def test_activities_add_up(loaded: Loaded, questions: Rows) -> None:
    whole = activity(loaded, questions[::2], tau=0.01, batch=8)
    parts = activity(loaded, questions[::2], tau=0.01, batch=1)
    assert len(whole) == len(find_decoder(loaded.model).layers)
    for one, other in zip(whole, parts, strict=True):
        assert one.tokens == other.tokens
        assert torch.allclose(one.square, other.square, rtol=1e-4)
        assert torch.allclose(one.absolute, other.absolute, rtol=1e-4)


def test_it_zeroes_what_the_forgotten_use_most(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    pruned = Manu(share=0.1, tau=0.01).fit(loaded, forget, retain)
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    width = find_decoder(loaded.model).layers[0].mlp.down_proj.weight.shape[1]
    assert sum(map(len, pruned.cut)) == round(0.1 * width * len(pruned.cut))
    for block, mine, old in zip(
        find_decoder(pruned.loaded.model).layers, pruned.cut, find_decoder(loaded.model).layers, strict=True
    ):
        weight, was = block.mlp.down_proj.weight, old.mlp.down_proj.weight
        kept = [column for column in range(width) if column not in mine]
        assert not weight[:, mine].any()
        assert torch.equal(weight[:, kept], was[:, kept])
    # a neuron is cut for its ratio: on swapped sets others are
    assert Manu(share=0.1, tau=0.01).fit(loaded, retain, forget).cut != pruned.cut


def test_the_forgotten_answers_become_less_likely_than_the_retained(
    learned: Loaded, forget: Rows, retain: Rows
) -> None:
    """In a model that knows both by heart, whichever of the two people is to be forgotten."""
    for gone, kept in ((forget, retain), (retain, forget)):
        pruned = Manu(share=0.5, tau=0.01).fit(learned, gone, kept).loaded
        lost, spared = (change(learned, pruned, rows) for rows in (gone, kept))
        assert lost > 0.02
        assert spared < 0.6 * lost


def test_one_kind_of_prompt_is_an_error(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    with pytest.raises(ValueError, match="forget questions with pictures and without"):
        Manu().fit(loaded, forget[::2], retain)
