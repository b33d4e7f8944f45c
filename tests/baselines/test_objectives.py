"""Every trained baseline: its loss on a case worked out by hand, and that it moves a tiny model the right way."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from eraser_lib.baselines import mmunlearner
from eraser_lib.baselines.ga import GA
from eraser_lib.baselines.ga_diff import GADiff
from eraser_lib.baselines.idk import Idk
from eraser_lib.baselines.kl_min import KLMin, divergence
from eraser_lib.baselines.mmunlearner import MMUnlearner, mask
from eraser_lib.baselines.npo import NPO, preference
from eraser_lib.baselines.rmu import RMU, distance, stream
from eraser_lib.baselines.training import (
    Objective,
    TrainConfig,
    Trained,
    answer_logits,
    answer_sums,
    language_weights,
    loss_of,
    unlearn,
)
from eraser_lib.baselines.undial import Undial, distillation
from eraser_lib.bench.language import REFUSALS
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded
from eraser_lib.sites import HookSite

Rows = list[Question]


def logits_of(*probabilities: float) -> Tensor:
    """Logits `(1, 1, V)` of one token with these probabilities."""
    return torch.log(torch.tensor([[list(probabilities)]]))


def train(loaded: Loaded, forget: Rows, retain: Rows, objective: Objective, *, lr: float = 3e-3) -> Trained:
    return unlearn(loaded, forget, retain, objective, TrainConfig(lr=lr, epochs=6, batch=4))


def change(before: Loaded, after: Loaded, rows: Rows, answers: list[str] | None = None) -> float:
    with torch.no_grad():
        return float(loss_of(after, rows, answers) - loss_of(before, rows, answers))


def test_divergence_by_hand() -> None:
    vanilla, ours, labels = logits_of(0.5, 0.5), logits_of(0.25, 0.75), torch.tensor([[1]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(divergence(vanilla, ours, labels)) == pytest.approx(expected)
    assert float(divergence(ours, ours, labels)) == 0.0
    unlearned = torch.cat([labels, torch.tensor([[-100]])], dim=1)  # a token that is not learned does not count
    pair = [torch.cat([values, logits_of(0.9, 0.1)], dim=1) for values in (vanilla, ours)]
    assert float(divergence(pair[0], pair[1], unlearned)) == pytest.approx(expected)


def test_preference_by_hand() -> None:
    """At r = 0 every row counts 2 log 2 / beta with slope 1, as ascent has; far below 0 it lets go."""
    ratio = torch.zeros(2, requires_grad=True)
    value = preference(ratio, 0.1)
    value.backward()
    assert value.item() == pytest.approx(2 * math.log(2) / 0.1)
    assert ratio.grad is not None
    assert ratio.grad.tolist() == pytest.approx([0.5, 0.5])  # slope 1, shared by two rows
    gone = torch.tensor([-100.0], requires_grad=True)
    preference(gone, 0.1).backward()
    assert gone.grad is not None
    assert float(gone.grad) == pytest.approx(2 / (1 + math.exp(10)), rel=1e-4)


def test_npo_sums_the_log_ratio_over_tokens(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    for length in ("sum", "mean"):
        trained = train(loaded, forget, retain, NPO(beta=0.1, lam=0.0, length=length), lr=1e-3)
        assert trained.losses[0]["log_ratio"] == pytest.approx(0.0, abs=1e-4)
        assert trained.losses[0]["preference"] == pytest.approx(20 * math.log(2), rel=1e-4)
        with torch.no_grad():
            after, before = (answer_logits(model, forget) for model in (trained.loaded, loaded))
        ratios = answer_sums(*after) - answer_sums(*before)
        if length == "mean":
            ratios = ratios / (after[1] != -100).sum(dim=1)
        # the last step was taken after its ratio had been noted: it lies between the two
        assert float(ratios.mean()) < trained.losses[-1]["log_ratio"] < 0


def test_distillation_by_hand() -> None:
    """The true token of two loses ln 3: its target falls from 3/4 to 1/2."""
    vanilla, ours, labels = logits_of(0.75, 0.25), logits_of(0.75, 0.25), torch.tensor([[0]])
    expected = -(0.5 * math.log(0.75) + 0.5 * math.log(0.25))
    assert float(distillation(vanilla, ours, labels, math.log(3))) == pytest.approx(expected, rel=1e-5)
    assert vanilla.exp().tolist()[0][0] == pytest.approx([0.75, 0.25]), "the frozen logits are left alone"


def test_distance_by_hand() -> None:
    values = torch.tensor([[[1.0, 3.0], [9.0, 9.0]], [[0.0, 0.0], [2.0, 0.0]]])
    real = torch.tensor([[True, False], [True, True]])
    assert float(distance(values, torch.tensor([1.0, 1.0]), real)) == pytest.approx((2 + 1 + 1) / 3)


def test_mask_by_hand() -> None:
    gone, kept = torch.tensor([2.0, 1.0, 0.5, 0.0, 1e-9]), torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    assert mask(gone, kept, 1.0).tolist() == [True, True, False, False, True]
    assert mask(gone, kept, 2.0).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("objective", [GA(), GADiff(), KLMin(), NPO(), Undial()], ids=lambda o: o.name)
def test_the_forgotten_answers_become_less_likely(
    loaded: Loaded, forget: Rows, retain: Rows, objective: Objective
) -> None:
    trained = train(loaded, forget, retain, objective)
    assert change(loaded, trained.loaded, forget) > 0.1


@pytest.mark.parametrize("objective", [GADiff(), NPO(), Idk(), Undial(lam=1.0)], ids=lambda o: o.name)
def test_the_retained_answers_become_more_likely(
    loaded: Loaded, forget: Rows, retain: Rows, objective: Objective
) -> None:
    assert change(loaded, train(loaded, forget, retain, objective).loaded, retain) < -0.05


def test_kl_min_stays_closer_to_vanilla_than_ascent(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    far = {}
    for objective in (GA(), KLMin(alpha=5.0)):
        trained = train(loaded, forget, retain, objective)
        with torch.no_grad():
            before, _ = answer_logits(loaded, retain)
            far[objective.name] = float(divergence(before, *answer_logits(trained.loaded, retain)))
    assert far["kl_min"] < far["ga"]


def test_refusals_are_taught_many_ways(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    teacher = Idk()
    said = [teacher.refusal(question) for question in forget]
    assert len(set(said)) > 1
    assert set(said) <= set(REFUSALS)
    assert said == [teacher.refusal(question) for question in forget]
    assert change(loaded, train(loaded, forget, retain, teacher).loaded, forget, said) < -0.5
    with pytest.raises(ValueError, match="at least one refusal"):
        Idk(answers=())


def test_rmu_turns_away_and_holds(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    objective, site = RMU(depth=0.35, scale=2.0, alpha=5.0), HookSite(2, "output")
    trained = train(loaded, forget, retain, objective, lr=1e-2)
    assert trained.losses[0]["held"] == pytest.approx(0.0, abs=1e-9)
    assert trained.losses[-1]["misdirection"] < 0.9 * trained.losses[0]["misdirection"]
    with torch.no_grad():
        moved = [
            distance(stream(trained.loaded, rows, site)[0], *_target(loaded, rows, site)) for rows in (forget, retain)
        ]
    assert moved[0] > 2 * moved[1]
    before, after = loaded.model.state_dict(), trained.loaded.model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    assert all(".mlp." in name and any(f"layers.{n}." in name for n in (0, 1, 2)) for name in changed)
    with pytest.raises(ValueError, match="depth is 6; it is a share"):
        train(loaded, forget, retain, RMU(depth=6))


@pytest.mark.parametrize(("depth", "of_six", "of_32"), [(0.2, 1, 6), (0.35, 2, 11), (0.5, 3, 16), (0.99, 5, 31)])
def test_rmu_stands_equally_deep_in_every_model(depth: float, of_six: int, of_32: int) -> None:
    for count, block in ((6, of_six), (32, of_32)):
        config = LlamaConfig(
            num_hidden_layers=count, hidden_size=8, intermediate_size=8, num_attention_heads=1, vocab_size=8
        )
        assert RMU(depth=depth).layer(LlamaForCausalLM(config)) == block


def test_every_training_of_rmu_turns_to_a_direction_of_its_own(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    """Else three seeds would say nothing of what the direction does; that of the first is the objective's own."""
    objective = RMU(depth=0.35)
    assert objective.drawn(0) == objective and objective.drawn(2) == RMU(depth=0.35, seed=2)
    first = {
        seed: unlearn(loaded, forget, retain, objective, TrainConfig(lr=1e-3, steps=1, batch=len(forget), seed=seed))
        for seed in (0, 1)
    }
    assert first[0].losses[0]["misdirection"] != pytest.approx(first[1].losses[0]["misdirection"], rel=1e-4)
    assert GA().drawn(2) == GA()


