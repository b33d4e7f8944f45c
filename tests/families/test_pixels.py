"""The differentiable pixel path is the processor's own, and adversarial images survive being written to a file."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eraser_lib.adversarial import pgd, round_to_8bit
from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded


def to_tensor(images: list[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255


def through_png(pixels: Tensor) -> Image.Image:
    """What a reader gets back from a PNG file of pixels `(3, H, W)` in [0, 1]."""
    file = io.BytesIO()
    Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.fixture
def images(prompts: list[Prompt]) -> list[Image.Image]:
    return [prompt.image for prompt in prompts if prompt.image is not None]


def test_pixel_inputs_are_those_of_the_processor(
    loaded: Loaded, prompts: list[Prompt], images: list[Image.Image]
) -> None:
    real = loaded.encode(prompts)
    ours = loaded.pixel_inputs(to_tensor(images))
    assert set(ours) == {name for name in real if name in ("pixel_values", "image_grid_thw")}
    assert ours["pixel_values"].shape == real["pixel_values"].shape
    assert torch.allclose(ours["pixel_values"], real["pixel_values"], atol=1e-5)
    if "image_grid_thw" in ours:
        assert torch.equal(ours["image_grid_thw"], real["image_grid_thw"])


def test_every_pixel_gets_a_gradient(loaded: Loaded, images: list[Image.Image]) -> None:
    pixels = to_tensor(images).requires_grad_(True)
    weights = torch.randn(loaded.pixel_inputs(pixels)["pixel_values"].shape, generator=torch.Generator().manual_seed(0))
    (loaded.pixel_inputs(pixels)["pixel_values"] * weights).sum().backward()
    assert pixels.grad is not None
    assert bool((pixels.grad != 0).all())


def test_temporal_copies_are_tied(qwen: Loaded, images: list[Image.Image]) -> None:
    pixels = to_tensor(images).requires_grad_(True)
    values = qwen.pixel_inputs(pixels)["pixel_values"]  # (B * 64, 3 * 2 * 7 * 7)
    frames = values.reshape(len(values), 3, 2, 7, 7)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    # Both copies send their gradient to the same pixel: twice the inverse standard deviation of its channel.
    values.sum().backward()
    assert pixels.grad is not None
    std = torch.tensor(qwen.processor.image_processor.image_std)
    assert torch.allclose(pixels.grad, (2 / std)[:, None, None].expand_as(pixels.grad))


def test_sizes_that_do_not_divide_are_errors(qwen: Loaded) -> None:
    with pytest.raises(ValueError, match="50 x 56 pixels do not divide into patches of 7 merged 2 x 2"):
        qwen.pixel_inputs(torch.zeros(1, 3, 50, 56))


def test_an_8_bit_image_survives_its_file(loaded: Loaded) -> None:
    noise = round_to_8bit(torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0)))
    reread = through_png(noise[0])
    assert torch.equal(to_tensor([reread]), noise)
    encoded = loaded.encode([Prompt("What is this?", reread)])
    assert torch.allclose(encoded["pixel_values"], loaded.pixel_inputs(noise)["pixel_values"], atol=1e-5)


def test_an_attack_counts_on_what_the_file_holds(loaded: Loaded, prompts: list[Prompt]) -> None:
    """PGD through the pixel path lowers the loss of the target, and the PNG file has exactly that loss."""
    prompt, target = prompts[0], "Lisbon"
    assert prompt.image is not None
    clean = to_tensor([prompt.image])
    inputs = loaded.encode([prompt], [target])
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)

    def loss(pixels: Tensor) -> Tensor:
        found: Tensor = loaded.model(**{**inputs, **loaded.pixel_inputs(pixels)}).loss
        return found

    attack = pgd(loss, clean, epsilon=16 / 255, step=6 / 255, steps=4, random_start=False)
    assert float(attack.losses[-1]) < float(attack.losses[0])
    assert float((attack.images - clean).abs().max()) <= 16 / 255 + 1e-6
    reread = Prompt(prompt.text, through_png(attack.images[0]))
    with torch.no_grad():
        from_file = loaded.model(**loaded.encode([reread], [target])).loss
    assert float(from_file) == pytest.approx(float(attack.losses[-1]), abs=1e-4)


def test_pictures_of_any_size_are_brought_to_one_that_the_model_reads(
    loaded: Loaded, images: list[Image.Image]
) -> None:
    assert [np.asarray(a).tolist() for a in loaded.one_size(images)] == [np.asarray(b).tolist() for b in images]
    mixed = [Image.new("RGB", size, (200, 10, 10)) for size in ((100, 130), (300, 200), (37, 37))]
    for given in (mixed, mixed[:1], [Image.new("L", (112, 112))]):
        shown = loaded.one_size(given)
        assert {image.mode for image in shown} == {"RGB"} and len({image.size for image in shown}) == 1
        encoded = loaded.encode([Prompt("What is this?", image) for image in shown])
        ours = loaded.pixel_inputs(to_tensor(shown))["pixel_values"]
        assert torch.allclose(encoded["pixel_values"], ours, atol=1e-5), "the processor leaves them as they are"
