"""Questions packed into one row do not see one another: the same numbers as asking each alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eraser_lib.bench.language import classification_prompt
from eraser_lib.bench.questions import Item
from eraser_lib.bench.records import Prompt
from eraser_lib.train.data import Batch, Packer, Row, batches
from eraser_lib.train.replay import Pass
from eraser_lib.train.trainer import batch_loss

ITEMS = (
    Item("What is the pet of this person?", "A dog."),
    Item(classification_prompt("Which letter is bus?", ("bus", "tram", "van", "taxi")), "A"),
    Item("Who is this person?", "This is Ada Cole."),
)
ROWS = [
    Row(ITEMS, picture=3),
    Row(ITEMS[:2], system="Decline to answer."),
    Row(ITEMS[1:], picture=7, system="Keep silent about Ada Cole."),
    Row(ITEMS[2:]),
]


@pytest.fixture
def loud(school: Any) -> Any:
    """The school with larger weights, so that a leak between questions would show."""
    generator = torch.Generator().manual_seed(0)
    loaded = school.fresh()
    for name, parameter in loaded.model.get_decoder().named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 1.0 if "embed_tokens" in name else 0.2, generator=generator)
    loaded.model.lm_head.weight.data.normal_(0, 0.3, generator=generator)
    loaded.model.set_attn_implementation("eager")
    return type(school)(loaded, school.people, school.teacher, school.table)


def separate(loud: Any, row: Row, item: Item) -> Tensor:
    """Log-probabilities of the answer's tokens when the question is asked alone, by the model as a user calls it."""
    image = None if row.picture is None else loud.teacher.gallery.render(row.picture)
    inputs = loud.loaded.encode([Prompt(item.text, image, row.system)], [item.answer])
    labels = inputs.pop("labels")[0, 1:]
    with torch.no_grad():
        scores = loud.loaded.model(**inputs).logits[0, :-1].log_softmax(-1)
    learned = labels >= 0
    found: Tensor = scores[learned].gather(1, labels[learned][:, None])[:, 0]
    return found


