"""The gate as theorems: rank one, blind to the retain directions, equal to the dense solution (invariant
g)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.memory import LiveBytes
from eraser_lib import Gate, Moments, hard_gate, retain_basis, ridge_gate, ridge_gates, rms_normalise, stack


def problem(seed: int, n_f: int, n_r: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Forget rows, retain rows (with a mean that holds most of the energy), and a direction."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -2, d, dtype=torch.float64)
    mean = 4 * torch.randn(d, dtype=torch.float64, generator=g)
    retain = torch.randn(n_r, d, dtype=torch.float64, generator=g) * scale + mean
    shift = torch.randn(d, dtype=torch.float64, generator=g)
    forget = torch.randn(n_f, d, dtype=torch.float64, generator=g) * scale + mean + shift
    return forget, retain, torch.randn(d, dtype=torch.float64, generator=g)


def least_squares(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.lstsq(a, b, driver="gelsd").solution


problems = given(
    seed=st.integers(0, 10**6), n_f=st.integers(1, 25), n_r=st.integers(2, 40), d=st.integers(4, 16),
    gamma=st.sampled_from([1e-3, 1e-2, 1.0]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@problems
def test_hard_gate_is_the_dense_matrix(seed: int, n_f: int, n_r: int, d: int, gamma: float) -> None:
    forget, retain, r = problem(seed, n_f, n_r, d)
    moments = Moments.of(retain)
    basis = retain_basis(moments, keep=0.5)
    projector = torch.eye(d, dtype=torch.float64) - basis @ basis.T
    gate = hard_gate(forget, moments, keep=0.5, gamma=gamma)
    # Oracle: W P minimises ||W P H - r 1^T||^2 + g ||W P||^2, by augmented least squares on the d x d matrix.
    rows = forget @ projector
    absolute = gamma * float(rows.square().sum()) / n_f
    # what the claim is about: a ridge that is not negligible, and rows of which neither the projection nor the sum of
    # them, which a gate is a multiple of where they lie on a line, leaves rounding
    assume(absolute >= 1e-4 * float(torch.linalg.matrix_norm(rows, 2)) ** 2)
    assume(float(rows.square().sum()) >= 1e-3 * float(forget.square().sum()))
    assume(float(rows.sum(0).square().sum()) >= 1e-2 * n_f * float(rows.square().sum()))
    stacked = torch.cat([rows, absolute**0.5 * torch.eye(d, dtype=torch.float64)])
    target = torch.cat([r.expand(n_f, d), torch.zeros(d, d, dtype=torch.float64)])
    dense = least_squares(stacked, target).T  # (d, d), acts on h
    factored = torch.outer(r, gate.weight[0])
    assert float((factored - dense).norm() / dense.norm()) <= 1e-10
    singular = torch.linalg.svdvals(dense)
    assert float(singular[1] / singular[0]) < 1e-10


@settings(max_examples=40, deadline=None)
@problems
def test_ridge_gate_is_the_dense_matrix(seed: int, n_f: int, n_r: int, d: int, gamma: float) -> None:
    forget, retain, r = problem(seed, n_f, n_r, d)
    for beta in (0.5, 5.0):
        gate = ridge_gate(forget, Moments.of(retain), beta=beta, gamma=gamma)
        c_f, c_r = forget.square().sum() / n_f, retain.square().sum() / n_r
        weight = (beta * c_f / c_r / n_r) ** 0.5
        root = (gamma * c_f / d) ** 0.5
        stacked = torch.cat([forget / n_f**0.5, weight * retain, root * torch.eye(d, dtype=torch.float64)])
        target = torch.cat([r.expand(n_f, d) / n_f**0.5, torch.zeros(n_r + d, d, dtype=torch.float64)])
        dense = least_squares(stacked, target).T
        assert float((torch.outer(r, gate.weight[0]) - dense).norm() / dense.norm()) <= 1e-10


@settings(max_examples=20, deadline=None)
@problems
def test_ridge_bias_is_the_affine_least_squares(seed: int, n_f: int, n_r: int, d: int, gamma: float) -> None:
    forget, retain, _ = problem(seed, n_f, n_r, d)
    gate = ridge_gate(forget, Moments.of(retain), beta=2.0, gamma=gamma, bias=True)
    c_f, c_r = forget.square().sum() / n_f, retain.square().sum() / n_r
    weight, root = (2.0 * c_f / c_r / n_r) ** 0.5, (gamma * c_f / d) ** 0.5

    def block(x: Tensor, factor: Tensor | float, constant: float) -> Tensor:
        return factor * torch.cat([x, torch.full((len(x), 1), constant, dtype=torch.float64)], dim=1)

    stacked = torch.cat([
        block(forget, n_f**-0.5, 1.0), block(retain, weight, 1.0), block(torch.eye(d, dtype=torch.float64),
        root, 0.0)
    ])  # fmt: skip
    target = torch.zeros(len(stacked), 1, dtype=torch.float64)
    target[:n_f] = n_f**-0.5
    solution = least_squares(stacked, target)[:, 0]
    torch.testing.assert_close(gate.weight[0], solution[:-1], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gate.bias[0], solution[-1], rtol=1e-7, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), energy=st.sampled_from([0.5, 0.9, 0.99]))
def test_hard_gate_leaks_no_more_than_the_energy_rule_allows(seed: int, energy: float) -> None:
    forget, retain, _ = problem(seed, 5, 60, 12)
    moments = Moments.of(retain)
    basis = retain_basis(moments, energy=energy)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    left = retain - retain @ basis @ basis.T
    assert float((moments.mean - basis @ (basis.T @ moments.mean)).norm()) < 1e-9 * float(moments.mean.norm())
    centred = retain - moments.mean
    assert float(left.square().sum() / centred.square().sum()) <= 1 - energy + 1e-12
    gate = hard_gate(forget, moments, energy=energy)
    assert float((gate.weight[0] @ basis).norm() / gate.weight.norm()) < 1e-10


def test_an_uncentred_share_of_energy_leaks_which_is_why_the_mean_goes_first() -> None:
    _, retain, _ = problem(0, 5, 60, 12)
    moments = Moments.of(retain)
    assert retain_basis(moments, energy=0.9, centred=False).shape[1] == 1
    assert retain_basis(moments, energy=0.9).shape[1] > 2


def test_published_ratio_keeps_that_share_of_dimensions() -> None:
    _, retain, _ = problem(0, 5, 60, 10)
    assert retain_basis(Moments.of(retain), keep=0.4, centred=False).shape == (10, 6)
    assert retain_basis(Moments.of(retain), keep=0.4).shape == (10, 7)  # and the mean direction


def test_hard_gate_is_the_limit_of_ridge_where_a_null_space_exists() -> None:
    forget, retain, _ = problem(3, 4, 5, 12)
    moments = Moments.of(retain)
    hard = hard_gate(forget, moments, energy=1 - 1e-12, gamma=1e-2)
    basis = retain_basis(moments, energy=1 - 1e-12)
    rows = forget - forget @ basis @ basis.T
    # gamma_ridge = gamma_hard / N_f, in absolute units
    absolute = 1e-2 * float(rows.square().sum()) / 4 / 4
    unit = float(forget.square().sum()) / 4 / 12
    soft = ridge_gate(forget, moments, beta=1e8, gamma=absolute / unit)
    assert float((soft.weight - hard.weight).norm() / hard.weight.norm()) < 1e-3


def test_ridge_separates_and_bias_hits_the_targets() -> None:
    forget, retain, _ = problem(1, 30, 200, 16)
    for gate in (ridge_gate(forget, Moments.of(retain)), ridge_gate(forget, Moments.of(retain), bias=True)):
        assert float(gate(forget).mean()) > 0.5 > float(gate(retain).mean())
    hard = hard_gate(forget, Moments.of(retain), keep=0.5, bias=True)
    assert abs(float(hard(retain).mean())) < 1e-9


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), d=st.integers(2, 24),
    beta=st.sampled_from([0.03, 1.0, 5.0]), gamma=st.sampled_from([1e-3, 1e-2, 1.0]), bias=st.booleans(),
)  # fmt: skip
def test_many_ridge_gates_are_each_of_them(
    seed: int, sizes: list[int], d: int, beta: float, gamma: float, bias: bool
) -> None:
    """One factor for all requests (Woodbury) gives what each has by its own Cholesky factor."""
    g = torch.Generator().manual_seed(seed)
    mean = 3 * torch.randn(d, generator=g, dtype=torch.float64)
    requests = [mean + torch.randn(n, d, generator=g, dtype=torch.float64) for n in sizes]
    retain = Moments.of(mean + torch.randn(40, d, generator=g, dtype=torch.float64))
    before = retain.second.clone()
    together = ridge_gates(requests, retain, beta=beta, gamma=gamma, bias=bias)
    apart = stack([ridge_gate(request, retain, beta=beta, gamma=gamma, bias=bias) for request in requests])
    scale = float(apart.weight.abs().max())
    assert torch.allclose(together.weight, apart.weight, rtol=1e-6, atol=1e-8 * scale)
    assert torch.allclose(together.bias, apart.bias, rtol=1e-6, atol=1e-8 * max(1.0, float(apart.bias.abs().max())))
    assert torch.equal(retain.second, before)


def test_many_ridge_gates_refuse_what_one_refuses() -> None:
    rows, retain = torch.ones(3, 4), Moments.of(torch.ones(5, 4))
    with pytest.raises(ValueError, match="beta and gamma must be positive, got beta=0"):
        ridge_gates([rows], retain, beta=0)
    with pytest.raises(ValueError, match="shape \\(N >= 1, 4\\), got \\(3, 2\\)"):
        ridge_gates([rows, rows[:, :2]], retain)
    with pytest.raises(ValueError, match="retain moments are all zero"):
        ridge_gates([rows], Moments.of(torch.zeros(5, 4)))


def test_container_has_rank_k() -> None:
    gates = [Gate(torch.randn(1, 4), torch.zeros(1)).with_threshold(t) for t in (0.1, 0.2)]
    both = stack(gates)
    h = torch.randn(3, 5, 4)
    assert both(h).shape == (3, 5, 2)
    torch.testing.assert_close(both(h)[..., 1], gates[1](h)[..., 0])
    assert both.opens(torch.tensor([0.15, 0.2])).tolist() == [True, False]  # strictly greater


def test_gate_values_are_wide_and_rms_ignores_length() -> None:
    gate = Gate(torch.ones(1, 4), torch.zeros(1), rms=True)
    h = torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(gate(h), gate(100 * h), rtol=1e-5, atol=1e-5)
    assert gate(h.bfloat16()).dtype == torch.float32
    assert gate(h.double()).dtype == torch.float64
    torch.testing.assert_close(rms_normalise(h).square().mean(), torch.tensor(1.0), rtol=1e-5, atol=1e-5)


def test_errors() -> None:
    forget, retain, _ = problem(0, 5, 60, 12)
    moments = Moments.of(retain)
    with pytest.raises(ValueError, match="exactly one"):
        retain_basis(moments)
    with pytest.raises(ValueError, match="strictly between"):
        retain_basis(moments, keep=1.5)
    with pytest.raises(ValueError, match="gamma"):
        hard_gate(forget, moments, keep=0.5, gamma=0)
    with pytest.raises(ValueError, match="positive"):
        ridge_gate(forget, moments, beta=-1)
    with pytest.raises(ValueError, match="shape"):
        hard_gate(forget[:, :3], moments, keep=0.5)
    with pytest.raises(ValueError, match="Nothing of the forget"):
        hard_gate(torch.zeros(2, 12), moments, keep=0.5)
    with pytest.raises(ValueError, match="stacked"):
        stack([Gate(torch.ones(1, 2), torch.zeros(1)), Gate(torch.ones(1, 2), torch.zeros(1), rms=True)])
    with pytest.raises(ValueError, match=r"Gate\.bias"):
        Gate(torch.ones(1, 2), torch.zeros(2))


def test_a_split_gate_adds_up_to_the_joined_one() -> None:
    generator = torch.Generator().manual_seed(3)
    gate = Gate(torch.randn(2, 12, generator=generator).double(), torch.randn(2, generator=generator).double())
    h = torch.randn(5, 12, generator=generator).double()
    parts = gate.with_threshold(0.5).split(3)
    total = sum(part(chunk) for part, chunk in zip(parts, h.chunk(3, dim=1), strict=True))
    torch.testing.assert_close(total, gate(h), rtol=1e-12, atol=1e-12)
    assert [part.threshold is None for part in parts] == [True, True, False]
    with pytest.raises(ValueError, match="no 5 equal parts"):
        gate.split(5)


@pytest.mark.parametrize("options", [{"keep": 0.005}, {"energy": 0.99999}])
def test_hard_gate_says_when_nothing_is_left(options: dict[str, float]) -> None:
    """Rounding leaves a little of what lies within the retain directions; a gate fitted on that would be noise."""
    g = torch.Generator().manual_seed(0)
    retain = Moments.of(torch.randn(500, 64, generator=g, dtype=torch.float64) + 1)
    with pytest.raises(ValueError, match="Nothing of the forget activations is left"):
        hard_gate(torch.randn(5, 64, generator=g, dtype=torch.float64), retain, **options)


def test_autocast_takes_no_precision() -> None:
    g = torch.Generator().manual_seed(0)
    gate, h = Gate(torch.randn(2, 64, generator=g), torch.zeros(2)), torch.randn(9, 64, generator=g)
    with torch.autocast("cpu", torch.bfloat16):
        values, moments = gate(h), Moments.of(h, dtype=torch.float32)
        assert (h @ gate.weight.T).dtype == torch.bfloat16, "autocast is on"
    assert torch.equal(values, gate(h)) and torch.equal(moments.second, Moments.of(h, dtype=torch.float32).second)


def test_a_threshold_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="would never open"):
        Gate(torch.ones(1, 4), torch.zeros(1)).with_threshold(float("nan"))


def test_rows_are_normalised_one_by_one() -> None:
    """A short and a long prompt in one batch: neither knows of the other."""
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(3)) * torch.tensor([[1.0], [100.0], [0.01]])
    gate = Gate(torch.randn(2, 8, generator=torch.Generator().manual_seed(4)), torch.zeros(2), rms=True)
    assert torch.allclose(gate(rows), torch.cat([gate(row[None]) for row in rows]), atol=1e-5)
    both = stack([gate, gate])
    assert torch.allclose(both(rows), torch.cat([gate(rows)] * 2, dim=1), atol=1e-5), (
        "and still does not where gates are stacked"
    )


def brute_basis(rows: Tensor, energy: float) -> Tensor:
    """The mean direction, then the fewest principal directions of the rows beside it that hold the energy."""
    unit = rows.mean(0) / rows.mean(0).norm()
    rest = rows - rows.mean(0)
    rest = rest - torch.outer(rest @ unit, unit)
    _, values, directions = torch.linalg.svd(rest, full_matrices=False)
    share = values.square().cumsum(0) / values.square().sum()
    return torch.cat([unit[None], directions[: int((share < energy).sum()) + 1]])


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_the_share_of_a_centred_basis_is_one_of_the_rest(energy: float) -> None:
    """Much of the spread lies along the mean, a little askew: both sides of the moment are cleared of it."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(400, 10, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.2, 10)
    rows += 5 + 4 * torch.randn(400, 1, generator=generator, dtype=torch.float64) * torch.linspace(1, 2, 10)
    found, wanted = retain_basis(Moments.of(rows), energy=energy), brute_basis(rows, energy)
    assert found.shape[1] == len(wanted)
    assert torch.allclose(found @ found.T, wanted.T @ wanted, atol=1e-8)


