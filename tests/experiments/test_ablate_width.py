"""Width and people: projections keep lengths, and a gate fails where the retained streams leave it no room."""

from __future__ import annotations

import pytest
import torch

from eraser_lib.experiments import ablate_width
from eraser_lib.experiments.ablate import Bench
from eraser_lib.experiments.methods import Decision
from eraser_lib.figures.width import width_curves
from eraser_lib.sites import HookSite
from tests.experiments.test_ablate import WIDTH, bench

__all__ = ["bench"]
DECISION = Decision((1,), "person:ridge_bias")
SITE = HookSite(1, "output")


def test_a_basis_is_orthonormal_and_never_wider_than_the_stream() -> None:
    basis = ablate_width.random_basis(12, 5, seed=0)
    assert torch.allclose(basis.T @ basis, torch.eye(5, dtype=torch.float64))
    assert torch.equal(basis, ablate_width.random_basis(12, 5, seed=0))
    assert not torch.equal(basis, ablate_width.random_basis(12, 5, seed=1))
    square = ablate_width.random_basis(12, 12, seed=0)
    rows = torch.randn(7, 12, dtype=torch.float64)
    (seen,) = ablate_width.seen_through({SITE: rows}, square).values()
    assert torch.allclose(seen @ seen.T, rows @ rows.T), "a full turn changes no angle"
    with pytest.raises(ValueError, match="width is 13; a stream of 12 numbers"):
        ablate_width.random_basis(12, 13, seed=0)


def test_fewer_people_are_kept_and_rows_about_nobody_stay(bench: Bench) -> None:
    small = ablate_width.narrowed(bench, (1,), ablate_width.random_basis(WIDTH, 4, seed=0), 3)
    assert {row.person for row in small.rows["retain"]} == {"r0", "r1", "r2"}
    assert len(small.rows["retain"]) == len(small.read["fit"]["retain"][SITE]) == 30
    assert set(small.read["fit"]["retain"]) == {SITE}
    assert {values.shape[1] for sets in small.read.values() for read in sets.values() for values in read.values()} == {
        4
    }
    assert len(small.read["test"]["retain"][SITE]) == len(bench.read["test"]["retain"][SITE]), "tests stay whole"
    assert torch.equal(ablate_width.narrowed(bench, (1,), None, 20).read["fit"]["retain"][SITE],
                       bench.read["fit"]["retain"][SITE])  # fmt: skip


def test_free_dimensions_are_those_that_hold_little() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.zeros(500, 10)
    rows[:, :4] = torch.randn(500, 4, generator=g)
    rows[:, 4] = 0.01 * torch.randn(500, generator=g)
    rows += 20  # where everybody is takes no room
    assert ablate_width.free_dimensions(rows) == 6
    assert ablate_width.free_dimensions(torch.randn(500, 10, generator=g), energy=0.999999) == 0


def test_a_gate_needs_room(bench: Bench) -> None:
    table = ablate_width.width_table(bench, DECISION, widths=(2, 6), people=(5, 20), seeds=2)
    assert set(table["width"]) == {2, 6, WIDTH}
    own = table[(table["solver"] == "decision") & (table["people"] == 20)].groupby("width")["auc"].mean()
    assert own[WIDTH] > 0.99 > own[6] > own[2]
    assert len(table[(table["width"] == WIDTH) & (table["solver"] == "decision")]) == 2, "the full width is not drawn"
    assert len(table[(table["width"] == 2) & (table["solver"] == "decision")]) == 4
    figure = width_curves(table)
    titles = [panel.get_title(loc="left") or panel.get_title() for panel in figure.axes]
    assert titles[0] == "the gate of the study"
