"""Adversarial images for the recall side of the contrast: projected gradient descent inside an image file's
range.

The perturbation lives on pixels in `[0, 1]`, before normalisation and before the image is cut into patches,
so that every adversarial image can be written to an 8-bit file. Model families enter only through the loss
function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]
"""Maps pixels `(B, 3, H, W)` to losses: one per image `(B,)`, or their sum. Lower is better for the
attacker."""


@dataclass(frozen=True, eq=False)
class Attack:
    """The result of `pgd`."""

    images: Tensor
    """Adversarial images `(B, 3, H, W)` in `[0, 1]`, rounded to 8 bits: count success on these."""

    losses: Tensor
    """Loss before each step and after the last one (then of the rounded images), `(steps + 1,)` or `(steps +
    1, B)`."""


def round_to_8bit(images: Tensor) -> Tensor:
    """Pixels in `[0, 1]` as an 8-bit file would return them."""
    return (images.clamp(0, 1) * 255).round() / 255


def _inside(images: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    return torch.minimum(torch.maximum(images, clean - epsilon), clean + epsilon).clamp(0, 1)


def _quantise(images: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Round to 8 bits without leaving the ball: bounds move inwards to the grid, with room for float
    rounding."""
    slack = 1e-4
    low = ((clean - epsilon).clamp(0, 1) * 255 - slack).ceil()
    high = ((clean + epsilon).clamp(0, 1) * 255 + slack).floor()
    grid = (images * 255).round()
    # Where the ball holds no 8-bit value the nearest one to the clean pixel is taken.
    inside = torch.where(low <= high, torch.minimum(torch.maximum(grid, low), high), (clean * 255).round())
    return inside / 255


def pgd(
    loss_fn: Loss,
    images: Tensor,
    *,
    epsilon: float,
    step: float,
    steps: int,
    generator: torch.Generator | None = None,
    random_start: bool = True,
) -> Attack:
    """Minimise a loss over an L-infinity ball around images by projected gradient descent with signed steps.

    `images`: clean pixels `(B, 3, H, W)` in `[0, 1]`. `epsilon`: radius, `step`: step size, in units of the
    pixel range (8/255 is usual). `generator`: makes the random start reproducible; required for one. Model
    parameters get no gradients as long as they do not require them; their `.grad` is never touched.

    Source: Madry et al. 2018. Raises `ValueError` for pixels outside `[0, 1]` and for non-positive sizes.
    """
    clean = _checked(images, epsilon)
    if step <= 0 or steps < 1:
        raise ValueError(f"step={step} and steps={steps} must be positive.")
    if random_start and generator is None:
        raise ValueError("A random start needs generator=torch.Generator().manual_seed(...), or random_start=False.")
    current = _noise(clean, epsilon, generator) if random_start and generator is not None else clean
    losses = []
    for _ in range(steps):
        current = current.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = loss_fn(current)
            (gradient,) = torch.autograd.grad(loss.sum(), current)
        losses.append(loss.detach())
        current = _inside(current.detach() - step * gradient.sign(), clean, epsilon)
    final = _quantise(current.detach(), clean, epsilon)
    with torch.no_grad():
        losses.append(loss_fn(final).detach())
    return Attack(final, torch.stack(losses))


def random_noise(images: Tensor, *, epsilon: float, generator: torch.Generator) -> Tensor:
    """The control of an attack: uniform noise in the same L-infinity ball, rounded to 8 bits."""
    clean = _checked(images, epsilon)
    return _quantise(_noise(clean, epsilon, generator), clean, epsilon)


def _noise(clean: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(clean.shape, generator=generator, dtype=clean.dtype, device=generator.device)
    return _inside(clean + epsilon * (2 * uniform.to(clean.device) - 1), clean, epsilon)


def _checked(images: Tensor, epsilon: float) -> Tensor:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"Expected floating-point pixels (B, 3, H, W), got {images.dtype} {tuple(images.shape)}.")
    if float(images.min()) < 0 or float(images.max()) > 1:
        raise ValueError("Pixels must lie in [0, 1]; perturb before normalisation, not after it.")
    if not 0 < epsilon <= 1:
        raise ValueError(f"epsilon is {epsilon}; it must lie in (0, 1], for example 8/255.")
    return images.detach()
