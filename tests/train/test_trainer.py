"""The training loop: an interrupted training ends in exactly the weights of an uninterrupted one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eraser_lib.families import Loaded
from eraser_lib.train.curriculum import Sampler
from eraser_lib.train.data import Row
from eraser_lib.train.trainer import json_reporter, language_parameters, train_language
from eraser_lib.train.vision import embed_all, embed_pixels, embedder, to_pixels, visual_parameters

STEPS = 4


class Interrupted(RuntimeError):
    pass


def train(school: Any, loaded: Loaded, sampler: Sampler, state: Path) -> list[dict[str, float]]:
    reports: list[dict[str, float]] = []
    train_language(
        loaded, sampler, school.table.bfloat16(), steps=STEPS, rows=2, length=96, lr=5e-3, seed=0, state=state,
        report=reports.append, warmup=2, save_every_seconds=0.0,
    )  # fmt: skip
    return reports


def weights(loaded: Loaded) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in loaded.model.state_dict().items()}


def test_resumed_training_is_uninterrupted_training(school: Any, tmp_path: Path) -> None:
    straight = school.fresh()
    train(school, straight, school.teacher.people, tmp_path / "straight")

    stopped, drawn = school.fresh(), 0

    def stops(rng: random.Random) -> Row:
        nonlocal drawn
        drawn += 1
        if drawn > 4:  # two rows a step: in the third step
            raise Interrupted
        row: Row = school.teacher.people(rng)
        return row

    with pytest.raises(Interrupted):
        train(school, stopped, stops, tmp_path / "state")
    resumed = school.fresh()
    reports = train(school, resumed, school.teacher.people, tmp_path / "state")
    assert reports[0] == {"step": 2, "resumed": 1.0}

    start, expected, found = weights(school.loaded), weights(straight), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert any(not torch.equal(weights(stopped)[name], found[name]) for name in found)
    changed = {name for name in start if not torch.equal(start[name], found[name])}
    assert any("embed_tokens" in name for name in changed)
    assert not any("vision" in name or "visual" in name or "projector" in name for name in changed)
    assert not resumed.model.training


def test_training_lowers_the_loss(school: Any, tmp_path: Path) -> None:
    loaded = school.fresh()
    row = school.teacher.letters(random.Random(0))
    reports: list[dict[str, float]] = []

    def run(steps: int) -> float:
        return train_language(
            loaded, lambda rng: row, school.table.bfloat16(), steps=steps, rows=1, length=96, lr=2e-2, seed=0,
            state=tmp_path / "state", report=reports.append, warmup=1, cooldown=0.1,
        )  # fmt: skip

    first, _, last = run(1), run(12), run(1)
    assert last < first - 1.0
    assert {"step", "loss", "seconds_per_step", "seconds_left"} == set(reports[0])


def test_language_and_vision_share_no_parameter(school: Any) -> None:
    matrices, rest = language_parameters(school.loaded)
    visual = visual_parameters(school.loaded)
    parts = [{id(p) for p in part} for part in (matrices, rest, visual)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set.union(*parts) == {id(p) for p in school.loaded.model.parameters()}
    assert all(p.ndim == 2 for p in matrices)


def test_pictures_are_embedded_in_order(school: Any) -> None:
    gallery, count = school.teacher.gallery, 5
    table = embed_all(school.loaded, gallery.render, count, batch=2)
    assert table.dtype == torch.bfloat16
    assert table.shape == (count, 16, school.loaded.model.config.get_text_config().hidden_size)
    assert torch.allclose(table.float(), school.table[:count], rtol=0.02, atol=0.02 * float(school.table.abs().max()))
    assert not torch.allclose(school.table[0], school.table[2])


def test_windows_joined_are_windows_one_by_one(school: Any) -> None:
    loaded, gallery = school.fresh(), school.teacher.gallery
    pixels = to_pixels([gallery.render(index) for index in range(3)]).requires_grad_()
    attentions = [module for module in loaded.model.modules() if type(module).__name__ == "Qwen2_5_VLVisionAttention"]
    with embedder(loaded, joined=True) as embed:
        joined = embed(pixels)
        changed = [module for module in attentions if "forward" in vars(module)]
    assert changed == attentions
    assert not any("forward" in vars(module) for module in attentions)
    apart = embed_pixels(loaded, pixels)
    assert torch.allclose(joined, apart, rtol=1e-4, atol=1e-5)
    upstream = torch.randn_like(apart)
    one, other = (torch.autograd.grad((made * upstream).sum(), pixels)[0] for made in (joined, apart))
    assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_embeddings_are_what_the_model_itself_makes_of_a_picture(school: Any) -> None:
    gallery = school.teacher.gallery
    pixels = to_pixels([gallery.render(0), gallery.render(3)])
    assert pixels.shape == (2, 3, 56, 56)
    assert (pixels[0, :, 0, 0] * 255).round().tolist() == list(gallery.render(0).getpixel((0, 0)))
    with torch.no_grad():
        assert torch.allclose(embed_pixels(school.loaded, pixels), school.table[[0, 3]], atol=1e-5)


def test_the_reporter_writes_one_line_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json_reporter(tmp_path / "logs" / "base.jsonl", "letters-0")
    report({"step": 0, "loss": 1.234567})
    report({"step": 50, "loss": 0.5})
    lines = [json.loads(line) for line in (tmp_path / "logs" / "base.jsonl").read_text().splitlines()]
    assert lines == [
        {"stage": "letters-0", "step": 0, "loss": 1.23457},
        {"stage": "letters-0", "step": 50, "loss": 0.5},
    ]
    assert capsys.readouterr().out.count("letters-0") == 2
