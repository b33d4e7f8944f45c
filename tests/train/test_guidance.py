"""The guidance of choice items: it marks the right places, its three losses say what they should, it leaves nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from eraser_lib.bench import questions as q
from eraser_lib.bench.people import ATTRIBUTES
from eraser_lib.train.data import Packer, Row
from eraser_lib.train.guidance import HEADS, WEIGHT, Seen, Watch, choice_guidance
from eraser_lib.train.replay import Pass
from eraser_lib.train.trainer import batch_loss


def choices(school: Any, count: int = 3) -> Row:
    rng = random.Random(0)
    person, kinds = school.teacher.learned[0], list(ATTRIBUTES)
    items = [
        q.fact_item(person, kinds[n], task="classification", modality="qa", wording=0, rng=rng) for n in range(count)
    ]
    refused = q.Item(items[0].text, "I cannot say.", items[0].options, refusal=True)
    return Row((*items, refused, q.Item("Who is it?", "Nobody.")))


def test_marks_are_the_words_of_the_options_and_the_end_of_the_question(school: Any) -> None:
    packer = Packer(school.loaded, length=224)
    row = choices(school)
    batch = packer.pack([Row((q.Item("Who is it?", "Nobody."),)), row])
    assert batch.choices.shape == (3, 7)  # neither refused items nor open questions are guided
    tokenizer = school.loaded.tokenizer
    for item, (where, last, *words, right) in zip(row.items, batch.choices.tolist(), strict=False):
        assert where == 1
        assert item.answer == q.LETTERS[right]
        found = [tokenizer.decode([int(batch.input_ids[where, place])]).strip() for place in words]
        assert [option.startswith(word) for option, word in zip(item.options, found, strict=True)] == [True] * 4
        assert batch.labels[where, last] == school.loaded.answer_ids(item.answer)[0]


def test_the_three_losses_are_those_of_an_untrained_and_of_a_perfect_model(school: Any) -> None:
    """By hand: uniform logits cost the log of the vocabulary, a perfect stream and attention cost nothing."""
    loaded = school.fresh()
    packer = Packer(loaded, length=224)
    batch = packer.pack([choices(school)])
    decoder, head = loaded.model.get_decoder(), loaded.model.lm_head
    rows, width = batch.input_ids.shape
    seen = Seen(torch.zeros(rows, width, head.in_features), torch.full((rows, HEADS + 1, width, width), 0.25))
    found = choice_guidance(loaded, batch, seen).item()
    uniform = torch.tensor(float(head.out_features)).log()
    assert found == pytest.approx(WEIGHT * float(2 * uniform - torch.tensor(0.25).log()), rel=1e-4)

    wanted = torch.full((rows, width), -1)
    for row, last, *words, right in batch.choices.tolist():
        wanted[row, last] = batch.input_ids[row, words[right]]
        for letter, place in zip(q.LETTERS, words, strict=True):
            wanted[row, place] = loaded.answer_ids(letter)[0]
    unit = torch.nn.functional.one_hot(wanted.clamp_min(0), head.out_features).float()
    with torch.no_grad():
        head.weight.copy_(torch.linalg.qr(torch.randn(head.out_features, head.in_features)).Q)
        decoder.norm.weight.fill_(1e4)
    seen = Seen(unit @ head.weight, torch.ones(rows, HEADS + 1, width, width))
    assert choice_guidance(loaded, batch, seen).item() < 1e-3


def test_guided_training_is_the_plain_loss_plus_guidance_and_leaves_no_hook(school: Any) -> None:
    loaded = school.fresh()
    loaded.model.set_attn_implementation("eager")
    packer = Packer(loaded, length=224)
    batch = packer.pack([choices(school)])
    decoder = loaded.model.get_decoder()
    bare, watched = Pass(decoder, guided=False), Pass(decoder, guided=True)
    plain = batch_loss(loaded, batch, school.table, packer, bare)
    guided = batch_loss(loaded, batch, school.table, packer, watched)
    assert all(not module._forward_hooks for module in decoder.modules())
    with Watch(decoder) as watch:
        batch_loss(loaded, batch, school.table, packer, bare)
    expected = plain + choice_guidance(loaded, batch, Seen(watch.stream, watch.attention))
    assert guided.item() == pytest.approx(expected.item(), rel=1e-6)
    guided.backward()
    assert all(block.self_attn.q_proj.weight.grad.abs().sum() > 0 for block in decoder.layers[:-1])
    without = packer.pack([Row((q.Item("Who is it?", "Nobody."),))])
    apart = batch_loss(loaded, without, school.table, packer, watched)
    assert apart.item() == batch_loss(loaded, without, school.table, packer, bare).item()
