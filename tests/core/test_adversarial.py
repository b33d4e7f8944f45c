"""PGD inside an image file's range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eraser_lib import pgd, random_noise, round_to_8bit


def loss(x: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(-1, 1, x[0].numel()).view(x.shape[1:])
    return (x * weights).flatten(1).sum(1)


def clean(seed: int = 0) -> torch.Tensor:
    return round_to_8bit(torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.integers(1, 32))
def test_stays_in_the_ball_the_range_and_the_file(seed: int, levels: int) -> None:
    images, epsilon = clean(seed), levels / 255
    generator = torch.Generator().manual_seed(seed)
    attack = pgd(loss, images, epsilon=epsilon, step=epsilon / 3, steps=5, generator=generator)
    noise = random_noise(images, epsilon=epsilon, generator=generator)
    for result in (attack.images, noise):
        assert float((result - images).abs().max()) <= epsilon + 1e-6
        assert float(result.min()) >= 0
        assert float(result.max()) <= 1
        assert torch.equal(result, (result * 255).round().to(torch.uint8).to(torch.float32) / 255)


def test_finds_the_corner_of_the_ball_on_a_linear_loss() -> None:
    images, epsilon = clean(), 8 / 255
    attack = pgd(loss, images, epsilon=epsilon, step=epsilon, steps=4, random_start=False)
    sign = torch.linspace(-1, 1, images[0].numel()).view(images.shape[1:]).sign()
    torch.testing.assert_close(attack.images, (images - epsilon * sign).clamp(0, 1))
    assert attack.losses.shape == (5, 2)
    assert bool((attack.losses[-1] < attack.losses[0]).all())


def test_beats_noise_and_repeats_with_the_same_seed() -> None:
    def run() -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        return pgd(loss, clean(), epsilon=4 / 255, step=1 / 255, steps=8, generator=generator).images

    noise = random_noise(clean(), epsilon=4 / 255, generator=torch.Generator().manual_seed(3))
    assert torch.equal(run(), run())
    assert bool((loss(run()) < loss(noise)).all())


def test_leaves_parameters_alone() -> None:
    layer = torch.nn.Linear(108, 1)
    pgd(lambda x: layer(x.flatten(1)).sum(), clean(), epsilon=0.1, step=0.1, steps=1, random_start=False)
    assert layer.weight.grad is None


def test_errors() -> None:
    with pytest.raises(ValueError, match="before normalisation"):
        pgd(loss, clean() * 3 - 1, epsilon=0.1, step=0.1, steps=1, random_start=False)
    with pytest.raises(ValueError, match="generator"):
        pgd(loss, clean(), epsilon=0.1, step=0.1, steps=1)
    with pytest.raises(ValueError, match="positive"):
        pgd(loss, clean(), epsilon=0.1, step=0.1, steps=0, random_start=False)
    with pytest.raises(ValueError, match="epsilon"):
        pgd(loss, clean(), epsilon=0, step=0.1, steps=1, random_start=False)
    with pytest.raises(ValueError, match="floating-point"):
        random_noise(clean()[0], epsilon=0.1, generator=torch.Generator())