def test_rmu_reads_what_a_whole_pass_computes(loaded: Loaded, forget: Rows) -> None:
    site = HookSite(2, "output")
    inputs = loaded.encode([row.prompt for row in forget], [row.answer for row in forget])
    del inputs["labels"]
    with torch.no_grad():
        values, mask = stream(loaded, forget, site)
        whole = loaded.model(**inputs, output_hidden_states=True, use_cache=False).hidden_states[3]
    assert torch.equal(values, whole) and torch.equal(mask, inputs["attention_mask"].bool())


def _target(loaded: Loaded, rows: Rows, site: HookSite) -> tuple[Tensor, Tensor]:
    values, real = stream(loaded, rows, site)
    return values, real


def test_mmunlearner_forgets_pictures_and_keeps_the_text(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    trained = train(loaded, forget, retain, MMUnlearner(threshold=1.0), lr=1e-3)
    seen, said = ([row for row in forget if row.modality == kind] for kind in ("vqa", "qa"))
    lost = change(loaded, trained.loaded, seen)
    assert lost > 0.02
    assert change(loaded, trained.loaded, said) < lost
    assert trained.trained_parameters == sum(p.numel() for p in loaded.model.parameters())


def test_squared_gradients_by_hand(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 2 and 1 rows of a loss whose gradient is (sum of the rows, their number): (3, 2), then (3, 1)."""
    weight, other = torch.nn.Parameter(torch.tensor([5.0, 7.0])), torch.nn.Parameter(torch.ones(1))
    rows: list[object] = [1.0, 2.0, 3.0]
    monkeypatch.setattr(mmunlearner, "loss_of", lambda _, some: (weight * torch.tensor([sum(some), len(some)])).sum())
    found = mmunlearner.squared_gradients(loaded, rows, [weight, other], batch=2)  # type: ignore[arg-type]
    assert found[0].tolist() == [9.0, 2.5], "the mean of (9, 4) and (9, 1), not the square of a mean"
    assert found[1].tolist() == [0.0], "a weight that takes no part"


@pytest.mark.parametrize("freed", ["language", "others"])
def test_language_weights_are_measured_by_text_and_all_others_by_pictures(
    loaded: Loaded, forget: Rows, retain: Rows, monkeypatch: pytest.MonkeyPatch, freed: str
) -> None:
    """Twice as much kept as lost closes a weight, half as much frees it; the rows say which statistic is asked for."""
    kept = {"language": {"said": 0.5, "seen": 2.0}, "others": {"said": 2.0, "seen": 0.5}}[freed]
    asked = []

    def measured(_: Loaded, rows: Rows, parameters: list[Tensor], *, batch: int) -> list[Tensor]:
        gone = all(row in forget for row in rows)
        what = "lost" if gone else "said" if any(row.modality == "qa" for row in rows) else "seen"
        asked.append(what)
        return [torch.full_like(weight, {"lost": 1.0, **kept}[what]) for weight in parameters]

    monkeypatch.setattr(mmunlearner, "squared_gradients", measured)
    mine = Loaded(copy.deepcopy(loaded.model).requires_grad_(True), loaded.processor, loaded.family)
    step = MMUnlearner(threshold=1.0).begin(mine, loaded, forget, retain)
    assert sorted(asked) == ["lost", "said", "seen"]
    step(forget, retain)
    language = {id(weight) for weight in language_weights(mine.model)}
    weights = list(mine.model.parameters())
    alone = torch.autograd.grad(loss_of(mine, retain), weights, allow_unused=True)
    ascending = {
        id(weight) in language
        for weight, descent in zip(weights, alone, strict=True)
        if weight.grad is not None and descent is not None and not torch.allclose(weight.grad, descent, atol=1e-7)
    }
    assert ascending == {freed == "language"}, "these ascend, and no others"


def test_masked_weights_take_no_part_in_the_ascent(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    """Nothing reaches an infinite threshold: then the method is the descent alone."""
    closed = train(loaded, forget, retain, MMUnlearner(threshold=math.inf))
    descent = train(loaded, forget, retain, _Descent())
    ours, other = closed.loaded.model.state_dict(), descent.loaded.model.state_dict()
    assert all(torch.allclose(ours[name], other[name], atol=1e-6) for name in ours)
    with pytest.raises(ValueError, match="pictures"):
        train(loaded, [row for row in forget if row.modality == "qa"], retain, MMUnlearner())


class _Descent(MMUnlearner):
    """The retain loss on all weights."""

    def begin(self, model: Loaded, vanilla: Loaded, forget: object, retain: object) -> object:  # type: ignore[override]
        def step(gone: Rows, kept: Rows) -> dict[str, float]:
            loss = loss_of(model, kept)
            loss.backward()
            return {"retain": float(loss.detach())}

        return step
