"""Hook sites and the language decoder (invariant h)."""

from __future__ import annotations

import pytest
import torch

from eraser_lib import HookSite, every_layer, find_decoder
from eraser_lib.sites import in_order, last_real_token


def test_site_text_round_trip_and_order() -> None:
    sites = [HookSite(1, "input"), HookSite(0, "output"), HookSite(0, "input"), HookSite(1, "output")]
    assert [str(s) for s in in_order(sites)] == ["0.input", "0.output", "1.input", "1.output"]
    assert all(HookSite.parse(str(s)) == s for s in sites)


@pytest.mark.parametrize("text", ["3", "3.middle", "-1.input", "output.3"])
def test_bad_site_text(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        HookSite.parse(text)


def test_bad_site() -> None:
    with pytest.raises(ValueError, match="counted from 0"):
        HookSite(-1)
    with pytest.raises(ValueError, match="'input' or 'output'"):
        HookSite(0, "middle")  # type: ignore[arg-type]


def test_decoder_is_the_language_model_although_the_vision_tower_has_more_blocks(tiny32) -> None:
    decoder = find_decoder(tiny32.model)
    assert decoder.module is tiny32.model.model.language_model
    assert len(decoder.layers) == tiny32.model.config.get_text_config().num_hidden_layers
    vision = tiny32.model.model.vision_tower if tiny32.family == "llava" else tiny32.model.model.visual
    assert sum(1 for m in vision.modules() if type(m).__name__.endswith(("Block", "EncoderLayer"))) > len(
        decoder.layers
    )
    assert decoder.hidden_size == 32


def test_disagreement_with_the_configuration_is_an_error(tiny32) -> None:
    text = tiny32.model.config.get_text_config()
    text.num_hidden_layers += 1
    try:
        with pytest.raises(ValueError, match="4 blocks, but the text configuration says 5"):
            find_decoder(tiny32.model)
    finally:
        text.num_hidden_layers -= 1


def test_other_modules_are_refused() -> None:
    with pytest.raises(TypeError, match="transformers model"):
        find_decoder(torch.nn.Linear(2, 2))


def test_every_layer(tiny32) -> None:
    assert every_layer(tiny32.model, first=1) == (HookSite(1), HookSite(2), HookSite(3))
    with pytest.raises(ValueError, match="do not fit"):
        every_layer(tiny32.model, last=9)
    with pytest.raises(ValueError, match="0 to 3"):
        find_decoder(tiny32.model).block(HookSite(4))


def test_last_real_token() -> None:
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    assert last_real_token(mask).tolist() == [3, 1, 2, 3]
