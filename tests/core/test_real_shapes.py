"""The configurations that users have, on the meta device: hook sites, sizes and artifacts, without a weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.shapes import REAL, Shape, real_model
from eraser_lib import Eraser, HookSite, every_layer, find_decoder
from eraser_lib.gate import Gate
from eraser_lib.hooks import capture, edit


@pytest.fixture(scope="module", params=list(REAL))
def real(request: pytest.FixtureRequest) -> tuple[Shape, Any]:
    shape = REAL[request.param]
    return shape, real_model(shape, device="meta")


def test_it_is_the_checkpoint_that_it_says(real: tuple[Shape, Any]) -> None:
    shape, model = real
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    assert count == pytest.approx(shape.billions, rel=5e-3)


def test_the_language_decoder_is_found_and_not_the_vision_tower(real: tuple[Shape, Any]) -> None:
    shape, model = real
    decoder = find_decoder(model)
    assert decoder.module is model.model.language_model
    assert (len(decoder.layers), decoder.hidden_size) == (shape.layers, shape.hidden)
    assert decoder.device(HookSite(shape.layers - 1)).type == "meta"
    with pytest.raises(ValueError, match=f"the decoder has {shape.layers} blocks"):
        decoder.block(HookSite(shape.layers))


def test_every_site_is_read_and_edited_in_a_forward_pass(real: tuple[Shape, Any]) -> None:
    shape, model = real
    decoder = find_decoder(model)
    sites = (*every_layer(model), HookSite(0, "input"))
    stream = torch.empty(2, 5, shape.hidden, dtype=torch.bfloat16, device="meta")
    touched = []

    def push(site: HookSite) -> Any:
        def apply(values: torch.Tensor) -> torch.Tensor:
            touched.append(site)
            return values + torch.zeros(shape.hidden, dtype=values.dtype, device=values.device)

        return apply

    with (
        torch.no_grad(),
        edit(model, {site: push(site) for site in every_layer(model)}),
        capture(model, sites) as found,
    ):
        decoder.module(inputs_embeds=stream)
    assert touched == list(every_layer(model))
    assert set(found) == set(sites)
    assert {tuple(values.shape) for values in found.values()} == {(2, shape.hidden)}
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in decoder.layers)


def test_an_eraser_fits_the_model_and_stays_small(real: tuple[Shape, Any]) -> None:
    """One request, one gate, ten steered blocks: under 2 MB, against gigabytes of dense matrices."""
    shape, model = real
    late, early = HookSite(shape.layers - 8), every_layer(model, last=9)
    eraser = Eraser(
        directions={site: torch.zeros(1, shape.hidden) for site in early},
        gates={late: Gate(torch.zeros(1, shape.hidden), torch.zeros(1)).with_threshold(1.0)},
    )
    eraser.check(model)
    assert eraser.inspect()["bytes"] <= 2 * 2**20
    with pytest.raises(ValueError, match=f"{shape.layers} blocks"):
        eraser.with_(gates={HookSite(shape.layers): eraser.gates[late]}).check(model)
