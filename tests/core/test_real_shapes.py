"""The configurations that users have, on the meta device: hook sites, sizes and artifacts, without a weight."""

from __future__ import annotations

from pathlib import Path
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


def late_and_early(shape: Shape, model: Any, width: int | None = None) -> Eraser:
    """One request: a gate eight blocks before the end, ten steered blocks from the first on."""
    width = width or shape.hidden
    late, early = HookSite(shape.layers - 8), every_layer(model, last=9)
    return Eraser(
        directions={site: torch.zeros(1, width) for site in early},
        gates={late: Gate(torch.zeros(1, width), torch.zeros(1)).with_threshold(1.0)},
    )


def test_an_eraser_fits_the_model_and_stays_small(real: tuple[Shape, Any]) -> None:
    """One request, one gate, ten steered blocks: under 2 MB, against gigabytes of dense matrices."""
    shape, model = real
    eraser = late_and_early(shape, model)
    eraser.check(model)
    assert eraser.inspect()["bytes"] <= 2 * 2**20
    with pytest.raises(ValueError, match=f"{shape.layers} blocks"):
        eraser.with_(gates={HookSite(shape.layers): eraser.gates[eraser.decision_site]}).check(model)


def test_one_direction_and_one_gate_take_what_the_page_says(real: tuple[Shape, Any]) -> None:
    """Two vectors of float32, an offset in float32 and a threshold in float64."""
    shape, model = real
    eraser = late_and_early(shape, model)
    size = eraser.with_(directions={HookSite(0): eraser.directions[HookSite(0)]}).inspect()["bytes"]
    assert size == 8 * shape.hidden + 12
    page = (Path(__file__).parents[2] / "book" / "cluster.md").read_text()
    (name,) = (name for name in REAL if REAL[name] is shape)
    assert f"\n| {name} | {shape.layers} | {shape.hidden:,} | {size:,} |\n" in page


def test_an_eraser_is_attached_and_leaves_the_model_as_it_was(real: tuple[Shape, Any]) -> None:
    shape, model = real
    decoder = find_decoder(model)
    eraser = late_and_early(shape, model)
    with eraser.attach(model) as handle:
        assert vars(decoder.module)["forward"].steers and "generate" in vars(model)
        vectors = [*handle._directions.values(), *(gate.weight for gate in handle._gates.values())]
        assert {(vector.device.type, vector.shape[1]) for vector in vectors} == {("meta", shape.hidden)}
    assert "forward" not in vars(decoder.module) and "generate" not in vars(model)
    assert not (model._forward_hooks or model._forward_pre_hooks)
    with (
        pytest.raises(ValueError, match=str(shape.hidden)),
        late_and_early(shape, model, shape.hidden // 2).attach(model),
    ):
        pass


def test_a_steered_pass_of_the_whole_model_keeps_its_shapes(real: tuple[Shape, Any]) -> None:
    """On `meta` no number can be asked for. A gate in front of what it steers never asks; one behind it asks once a
    prefill whether any row opened, so that its pass ends there."""
    shape, model = real
    ids = torch.zeros(2, 5, dtype=torch.long, device="meta")
    gate, width = HookSite(1), torch.zeros(1, shape.hidden)
    ahead = Eraser(
        directions={site: width for site in every_layer(model, first=1, last=3)},
        gates={gate: Gate(width, torch.zeros(1)).with_threshold(1.0)}, mode="gated",
    )  # fmt: skip
    with torch.no_grad(), ahead.attach(model) as handle:
        logits = model(input_ids=ids, logits_to_keep=1).logits
    assert tuple(logits.shape) == (2, 1, model.config.get_text_config().vocab_size)
    assert tuple(handle.gate_values[gate].shape) == (2, 1) and handle.opened is not None
    assert tuple(handle.opened.shape) == (2,)
    ran: list[int] = []
    hooks = [
        block.register_forward_pre_hook(lambda *_, n=n: ran.append(n))
        for n, block in enumerate(find_decoder(model).layers)
    ]
    try:
        with (
            torch.no_grad(),
            late_and_early(shape, model).attach(model),
            pytest.raises(RuntimeError, match="meta tensor"),
        ):
            model(input_ids=ids, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == list(range(shape.layers - 7)), "as far as the gate"
