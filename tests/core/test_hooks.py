"""Capture and edit: right values, right positions, nothing left behind."""

from __future__ import annotations

import pytest
import torch

from eraser_lib import HookSite, capture, edit, find_decoder, run_capture
from eraser_lib.hooks import real_tokens

SITES = [HookSite(layer, where) for layer in range(4) for where in ("input", "output")]


def hooks_of(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_capture_equals_hidden_states(tiny, side) -> None:
    inputs = tiny.inputs(side=side)
    with torch.no_grad(), capture(tiny.model, SITES, "all") as found:
        states = tiny.model(**inputs, output_hidden_states=True).hidden_states
    for layer in range(4):
        assert torch.equal(found[HookSite(layer, "input")], states[layer])
        if layer < 3:  # the last hidden state comes after the final norm
            assert torch.equal(found[HookSite(layer, "output")], states[layer + 1])
    last = inputs["attention_mask"].cumsum(1).argmax(1)
    picked = run_capture(tiny.model, inputs, SITES)
    for site in SITES:
        assert torch.equal(picked[site], found[site][torch.arange(4), last])


def test_capture_at_given_positions(tiny32) -> None:
    inputs = tiny32.inputs()
    everything = run_capture(tiny32.model, inputs, [SITES[3]], "all")[SITES[3]]
    index = torch.tensor([[9, 8], [8, 7], [7, 6], [6, 5]])
    found = run_capture(tiny32.model, inputs, [SITES[3]], index)[SITES[3]]
    assert torch.equal(found, everything[torch.arange(4)[:, None], index])
    found = run_capture(tiny32.model, inputs, [SITES[3]], lambda mask: mask.int().argmax(1))[SITES[3]]
    assert torch.equal(found, everything[torch.arange(4), inputs["attention_mask"].argmax(1)])


def test_stop_ends_the_forward_after_the_last_needed_block(tiny32) -> None:
    ran: list[int] = []
    blocks = find_decoder(tiny32.model).layers
    handles = [b.register_forward_pre_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(blocks)]
    try:
        run_capture(tiny32.model, tiny32.inputs(), [HookSite(0), HookSite(1)])
        assert ran == [0, 1]
    finally:
        for handle in handles:
            handle.remove()


def test_edit_changes_the_site_and_nothing_below(tiny, side) -> None:
    inputs, site = tiny.inputs(side=side), HookSite(2, "output")
    before = run_capture(tiny.model, inputs, SITES, "all")
    with edit(tiny.model, {site: lambda h: h + 1}):
        after = run_capture(tiny.model, inputs, SITES, "all")
    for other in SITES:
        if other.depth < site.depth:
            assert torch.equal(before[other], after[other])
    assert torch.equal(after[site], before[site] + 1)
    assert torch.equal(after[HookSite(3, "input")], before[site] + 1)


def test_edit_at_an_input(tiny32) -> None:
    inputs, site = tiny32.inputs(), HookSite(1, "input")
    before = run_capture(tiny32.model, inputs, SITES, "all")
    with edit(tiny32.model, {site: lambda h: 2 * h}):
        after = run_capture(tiny32.model, inputs, SITES, "all")
    assert torch.equal(before[HookSite(0)], after[HookSite(0)])
    assert torch.equal(after[site], 2 * before[site])


def test_everything_is_removed_on_exceptions(tiny32) -> None:
    count = hooks_of(tiny32.model)

    def explode(_):
        raise RuntimeError("in the middle of a forward pass")

    with (
        pytest.raises(RuntimeError, match="in the middle"),
        edit(tiny32.model, {HookSite(1): explode}),
        capture(tiny32.model, SITES),
    ):
        tiny32.model(**tiny32.inputs())
    assert hooks_of(tiny32.model) == count
    with (
        pytest.raises(ValueError, match="blocks"),
        edit(tiny32.model, {HookSite(0): explode, HookSite(9): explode}),
    ):
        pass
    assert hooks_of(tiny32.model) == count


def test_capture_needs_sites(tiny32) -> None:
    with pytest.raises(ValueError, match="no hook sites"), capture(tiny32.model, []):
        pass


def test_images_without_token_types_are_refused() -> None:
    from eraser_lib.hooks import check_inputs

    pixels = {"pixel_values": torch.zeros(1), "image_grid_thw": torch.ones(1, 3)}
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        check_inputs(pixels)
    check_inputs({**pixels, "mm_token_type_ids": torch.zeros(1, 1)})
    check_inputs({"pixel_values": torch.zeros(1)})


def test_a_reader_sees_an_edit_that_came_after_it(tiny32) -> None:
    sites = [HookSite(1, "input"), HookSite(2)]
    plain = run_capture(tiny32.model, tiny32.inputs(), sites, "all")
    for site in sites:
        with (
            torch.no_grad(),
            capture(tiny32.model, [site], "all") as found,
            edit(tiny32.model, {site: lambda stream: stream + 1}),
        ):
            tiny32.model(**tiny32.inputs())
        assert torch.equal(found[site], plain[site] + 1)


def test_a_pass_that_breaks_off_leaves_nothing_of_the_one_before(tiny32) -> None:
    early, late = HookSite(0), HookSite(3)

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in between")

    with torch.no_grad(), capture(tiny32.model, [early, late]) as found:
        tiny32.model(**tiny32.inputs())
        assert set(found) == {early, late}
        with edit(tiny32.model, {HookSite(2): fail}), pytest.raises(RuntimeError, match="in between"):
            tiny32.model(**tiny32.inputs())
        assert set(found) == {early}


def test_a_mask_over_cached_tokens_ends_with_the_new_ones() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    assert real_tokens(mask, 2, 2, mask.device).tolist() == [[True, False], [True, True]]
