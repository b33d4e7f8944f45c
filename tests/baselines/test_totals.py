"""What a trained baseline minimises is the sum that its docstring states, computed here from rows read one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eraser_lib.baselines.ga import GA
from eraser_lib.baselines.ga_diff import GADiff
from eraser_lib.baselines.idk import Idk
from eraser_lib.baselines.kl_min import KLMin
from eraser_lib.baselines.mmunlearner import MMUnlearner
from eraser_lib.baselines.npo import NPO
from eraser_lib.baselines.rmu import RMU
from eraser_lib.baselines.training import Loss, Objective
from eraser_lib.baselines.undial import Undial
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded

Rows = list[Question]
Term = Callable[[Loaded, Loaded, Rows], Tensor]
"""Of the model, of vanilla and of rows: what a sum holds about forget rows, or about retain rows."""


def predicted(loaded: Loaded, rows: Rows, answers: list[str] | None = None) -> list[tuple[Tensor, Tensor]]:
    """Of every row: log-probabilities `(T, V)` before the T tokens of its answer, and those tokens `(T, 1)`."""
    found = []
    for row, answer in zip(rows, answers or [row.answer for row in rows], strict=True):
        tokens = torch.tensor(loaded.answer_ids(answer))[:, None]
        inputs = loaded.encode([row.prompt], [answer])
        del inputs["labels"]
        logits = loaded.model(**inputs, use_cache=False).logits[0, -len(tokens) - 1 : -1]
        found.append((torch.log_softmax(logits, dim=-1), tokens))
    return found


def likelihoods(loaded: Loaded, rows: Rows, answers: list[str] | None = None) -> list[Tensor]:
    """Of every row: log-likelihoods of its answer's tokens."""
    return [values.gather(1, tokens) for values, tokens in predicted(loaded, rows, answers)]


def nothing(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    return torch.zeros(())


def ascent(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    return torch.cat(likelihoods(model, rows)).mean()


def ascent_on_pictures(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    return ascent(model, vanilla, [row for row in rows if row.modality == "vqa"])


def descent(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    return -ascent(model, vanilla, rows)


def refusals(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    return -torch.cat(likelihoods(model, rows, [Idk().refusal(row) for row in rows])).mean()


def divergence(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    pairs = zip(predicted(vanilla, rows), predicted(model, rows), strict=True)
    return torch.cat([(before.exp() * (before - now)).sum(dim=-1) for (before, _), (now, _) in pairs]).mean()


def preference(over: Callable[[Tensor], Tensor]) -> Term:
    """With beta 0.5 and log-ratios taken over an answer's tokens in the way given."""

    def term(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
        pairs = zip(likelihoods(vanilla, rows), likelihoods(model, rows), strict=True)
        ratios = torch.stack([over(now - before) for before, now in pairs])
        return 4 * (1 + (0.5 * ratios).exp()).log().mean()

    return term


def distillation(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    """With gamma 2: under the target the true token's odds are those under vanilla, divided by e^2."""
    found = []
    for (before, tokens), (now, _) in zip(predicted(vanilla, rows), predicted(model, rows), strict=True):
        weights = before.exp().scatter(1, tokens, (before.gather(1, tokens) - 2).exp())
        found.append(-(weights / weights.sum(dim=1, keepdim=True) * now).sum(dim=1))
    return torch.cat(found).mean()


def streams(loaded: Loaded, rows: Rows) -> Tensor:
    """Output of block 2 at all tokens of all rows, `(tokens, d)`."""
    found = []
    for row in rows:
        inputs = loaded.encode([row.prompt], [row.answer])
        del inputs["labels"]
        found.append(loaded.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states[3][0])
    return torch.cat(found)


def misdirection(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    """With scale 2 and the direction of seed 0."""
    before = streams(vanilla, rows)
    noise = torch.randn(before.shape[1], generator=torch.Generator().manual_seed(0))
    return (streams(model, rows) - 2 * before.norm(dim=1).mean() * noise / noise.norm()).square().mean()


def held(model: Loaded, vanilla: Loaded, rows: Rows) -> Tensor:
    return (streams(model, rows) - streams(vanilla, rows)).square().mean()


@pytest.fixture(scope="module")
def moved(loaded: Loaded) -> Loaded:
    """A model that is vanilla no longer."""
    model = copy.deepcopy(loaded.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return Loaded(model, loaded.processor, loaded.family)


TOTALS: list[tuple[Objective, Term, Term]] = [
    (GA(), ascent, nothing),
    (GADiff(lam=3.0), ascent, descent),
    (KLMin(alpha=3.0), ascent, divergence),
    (Idk(lam=3.0), refusals, descent),
    (NPO(beta=0.5, lam=3.0), preference(torch.sum), descent),
    (NPO(beta=0.5, lam=3.0, length="mean"), preference(torch.mean), descent),
    (Undial(gamma=2.0, lam=3.0), distillation, descent),
    (Undial(gamma=2.0, lam=0.0), distillation, nothing),
    (RMU(depth=0.35, scale=2.0, alpha=3.0), misdirection, held),
    (MMUnlearner(threshold=0.0, lam=3.0), ascent_on_pictures, descent),  # no weight is masked
]


@pytest.mark.parametrize(("objective", "let_go", "keep"), TOTALS, ids=[str(objective) for objective, _, _ in TOTALS])
def test_the_total_is_what_lets_go_and_three_times_what_keeps(
    loaded: Loaded, moved: Loaded, forget: Rows, retain: Rows, objective: Objective, let_go: Term, keep: Term
) -> None:
    """Its gradient, in which every weight and sign shows, and its value where a method computes one."""
    parameters = objective.parameters(moved.model)
    total = let_go(moved, loaded, forget) + 3 * keep(moved, loaded, retain)
    wanted = torch.autograd.grad(total, parameters, allow_unused=True)
    moved.model.zero_grad()
    objective.begin(moved, loaded, forget, retain)(forget, retain)
    apart, size = 0.0, 0.0
    for parameter, grad in zip(parameters, wanted, strict=True):
        mine, its = (torch.zeros_like(parameter) if found is None else found for found in (parameter.grad, grad))
        apart, size = apart + float((mine - its).square().sum()), size + float(its.square().sum())
    assert size > 0 and apart < 1e-6 * size
    if isinstance(objective, Loss):
        found, _ = objective.terms(moved, loaded, forget, retain)
        assert found.item() == pytest.approx(total.item(), rel=1e-4)
