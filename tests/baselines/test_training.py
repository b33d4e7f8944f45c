"""The common loop: it leaves the given model alone, trains what a method names, and repeats itself by its seed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from eraser_lib.baselines import training
from eraser_lib.baselines.ga_diff import GADiff
from eraser_lib.baselines.low_rank import LowRank
from eraser_lib.baselines.mmunlearner import MMUnlearner
from eraser_lib.baselines.rmu import RMU
from eraser_lib.baselines.training import (
    Objective,
    TrainConfig,
    Trained,
    answer_logits,
    answer_loss,
    answer_sums,
    language_weights,
    loss_of,
    unlearn,
)
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded

Rows = list[Question]


def test_answer_loss_by_hand() -> None:
    """Two learned tokens of probability 1/2 and 1/4."""
    logits = torch.zeros(1, 3, 4)
    logits[0, 1:] = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125]))
    labels = torch.tensor([[-100, 0, 1]])
    assert float(answer_loss(logits, labels)) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert answer_sums(logits, labels).tolist() == pytest.approx([-math.log(8)])


def test_answer_loss_is_a_mean_over_tokens_not_rows() -> None:
    logits = torch.zeros(2, 3, 8)
    logits[0, 0, 3] = 5.0
    labels = torch.tensor([[3, -100, -100], [1, 2, 3]])
    known = math.log(math.exp(5) + 7) - 5
    assert float(answer_loss(logits, labels)) == pytest.approx((known + 3 * math.log(8)) / 4, rel=1e-5)
    assert answer_sums(logits, labels).tolist() == pytest.approx([-known, -3 * math.log(8)], rel=1e-5)


def test_logits_stand_before_the_tokens_that_they_predict(loaded: Loaded, questions: Rows) -> None:
    logits, labels = answer_logits(loaded, questions[:2], ["baker", "a red hat"])
    for row, answer in enumerate(("baker", "a red hat")):
        assert labels[row][labels[row] != -100].tolist() == loaded.answer_ids(answer)
    inputs = loaded.encode([row.prompt for row in questions[:2]], ["baker", "a red hat"])
    inputs.pop("labels")
    with torch.no_grad():
        whole = loaded.model(**inputs).logits
    assert torch.equal(logits, whole[:, :-1])


def test_it_trains_a_copy_and_only_language_weights(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    grads = [p.requires_grad for p in loaded.model.parameters()]
    trained = unlearn(loaded, forget, retain, GADiff(), TrainConfig(lr=3e-3, epochs=4, batch=4))
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert [p.requires_grad for p in loaded.model.parameters()] == grads
    after = trained.loaded.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name or "visual" in name or "projector" in name for name in changed)
    assert not trained.loaded.model.training
    assert trained.trained_parameters == sum(p.numel() for p in language_weights(loaded.model))
    assert len(trained.losses) == 4
    with torch.no_grad():
        first = {"forget": float(loss_of(loaded, forget)), "retain": float(loss_of(loaded, retain))}
    assert trained.losses[0] == pytest.approx(first, abs=1e-4)


def test_epochs_batches_and_seed(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    config = TrainConfig(lr=1e-3, epochs=2, batch=3)
    one = unlearn(loaded, forget, retain, GADiff(), config)
    again = unlearn(loaded, forget, retain, GADiff(), config)
    other = unlearn(loaded, forget, retain, GADiff(), replace(config, seed=1))
    assert len(one.losses) == 4  # two batches (3 + 1) an epoch
    assert one.losses == again.losses
    assert one.losses != other.losses


def test_a_shorter_training_is_the_beginning_of_a_longer_one(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    """Looking on the way changes nothing, and what is seen there is what a training of so many steps gives."""
    config = TrainConfig(lr=1e-3, epochs=4, batch=2)
    seen: dict[int, Any] = {}

    def watch(step: int, model: Loaded) -> bool:
        assert not model.model.training
        torch.rand(3)  # a look may draw numbers
        seen[step] = {name: value.clone() for name, value in model.model.state_dict().items()}
        return step == 5

    watched = unlearn(loaded, forget, retain, GADiff(), config, watch=watch)
    assert list(seen) == [1, 2, 3, 4, 5] and len(watched.losses) == 5
    for steps in (3, 5):
        short = unlearn(loaded, forget, retain, GADiff(), replace(config, steps=steps))
        assert short.losses == watched.losses[:steps]
        state = short.loaded.model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in seen[steps].items())
    assert len(unlearn(loaded, forget, retain, GADiff(), config).losses) == 8


def test_adapters_are_trained_in_place_of_the_weights(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    config = TrainConfig(lr=1e-2, epochs=8, batch=4)
    with torch.no_grad():
        before = float(loss_of(loaded, forget))
    trained = unlearn(loaded, forget, retain, LowRank(GADiff(), rank=2), config)
    assert trained.losses[0]["forget"] == pytest.approx(before, abs=1e-4), "an adapter begins as nothing"
    with torch.no_grad():
        assert float(loss_of(trained.loaded, forget)) > before
    ours = loaded.model.state_dict()
    after = {name.replace(".base_layer.", "."): value for name, value in trained.loaded.model.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in ours.items()), "the weights stay"
    adapters = {name: value for name, value in after.items() if name not in ours}
    assert trained.trained_parameters == sum(value.numel() for value in adapters.values())
    decoder = [part for part in loaded.model.get_decoder().modules() if isinstance(part, torch.nn.Linear)]
    assert len(adapters) == 2 * len(decoder), "two factors for every linear map of the decoder, and no other"
    assert trained.trained_parameters == sum(2 * (part.in_features + part.out_features) for part in decoder)
    torch.rand(3)
    again = unlearn(loaded, forget, retain, LowRank(GADiff(), rank=2), config)
    assert again.losses == trained.losses
    with pytest.raises(ValueError, match="rank is 0; a LoRA adapter needs at least 1"):
        LowRank(GADiff(), rank=0)


@pytest.mark.parametrize("objective", [GADiff(), MMUnlearner(), LowRank(GADiff(), rank=2), RMU(0.35)], ids=str)
def test_a_large_model_keeps_fewer_activations_and_learns_the_same(
    loaded: Loaded, forget: Rows, retain: Rows, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(lr=1e-3, epochs=2, batch=4)
    kept, small = kept_activations(lambda: unlearn(loaded, forget, retain, objective, config))
    monkeypatch.setattr(training, "LARGE", 1)
    fewer, large = kept_activations(lambda: unlearn(loaded, forget, retain, objective, config))
    assert large.losses == small.losses
    assert (fewer < 0.8 * kept) == objective.recomputes
    assert not any(getattr(part, "gradient_checkpointing", False) for part in large.loaded.model.modules())


def kept_activations(train: Callable[[], Trained]) -> tuple[int, Trained]:
    """Elements that a training keeps for its backward passes, all steps together, and the training."""
    kept = 0

    def pack(values: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += values.numel()
        return values

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda values: values):
        done = train()
    return kept, done


def test_small_steps_reach_weights_in_half_precision(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    """Each step is smaller than what bfloat16 can tell from most weights; together they must not be lost."""
    config = TrainConfig(lr=2e-5, epochs=8, batch=4)
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = Loaded(copy.deepcopy(loaded.model).to(dtype), loaded.processor, loaded.family)
        before = [p.detach().float().clone() for p in language_weights(model.model)]
        done = unlearn(model, forget, retain, GADiff(), config)
        after = language_weights(done.loaded.model)
        assert {p.dtype for p in after} == {dtype}
        moved[dtype] = sum(float((a.detach().float() - b).abs().sum()) for a, b in zip(after, before, strict=True))
    assert moved[torch.bfloat16] == pytest.approx(moved[torch.float32], rel=0.25)


def test_a_rate_of_zero_changes_nothing(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    trained = unlearn(loaded, forget, retain, GADiff(), TrainConfig(lr=0.0))
    ours = loaded.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in trained.loaded.model.state_dict().items())


def test_empty_sets_are_errors(loaded: Loaded, questions: Rows) -> None:
    for forget, retain in (([], questions), (questions, [])):
        with pytest.raises(ValueError, match="at least one of each"):
            unlearn(loaded, forget, retain, GADiff(), TrainConfig(lr=1e-3))
