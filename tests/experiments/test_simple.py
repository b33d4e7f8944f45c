"""Simple detectors: each separates what can be separated, and is judged on the prompts that it is said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from eraser_lib import precision
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.separation import auc
from eraser_lib.experiments import simple
from eraser_lib.experiments.sets import general_questions
from eraser_lib.gate import Gate
from eraser_lib.sites import HookSite

WIDTH = 12


def cloud(seed: int, count: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    rows = scale * torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    rows[:, 0] += shift
    return rows


@pytest.fixture(scope="module")
def asked() -> dict[str, list[Question]]:
    """Forty prompts of each set, the first twenty with a picture, of ten people a set."""
    some = general_questions(60, "test")
    with_picture = next(q for q in some if q.prompt.image is not None)
    without = next(q for q in some if q.prompt.image is None)

    def rows(name: str) -> list[Question]:
        return [
            replace(with_picture if n < 20 else without, id=f"{name}/{n}", person=f"{name}-{n % 10}") for n in range(40)
        ]

    return {name: rows(name) for name in ("test", "retain", "celebrity", "stranger", "general")}


@pytest.mark.parametrize("name", simple.DETECTORS)
def test_every_detector_separates_what_can_be_separated_and_nothing_else(name: str) -> None:
    make = simple.DETECTORS[name]
    score = make(cloud(1, 80, shift=4.0), cloud(2, 400))
    assert auc(score(cloud(3, 200, shift=4.0)).numpy(), score(cloud(4, 200)).numpy()) > 0.97
    blind = make(cloud(5, 200), cloud(6, 400))
    assert 0.4 < auc(blind(cloud(7, 400)).numpy(), blind(cloud(8, 400)).numpy()) < 0.6


def test_gaussians_tell_spread_apart_where_means_are_equal() -> None:
    score = simple.gaussian(cloud(1, 300, scale=3.0), cloud(2, 300))
    assert auc(score(cloud(3, 200, scale=3.0)).numpy(), score(cloud(4, 200)).numpy()) > 0.97
    probe = simple.probe(cloud(1, 300, scale=3.0), cloud(2, 300))
    assert auc(probe(cloud(3, 200, scale=3.0)).numpy(), probe(cloud(4, 200)).numpy()) < 0.7, "a line cannot"


def test_gaussian_scores_are_log_densities() -> None:
    """In one dimension without shrinkage: means 2 and 0, variances of the samples."""
    forget, retain = torch.tensor([[1.0], [3.0]]), torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
    found = simple.gaussian(forget, retain)(torch.tensor([[0.0], [2.0]]))
    wanted = [-0.5 * ((x - 2) ** 2 - x**2) for x in (0.0, 2.0)]  # both variances are 1
    assert found.tolist() == pytest.approx(wanted)


def test_a_detector_is_judged_by_the_prompts_that_are_named(asked: dict[str, list[Question]]) -> None:
    """Pictures of the forgotten are told from retained pictures, their texts are not; celebrities stand below all."""
    ranks = torch.linspace(0, 1, 20)
    test = {
        "test": torch.cat([2 + ranks, ranks]), "retain": torch.cat([ranks, ranks]),
        "celebrity": torch.full((40,), -1.0), "stranger": torch.full((40,), 5.0), "general": torch.full((40,), -1.0),
    }  # fmt: skip
    features = {name: values[:, None] for name, values in test.items()}
    calibration = {"people": torch.linspace(0, 1, 199)[:, None]}
    found = simple.judged(lambda rows: rows[:, 0], calibration, features, asked, alpha=0.1)
    assert found["auc_picture"] == 1
    assert found["auc_text"] == pytest.approx((0.5 + 1) / 2, abs=0.02), "half of the others are celebrities"
    assert found["auc"] == pytest.approx((1 + found["auc_text"]) / 2, abs=0.13)
    assert found["auc_outside"] == pytest.approx(0.5), "above general questions, below strangers"
    threshold = 180 / 199  # the 180th of 199 scores
    assert found["opened"] == pytest.approx(0.5 + float((ranks > threshold).double().mean()) / 2)
    assert found["retain"] == pytest.approx(float((ranks > threshold).double().mean()))
    assert found["auc_low"] <= found["auc"] <= found["auc_high"]


def test_each_detector_stands_at_its_best_block_and_where_the_gate_reads(asked: dict[str, list[Question]]) -> None:
    sites = [HookSite(layer, "output") for layer in range(3)]

    def read(shifts: tuple[float, ...], seed: int, count: int = 40) -> dict[HookSite, Tensor]:
        return {site: cloud(seed + n, count, shift) for n, (site, shift) in enumerate(zip(sites, shifts, strict=True))}

    far, near = (0.0, 5.0, 1.0), (0.0, 0.0, 0.0)
    fit = {"forget": read(far, 10, 100), "retain": read(near, 20, 300)}
    test = {"test": read(far, 30), **{n: read(near, 40 + 10 * k) for k, n in enumerate(("retain", "celebrity"))}}
    calibration = {"people": read(near, 80, 200)}
    weight = torch.zeros(1, 2 * WIDTH)
    weight[0, 0] = 1
    gate = Gate(weight, torch.zeros(1))
    found = simple.table(fit, calibration, test, asked, gate, (1, 2))
    assert dict(found["detector"].value_counts()) == {"gate": 1, **dict.fromkeys(simple.DETECTORS, 2)}
    assert set(found["blocks"]) == {"1", "1+2"}
    assert (found["auc"] > 0.95).all() and found["auc"].is_monotonic_decreasing
    single = simple.table(fit, calibration, test, asked, Gate(weight[:, :WIDTH], torch.zeros(1)), (1,))
    assert len(single) == 4, "the best block is where the gate reads"
    assert np.allclose(single.loc[single["detector"] == "gate", "auc"], found.loc[found["detector"] == "gate", "auc"])


def test_wide_streams_are_fitted_where_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision.workbench(precision.WIDE).type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [precision.workbench(width).type for width in (precision.WIDE, precision.WIDE - 1)] == ["cuda", "cpu"]
