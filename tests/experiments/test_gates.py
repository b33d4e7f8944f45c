"""Gates of the study and their store: solvers separate, people are standardised, thresholds hold their promise."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eraser_lib.direction import Direction
from eraser_lib.evaluate.separation import auc
from eraser_lib.experiments import gates, store
from eraser_lib.experiments.activations import join
from eraser_lib.experiments.candidates import pushes
from eraser_lib.experiments.methods import Push
from eraser_lib.experiments.sets import general_questions
from eraser_lib.moments import Moments
from eraser_lib.sites import HookSite

WIDTH = 24


@pytest.fixture(scope="module")
def clouds() -> dict[str, Tensor]:
    """Retained prompts live in a few directions; two forgotten people each have a direction of their own."""
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g)).Q
    mean = 5 * basis[0]

    def draw(n: int, extra: Tensor | None = None) -> Tensor:
        rows = mean + torch.randn(n, 8, generator=g) @ basis[:8] + 0.01 * torch.randn(n, WIDTH, generator=g)
        return rows if extra is None else rows + extra

    return {
        "retain": draw(200), "other": draw(300), "calibrate": draw(300),
        "ada": draw(20, basis[10]), "ivan": draw(20, basis[11]), "test": draw(60, basis[10]),
    }  # fmt: skip


def test_every_solver_separates_what_can_be_separated(clouds: dict[str, Tensor]) -> None:
    retain = Moments.of(clouds["retain"].double())
    for name in gates.SOLVERS:
        gate = gates.fit_gate(name, clouds["ada"], retain)
        values = {group: gates.gate_values(gate, rows).numpy() for group, rows in clouds.items()}
        assert auc(values["test"], values["other"]) > 0.99, name
        assert 0.4 < auc(values["calibrate"], values["other"]) < 0.6, name


def test_requests_are_brought_to_a_common_scale(clouds: dict[str, Tensor]) -> None:
    forget = torch.cat([clouds["ada"], clouds["ivan"]])
    half = torch.arange(len(clouds["retain"])) % 2 == 0
    gate = gates.fit_requests("ridge_bias", forget, ["ada"] * 20 + ["ivan"] * 20, clouds["retain"], half)
    assert gate.rank == 2
    values = gate(clouds["other"].double())  # the scale is right for prompts that no fit has seen
    assert values.median(0).values.abs().max() < 0.15
    assert ((values > 1).double().mean(0) < 0.02).all()
    assert (values.quantile(0.99, dim=0) > 0.4).all()
    own = gate(forget.double())
    assert (own[:20].argmax(1) == 0).all()
    assert (own[20:].argmax(1) == 1).all()
    assert torch.equal(gates.gate_values(gate, forget), own.max(1).values)


@pytest.mark.parametrize("name", ["ridge_bias", "ridge_light"])
def test_requests_at_once_are_requests_one_by_one(clouds: dict[str, Tensor], name: str) -> None:
    """What a GPU does."""
    requests = [clouds["ada"], clouds["ivan"]]
    half, rows = torch.arange(len(clouds["retain"])) % 2 == 0, clouds["retain"].double()
    labels = ["ada"] * 20 + ["ivan"] * 20
    apart = gates.fit_requests(name, torch.cat(requests), labels, clouds["retain"], half)
    parts = [(part, rows[part], Moments.of(rows[~part])) for part in (half, ~half)]
    together = gates._scaled_at_once(name, requests, Moments.of(rows), parts)
    assert torch.allclose(together.weight, apart.weight, rtol=1e-6, atol=1e-9)
    assert torch.allclose(together.bias, apart.bias, rtol=1e-6, atol=1e-9)


def test_solver_names_say_how_many_requests_there_are(clouds: dict[str, Tensor]) -> None:
    questions = [
        replace(question, person=person, modality=modality)
        for question, person, modality in zip(
            general_questions(40, "fit"), ["ada"] * 20 + ["ivan"] * 20, ["vqa", "qa"] * 20, strict=True
        )
    ]
    forget = torch.cat([clouds["ada"], clouds["ivan"]])
    rows = {"forget": questions, "retain": general_questions(len(clouds["retain"]), "fit")}
    ranks = {name: gates.fit_solver(name, forget, clouds["retain"], rows).rank for name in gates.solver_names()}
    assert {rank for name, rank in ranks.items() if ":" not in name} == {1}
    assert {rank for name, rank in ranks.items() if name.startswith("person:")} == {2}
    assert {rank for name, rank in ranks.items() if name.startswith("person+modality:")} == {4}


def test_a_calibrated_gate_opens_for_the_forgotten_and_keeps_its_promise(clouds: dict[str, Tensor]) -> None:
    gate = gates.fit_gate("ridge_bias", clouds["ada"], Moments.of(clouds["retain"].double()))
    read = {name: {HookSite(0): rows} for name, rows in clouds.items()}
    groups = {"people": read["calibrate"]}
    found = gates.openings(gate, [0], groups, {"test": read["test"], "other": read["other"], **groups})
    assert [opening.alpha for opening in found] == [0.01, 0.02, 0.05]
    for opening in found:
        assert opening.rates["test"] > 0.9
        assert opening.rates["people"] <= opening.alpha
        assert opening.rates["other"] <= opening.alpha + 0.04
        assert gates.describe(opening)["threshold"] == opening.calibration.value
    limits = [opening.calibration.value for opening in found]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > limits[2]


def test_a_joined_gate_weighs_blocks_by_what_they_tell(clouds: dict[str, Tensor]) -> None:
    """The second block is a longer and noisier copy: its length alone does not outvote the first one."""
    noise = torch.Generator().manual_seed(4)

    def noisy(rows: Tensor) -> dict[HookSite, Tensor]:
        return {HookSite(0): rows, HookSite(1): 50 * (rows + 0.3 * torch.randn(rows.shape, generator=noise))}

    fit = {"forget": noisy(clouds["ada"]), "retain": noisy(clouds["retain"])}
    ada = [replace(q, person="ada") for q in general_questions(len(clouds["ada"]), "fit")]
    questions = {"forget": ada, "retain": general_questions(len(clouds["retain"]), "fit")}
    gate = gates.fit_joined("person:ridge_middle", fit, questions, (0, 1))
    single = gates.fit_joined("person:ridge_middle", fit, questions, (0,))
    plain = gates.fit_solver("person:ridge_middle", clouds["ada"], clouds["retain"], questions)
    rows = clouds["test"]
    assert torch.allclose(gates.gate_values(single, rows), gates.gate_values(plain, rows), atol=1e-5)
    assert (gates.gate_values(gate, join(noisy(rows), (0, 1))) > 1).double().mean() > 0.9


def test_rows_without_a_person_are_an_error() -> None:
    rows = {name: general_questions(4, "test") for name in ("forget", "retain")}
    with pytest.raises(ValueError, match="about a person"):
        gates.fit_solver("person:ridge", torch.zeros(4, WIDTH), torch.zeros(4, WIDTH), rows)


def test_halves_never_cut_a_person() -> None:
    questions = [replace(q, person=f"p{i % 7}") for i, q in enumerate(general_questions(40, "fit"))]
    half = gates.halves(questions).tolist()
    assert set(half) == {False, True}
    assert len({(question.person, side) for question, side in zip(questions, half, strict=True)}) == 7


def test_eigenvalues_are_those_of_the_second_moment(clouds: dict[str, Tensor]) -> None:
    rows = clouds["retain"].double()
    found = torch.from_numpy(gates.eigenvalues(Moments.of(rows)).copy())
    expected = torch.linalg.svdvals(rows).square() / len(rows)
    assert torch.allclose(found, expected, atol=1e-9)


def test_directions_come_back_from_the_store(tmp_path: Path) -> None:
    sites = (HookSite(0, "input"), HookSite(2), HookSite(10))
    g = torch.Generator().manual_seed(0)
    directions = {
        "multimodal": Direction(sites, torch.randn(3, WIDTH, generator=g)),
        "answer": Direction(sites[1:], torch.randn(2, WIDTH, generator=g, dtype=torch.float64), "answer"),
    }
    store.save_directions(tmp_path / "directions.safetensors", directions)
    found = store.load_directions(tmp_path / "directions.safetensors")
    assert set(found) == set(directions)
    for name, direction in directions.items():
        assert found[name].sites == direction.sites
        assert found[name].position == direction.position
        assert found[name].vectors.dtype == direction.vectors.dtype
        assert torch.equal(found[name].vectors, direction.vectors)


def test_activations_come_back_from_the_store(tmp_path: Path, clouds: dict[str, Tensor]) -> None:
    read = {
        "fit": {"forget": {HookSite(0): clouds["ada"], HookSite(11): clouds["ivan"]}},
        "test": {"retain": {HookSite(0): clouds["other"][::2]}, "forget": {HookSite(0): clouds["test"]}},
    }
    store.save_activations(tmp_path / "activations.safetensors", read)
    found = store.load_activations(tmp_path / "activations.safetensors")
    assert {role: set(by_set) for role, by_set in found.items()} == {"fit": {"forget"}, "test": {"retain", "forget"}}
    for role, by_set in read.items():
        for name, activations in by_set.items():
            assert set(found[role][name]) == set(activations)
            assert all(torch.equal(found[role][name][site], rows) for site, rows in activations.items())


def test_a_missing_store_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="03_direction"):
        store.load_directions(tmp_path / "directions.safetensors")


@pytest.mark.parametrize("count", [1, 6, 8, 9, 28, 32])
def test_single_blocks_are_all_of_a_shallow_model_and_eight_of_a_deep_one(count: int) -> None:
    blocks = gates.looked_at(count)
    assert len(blocks) == min(count, 8) and len(set(blocks)) == len(blocks)
    assert blocks == sorted(blocks) and blocks[0] == 0 and blocks[-1] == count - 1
    gaps = {after - before for before, after in itertools.pairwise(blocks)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_pushes_follow_the_depth_of_the_model() -> None:
    """At six blocks they are those that the tiny study was run with."""
    six = pushes(6)
    assert {push.layers for push in six} == {(0, 1, 2), (0, 1, 2, 3, 4), (1,), (4,), (5,)}
    assert [push for push in six if len(push.layers) == 1] == [
        Push("instruction", (layer,), strength, "prompt") for layer in (1, 4, 5) for strength in (1.0, 4.0)
    ]
    deep = pushes(32)
    assert len(deep) == len(six) == 42
    assert {len(push.layers) for push in deep} == {16, 31, 1}