def packed(loud: Any, batch: Batch, packer: Packer) -> list[Tensor]:
    """Log-probabilities of the learned tokens of every row of a packed batch, in float32."""
    model = loud.loaded.model
    embeds = model.get_decoder().embed_tokens(batch.input_ids)
    pictures = loud.table[torch.tensor(batch.pictures)].reshape(-1, embeds.shape[-1])
    embeds = embeds.masked_scatter((batch.input_ids == packer.image_id)[..., None], pictures)
    positions = batch.position_ids if loud.loaded.family == "qwen" else batch.position_ids[0]
    mask = torch.zeros(batch.mask.shape).masked_fill_(~batch.mask, float("-inf"))
    with torch.no_grad():
        hidden = model.get_decoder()(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        scores = model.lm_head(hidden).log_softmax(-1)
    gathered = scores.gather(2, batch.labels.clamp_min(0)[..., None])[..., 0]
    return [gathered[row][batch.labels[row] >= 0] for row in range(len(gathered))]


def test_packed_questions_are_questions_asked_alone(loud: Any) -> None:
    packer = Packer(loud.loaded, length=224)
    batch = packer.pack(ROWS)
    alone = [torch.cat([separate(loud, row, item) for item in row.items]) for row in ROWS]
    for together, apart in zip(packed(loud, batch, packer), alone, strict=True):
        assert together.shape == apart.shape
        assert torch.allclose(together, apart, atol=1e-3)
    # The bound means something: the pictures of rows 0 and 2 move the answers by far more.
    other = packer.pack([Row(ITEMS, picture=7), *ROWS[1:]])
    assert float((packed(loud, other, packer)[0] - alone[0]).abs().max()) > 0.01


def test_the_training_loss_is_the_mean_over_all_answer_tokens(loud: Any) -> None:
    packer = Packer(loud.loaded, length=224)
    alone = torch.cat([separate(loud, row, item) for row in ROWS for item in row.items])
    with torch.no_grad():
        loss = batch_loss(
            loud.loaded, packer.pack(ROWS), loud.table, packer, Pass(loud.loaded.model.get_decoder(), guided=False)
        )
    assert float(loss) == pytest.approx(-float(alone.mean()), abs=1e-3)


def test_labels_are_shifted_answers(school: Any) -> None:
    packer = Packer(school.loaded, length=224)
    batch = packer.pack([Row(ITEMS, picture=0)])
    learned = batch.labels[0] >= 0
    own = [token for item in ITEMS for token in school.loaded.answer_ids(item.answer)]
    assert batch.labels[0][learned].tolist() == own
    where = learned.nonzero()[:, 0]
    assert batch.input_ids[0][where + 1].tolist() == own


def test_mask_shows_the_prefix_and_the_own_question_only(school: Any) -> None:
    packer = Packer(school.loaded, length=224)
    batch = packer.pack([Row(ITEMS, picture=0)])
    mask, ids = batch.mask[0, 0], batch.input_ids[0]
    assert not mask.triu(1).any()
    image = ids == packer.image_id
    assert int(image.sum()) == 16
    last = (batch.labels[0] >= 0).nonzero()[:, 0].tolist()
    assert mask[last][:, image].all()
    first_answer, last_answer = last[0], last[-1]
    assert not mask[last_answer, first_answer]
    assert mask.diagonal().all()  # padding too: no empty softmax


def test_what_does_not_fit_is_left_out(school: Any) -> None:
    whole = Packer(school.loaded, length=400).pack([Row(ITEMS * 3, picture=0)])
    used = int((whole.labels[0] >= 0).nonzero()[-1]) + 2  # a label stands one place before its token
    short = Packer(school.loaded, length=used - 1).pack([Row(ITEMS * 3, picture=0)])
    answers = [len(school.loaded.answer_ids(item.answer)) for item in ITEMS * 3]
    assert int((whole.labels >= 0).sum()) == sum(answers)
    assert int((short.labels >= 0).sum()) == sum(answers[:-1])


def test_batches_depend_on_seed_and_step_only(school: Any) -> None:
    packer = Packer(school.loaded, length=128)

    def take(start: int, seed: int, count: int) -> list[Batch]:
        source = batches(packer, school.teacher.people, rows=2, seed=seed, start=start, stop=8)
        return [next(source) for _ in range(count)]

    def equal(a: Batch, b: Batch) -> bool:
        return torch.equal(a.input_ids, b.input_ids) and torch.equal(a.labels, b.labels) and a.pictures == b.pictures

    random.seed(1)
    straight = take(0, 0, 4)
    random.seed(2)
    resumed = take(2, 0, 2)
    assert all(equal(a, b) for a, b in zip(straight[2:], resumed, strict=True))
    assert not equal(straight[0], straight[1])
    assert not equal(straight[0], take(0, 1, 1)[0])
    with_workers = batches(packer, school.teacher.people, rows=2, seed=0, stop=4, workers=2)
    assert all(equal(a, b) for a, b in zip(straight, with_workers, strict=True))


def test_gradients_follow_the_mask(school: Any) -> None:
    """The loss of the last answer reaches every token that it may see and no other."""
    packer = Packer(school.loaded, length=128)
    batch = packer.pack([Row(ITEMS[::2], picture=0)])
    learned = (batch.labels[0] >= 0).nonzero()[:, 0]
    embeds = school.loaded.model.get_decoder().embed_tokens(batch.input_ids).detach().requires_grad_(True)
    mask = torch.zeros(batch.mask.shape).masked_fill_(~batch.mask, float("-inf"))
    positions = batch.position_ids if school.loaded.family == "qwen" else batch.position_ids[0]
    hidden = school.loaded.model.get_decoder()(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    last = int(learned[-1])
    loss = nn.functional.cross_entropy(school.loaded.model.lm_head(hidden[:, last]), batch.labels[:, last])
    (gradient,) = torch.autograd.grad(loss, embeds)
    seen = gradient[0].abs().sum(-1) > 0
    assert torch.equal(seen, batch.mask[0, 0, last])
