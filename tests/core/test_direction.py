"""The contrast and its sign."""

from __future__ import annotations

import pytest
import torch

from eraser_lib import HookSite, Moments, contrast

SITES = (HookSite(0), HookSite(2))


def activations(seed: int, shift: float, count: int) -> dict[HookSite, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {site: torch.randn(count, 6, generator=generator) + shift for site in SITES}


def test_positive_strength_moves_recall_towards_erasure() -> None:
    refused, answered = activations(0, 1.0, 30), activations(1, -1.0, 20)
    direction = contrast(refused, answered)
    for site in SITES:
        moved = answered[site].double().mean(0) + direction[site]
        torch.testing.assert_close(moved, refused[site].double().mean(0))
    torch.testing.assert_close(contrast(answered, refused).vectors, -direction.vectors)


def test_moments_and_rows_give_the_same_direction() -> None:
    refused, answered = activations(0, 1.0, 30), activations(1, -1.0, 20)
    streamed = contrast({s: Moments.of(x) for s, x in refused.items()}, answered)
    torch.testing.assert_close(streamed.vectors, contrast(refused, answered).vectors)


def test_unit_and_cosine_and_part() -> None:
    direction = contrast(activations(0, 1.0, 30), activations(1, -1.0, 20))
    unit = direction.unit()
    torch.testing.assert_close(unit.norms, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(unit.cosine(direction), torch.ones(2, dtype=torch.float64))
    assert direction.at(SITES[1]).sites == (SITES[1],)
    torch.testing.assert_close(
        contrast(activations(0, 1.0, 30), activations(1, -1.0, 20), unit=True).vectors, unit.vectors
    )


def test_errors() -> None:
    refused = activations(0, 1.0, 3)
    with pytest.raises(ValueError, match="same ones"):
        contrast(refused, {SITES[0]: refused[SITES[0]]})
    with pytest.raises(ValueError, match="length zero"):
        contrast(refused, refused, unit=True)
    with pytest.raises(KeyError, match="No direction"):
        _ = contrast(refused, activations(1, 0.0, 3))[HookSite(1)]
    with pytest.raises(ValueError, match="N >= 1"):
        contrast(refused, {site: torch.zeros(0, 6) for site in SITES})
