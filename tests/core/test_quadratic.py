"""Quadratic gates: the density ratio they are, the curves they may drop, their parts, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eraser_lib import (
    Eraser,
    Gate,
    HookSite,
    Moments,
    QuadraticGate,
    combine,
    contrast,
    discriminant,
    fit_eraser,
    gaussian_gate,
    run_capture,
    stack,
)
from eraser_lib.baselines.detector import Gaussians
from eraser_lib.quadratic import ledoit_wolf_here, shrunken
from tests.core.test_steering import DECISION, STEERED, check_that_only_opened_rows_moved, vector


def clouds(seed: int, forget: int, retain: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Forget and retain rows that differ in place and spread, and rows in between."""
    g = torch.Generator().manual_seed(seed)
    turn = torch.randn(width, width, generator=g, dtype=torch.float64)
    rows = torch.randn(forget, width, generator=g, dtype=torch.float64) * torch.rand(width, generator=g).double()
    others = torch.randn(retain, width, generator=g, dtype=torch.float64)
    asked = 1.5 * torch.randn(7, width, generator=g, dtype=torch.float64)
    return (rows + 0.5) @ turn, others @ turn, asked @ turn


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(6, 30), st.integers(6, 60), st.integers(1, 12))
def test_with_all_curves_it_is_the_log_ratio_of_two_densities(seed: int, few: int, many: int, width: int) -> None:
    forget, retain, asked = clouds(seed, few, many, width)
    expected = Gaussians.fit(forget, retain)(asked)
    found = gaussian_gate(forget, retain)(asked)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(1 + expected.abs().max()))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 12), st.booleans())
def test_the_covariance_on_a_gpu_is_shrunken_as_by_scikit_learn(seed: int, count: int, width: int, alike: bool) -> None:
    rows, _, _ = clouds(seed, count, 6, width)
    if alike:  # every row twice as far as the other: nothing is noise
        rows = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) * rows[0]
    for found, expected in zip(ledoit_wolf_here(rows), shrunken(rows), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * float(1 + expected.abs().max()))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 10))
def test_the_divergences_of_places_and_spreads_add_up_and_come_largest_first(seed: int, width: int) -> None:
    forget, retain, _ = clouds(seed, 40, 60, width)
    found = discriminant(forget, retain)
    sides = Gaussians.fit(forget, retain)
    normals = [
        torch.distributions.MultivariateNormal(m, scale_tril=f) for m, f in zip(sides.means, sides.factors, strict=True)
    ]
    whole = torch.distributions.kl_divergence(*normals)
    torch.testing.assert_close(found.divergence.sum() + found.places.square().sum() / 2, whole, rtol=1e-8, atol=1e-8)
    assert bool((found.divergence.diff() <= 1e-12).all())


def test_few_curves_tell_what_lies_in_few_directions() -> None:
    """Two sets that differ in three of twelve directions, in place in one and in spread alone in two."""
    g = torch.Generator().manual_seed(0)
    retain = torch.randn(6000, 12, generator=g, dtype=torch.float64)
    forget = torch.randn(6000, 12, generator=g, dtype=torch.float64)
    forget[:, 3] += 4
    forget[:, [5, 8]] *= torch.tensor([0.3, 0.1])
    whole, few = gaussian_gate(forget, retain), gaussian_gate(forget, retain, curves=2)
    assert few.curves.shape == (1, 2, 12) and few.readings == 3
    assert few.curves[0].abs().argmax(dim=1).tolist() == [8, 5], "the narrowest first"
    assert int(few.weight[0].abs().argmax()) == 3, "a place needs no curve"
    asked = torch.cat([forget[:50], retain[:50]])
    assert float((whole(asked) - few(asked)).abs().max()) < 0.1 * float(whole(asked).std())
    wide = torch.zeros(2, 12, dtype=torch.float64)
    wide[1, 8] = 2.0
    near, far = few(wide)[:, 0].tolist()
    assert near > far, "whoever lies where nobody else lies so narrowly"


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 10))
def test_without_curves_it_is_fishers_discriminant(seed: int, width: int) -> None:
    forget, retain, asked = clouds(seed, 40, 60, width)
    gate = gaussian_gate(forget, retain, curves=0)
    sides = Gaussians.fit(forget, retain)
    solved = torch.cholesky_solve((sides.means[0] - sides.means[1])[:, None], sides.factors[1])[:, 0]
    expected = (asked - (sides.means[0] + sides.means[1]) / 2) @ solved
    torch.testing.assert_close(gate(asked)[:, 0], expected, rtol=1e-6, atol=1e-6 * float(1 + expected.abs().max()))
    assert gate.curves.shape == (1, 0, width)