def test_a_hard_gate_with_an_offset_removes_directions_of_the_spread() -> None:
    """The mean is far from 0 and not a direction that retained prompts differ in: it may stay open."""
    generator = torch.Generator().manual_seed(6)
    retain = torch.randn(300, 6, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2, 1, 0.1, 0.1, 0.1])
    retain[:, 5] += 50
    forget = retain[:20] + torch.tensor([0.0, 0, 0, 0, 0, 4])
    gate = hard_gate(forget, Moments.of(retain), energy=0.9, bias=True)
    _, vectors = torch.linalg.eigh(Moments.of(retain).covariance)
    for spread in vectors.T.flip(0)[:2]:  # the two that hold 0.9 of it
        assert abs(float(gate.weight[0] @ spread)) < 1e-9
    assert gate(forget).mean() > 0.5 > gate(retain).abs().mean() + 0.3


@pytest.mark.parametrize(
    ("bias", "as_rows", "matrices"), [(False, False, 4), (True, False, 5), (False, True, 5), (True, True, 6)]
)
def test_the_peak_of_the_ridge_solver_is_the_stated_one(bias: bool, as_rows: bool, matrices: int) -> None:
    """`d x d` matrices of float64 beside the moments that are given, whatever they are counted in."""
    g = torch.Generator().manual_seed(0)
    forget, retain = torch.randn(20, 64, generator=g), torch.randn(200, 64, generator=g)
    for dtype in (torch.float32, torch.float64):
        known, others = forget if as_rows else Moments.of(forget, dtype=dtype), Moments.of(retain, dtype=dtype)
        with LiveBytes() as live:
            ridge_gate(known, others, bias=bias)
        assert matrices <= live.peak / (64 * 64 * 8) <= matrices + 0.2