def random_gate(k: int, curves: int, width: int, *, seed: int = 0) -> QuadraticGate:
    g = torch.Generator().manual_seed(seed)
    return QuadraticGate(
        torch.randn(k, width, generator=g),
        torch.randn(k, generator=g),
        curves=torch.randn(k, curves, width, generator=g),
        shift=torch.randn(k, curves, generator=g),
        curvature=torch.randn(k, curves, generator=g),
    )


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4))
def test_the_readings_of_the_parts_add_up(seed: int, k: int, curves: int, parts: int) -> None:
    gate = random_gate(k, curves, 6 * parts, seed=seed).with_threshold(0.5)
    h = torch.randn(5, 6 * parts, generator=torch.Generator().manual_seed(seed + 1)).double()
    pieces = gate.split(parts)
    total = sum(piece.read(chunk) for piece, chunk in zip(pieces, h.chunk(parts, dim=1), strict=True))
    assert isinstance(total, Tensor) and total.shape == (5, gate.readings)
    torch.testing.assert_close(pieces[-1].values(total), gate(h), rtol=1e-10, atol=1e-10)
    assert [piece.threshold is None for piece in pieces] == [True] * (parts - 1) + [False]


def test_it_is_what_it_says() -> None:
    gate = random_gate(2, 3, 4)
    h = torch.randn(2, 5, 4)
    wanted = torch.stack([
        h @ gate.weight[k] + gate.bias[k]
        + sum(gate.curvature[k, j] * (h @ gate.curves[k, j] - gate.shift[k, j]) ** 2 for j in range(3))
        for k in range(2)
    ], dim=-1)  # fmt: skip
    torch.testing.assert_close(gate(h), wanted)
    assert gate(h.bfloat16()).dtype == torch.float32 and gate(h.double()).dtype == torch.float64


def test_requests_stack_and_unlike_gates_do_not() -> None:
    one, other = random_gate(1, 3, 4, seed=1), random_gate(1, 3, 4, seed=2)
    h = torch.randn(5, 4)
    both = stack([one, other])
    assert isinstance(both, QuadraticGate) and both.rank == 2
    torch.testing.assert_close(both(h), torch.cat([one(h), other(h)], dim=1))
    with pytest.raises(ValueError, match="same number of curves"):
        stack([one, random_gate(1, 2, 4)])
    with pytest.raises(ValueError, match="of one kind"):
        stack([one, Gate(one.weight, one.bias)])


def erased(gate: QuadraticGate, sites: list[HookSite], rank: int = 1) -> Eraser:
    parts = dict(zip(sites, gate.split(len(sites)), strict=True))
    return Eraser(directions={site: vector(i, rank) for i, site in enumerate(STEERED)}, gates=parts)


@pytest.mark.parametrize("count", [1, 3])
def test_an_eraser_decides_by_it_and_closed_rows_stay(tiny, side, tmp_path, count: int) -> None:
    inputs = tiny.inputs(side=side)
    sites = [HookSite(1), DECISION, HookSite(3)][3 - count :]
    streams = run_capture(tiny.model, inputs, sites)
    joined = torch.cat([streams[site].double() for site in sites], dim=1)
    gate = random_gate(1, 4, joined.shape[1])
    expected = gate(joined)
    middle = expected[:, 0].sort().values[1:3].mean().item()
    eraser = erased(gate.with_threshold(middle), sites)
    with eraser.attach(tiny.model) as handle:
        found = tiny.logits(inputs)
    torch.testing.assert_close(handle.gate_values[sites[-1]].double(), expected, rtol=1e-4, atol=1e-3)
    assert torch.equal(handle.opened, expected[:, 0] > middle)
    assert 0 < int(handle.opened.sum()) < len(handle.opened)
    check_that_only_opened_rows_moved(found, tiny.logits(inputs), inputs, handle.opened)
    eraser.save_pretrained(tmp_path, model=tiny.model)
    again = Eraser.from_pretrained(tmp_path, model=tiny.model)
    for site in sites:
        assert type(again.gates[site]) is type(eraser.gates[site])
        assert all(
            torch.equal(value, again.gates[site].tensors[name]) for name, value in eraser.gates[site].tensors.items()
        )
    with again.attach(tiny.model):
        assert torch.equal(tiny.logits(inputs), found)
    assert again.inspect()["bytes"] == eraser.inspect()["bytes"] > 4 * joined.shape[1] * 5


def test_combined_requests_at_several_sites_decide_as_each_alone(tiny) -> None:
    inputs = tiny.inputs()
    sites = [HookSite(1), HookSite(3)]
    width = vector(0).shape[1]
    gates = [random_gate(1, 2, 2 * width, seed=seed).with_threshold(0.0) for seed in (3, 4)]
    requests = [erased(gate, sites) for gate in gates]
    alone = []
    for request in requests:
        with request.attach(tiny.model) as handle:
            tiny.logits(inputs)
        alone.append(handle.gate_values[HookSite(3)])
    with combine(requests).attach(tiny.model) as handle:
        tiny.logits(inputs)
    torch.testing.assert_close(handle.gate_values[HookSite(3)], torch.cat(alone, dim=1), rtol=1e-5, atol=1e-4)


def test_an_eraser_is_fitted_with_one() -> None:
    forget, retain, asked = clouds(1, 20, 30, 8)
    site, steer = HookSite(2), contrast({HookSite(0): asked}, {HookSite(0): asked + 1})
    known, kept = {site: forget}, {site: retain}
    eraser = fit_eraser(known, kept, steer, solver="gaussian", curves=3, threshold=0.5)
    assert torch.equal(eraser.gates[site](asked), gaussian_gate(forget, retain, curves=3)(asked))
    assert eraser.metadata["solver"] == "gaussian" and eraser.metadata["solver_options"] == {"curves": 3}
    even = fit_eraser(known, kept, steer, solver="gaussian", rms=True).gates[site]
    torch.testing.assert_close(even(asked), even(2 * asked), rtol=1e-5, atol=1e-4)
    with pytest.raises(ValueError, match="needs the activations of both sides"):
        fit_eraser(known, {site: Moments.of(retain)}, steer, solver="gaussian")
    with pytest.raises(ValueError, match="solver is 'gauss'; it must be ridge, hard or gaussian"):
        fit_eraser(known, kept, steer, solver="gauss")  # type: ignore[arg-type]


def test_an_older_reader_refuses_a_file_that_it_would_misread(tmp_path) -> None:
    erased(random_gate(1, 2, vector(0).shape[1]).with_threshold(0.0), [DECISION]).save_pretrained(tmp_path)
    assert '"schema": 2' in (tmp_path / "eraser.json").read_text()


def test_what_cannot_be_fitted_is_refused() -> None:
    forget, retain, _ = clouds(0, 5, 9, 4)
    with pytest.raises(ValueError, match="forget activations of shape \\(N >= 2, 4\\), got \\(1, 4\\)"):
        gaussian_gate(forget[:1], retain)
    with pytest.raises(ValueError, match="retain activations of shape \\(N >= 2, 4\\), got \\(9, 3\\)"):
        gaussian_gate(forget, retain[:, :3])
    with pytest.raises(ValueError, match="retain activations do not vary in every direction"):
        gaussian_gate(forget, torch.ones(9, 4))
    with pytest.raises(ValueError, match="forget activations do not vary in every direction, and are too few"):
        gaussian_gate(forget[:1].repeat(2, 1), retain)
    with pytest.raises(ValueError, match="forget activations must be finite"):
        gaussian_gate(forget / 0, retain)
    for number in (-1, 5):
        with pytest.raises(ValueError, match=f"curves is {number}; it must lie between 0 and the width 4"):
            gaussian_gate(forget, retain, curves=number)
    good = random_gate(1, 2, 4)
    for changed, name in (
        ({"curves": good.curves[0]}, "curves"), ({"shift": good.shift[0]}, "shift"),
        ({"curvature": torch.zeros(1, 3)}, "curvature"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"QuadraticGate.{name} must have shape"):
            QuadraticGate(**{**good.tensors, **changed})


def test_parts_that_do_not_belong_to_the_decision_are_refused() -> None:
    width = vector(0).shape[1]
    early, last = random_gate(1, 2, 2 * width).with_threshold(0.0).split(2)
    other = random_gate(1, 3, 2 * width).split(2)[0]
    with pytest.raises(ValueError, match=f"take 3 readings of width {width}, as the last one does"):
        Eraser(directions={HookSite(0): vector(0)}, gates={HookSite(1): other, HookSite(3): last})
    Eraser(directions={HookSite(0): vector(0)}, gates={HookSite(1): early, HookSite(3): last})
