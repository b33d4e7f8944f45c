"""An attached eraser: every row of the table of equalities, and every invariant, on both families."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from eraser_lib import Eraser, Gate, HookSite, capture, edit, find_decoder, run_capture
from eraser_lib.steering import _only, patch

DECISION = HookSite(2)
STEERED = (HookSite(0), HookSite(1, "input"), HookSite(3))
SCOPES = ("last", "prompt", "text", "image", "prompt+generation")
EVERYTHING, NOTHING = float("-inf"), float("inf")
EVER_OPEN = torch.tensor([EVERYTHING])
FORCED = (30, 41, 22, 53)


def vector(seed: int, rank: int = 1) -> torch.Tensor:
    return torch.randn(rank, 32, generator=torch.Generator().manual_seed(seed))


def eraser(mode: str = "two_pass", threshold: float | None = EVERYTHING, *, rank: int = 1, **fields: Any) -> Eraser:
    directions = {site: vector(i, rank) for i, site in enumerate(STEERED)}
    sites = {"two_pass": (DECISION,), "constant": ()}.get(mode, STEERED)
    gates = {site: Gate(vector(10 + i, rank) / 6, torch.zeros(rank)) for i, site in enumerate(sites)}
    if mode == "two_pass" or (mode == "gated" and threshold is not None):
        assert threshold is not None
        gates = {site: gate.with_threshold(threshold) for site, gate in gates.items()}
    return Eraser(directions=directions, gates=gates, mode=mode, **fields)  # type: ignore[arg-type]


def splitting(tiny, inputs, **fields: Any) -> tuple[Eraser, torch.Tensor]:
    """A two-pass eraser whose threshold opens some rows and not others, and the rows that it opens."""
    with eraser(threshold=NOTHING, **fields).attach(tiny.model) as handle:
        tiny.logits(inputs)
    values = handle.gate_values[DECISION][:, 0]
    middle = values.sort().values[1:3].double().mean().item()
    return eraser(threshold=middle, **fields), values > middle


def state_of(model: Any) -> tuple[Any, ...]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()]
    return hooks, "generate" in vars(model)


# --- (a) strength 0: the arithmetic runs, and nothing changes -----------------------------------------------


@pytest.mark.parametrize("mode", ["two_pass", "gated", "constant", "published"])
def test_strength_zero_is_bit_identical(tiny, side, mode) -> None:
    inputs = tiny.inputs(side=side)
    plain = tiny.logits(inputs)
    for scope in SCOPES:
        with eraser(mode, strength=0.0, scope=scope).attach(tiny.model):
            assert torch.equal(tiny.logits(inputs), plain), scope


def test_strength_zero_is_bit_identical_in_generation(tiny) -> None:
    inputs = tiny.inputs()
    plain = tiny.generate(inputs)
    for mode in ("two_pass", "gated", "constant", "published"):
        with eraser(mode, strength=0.0, scope="prompt+generation").attach(tiny.model):
            assert torch.equal(tiny.generate(inputs), plain), mode


# --- closed rows, open rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_closed_rows_are_bit_identical_and_open_rows_move(tiny, scope) -> None:
    inputs = tiny.inputs()
    plain = tiny.generate(inputs, tokens=FORCED)
    some, is_open = splitting(tiny, inputs, scope=scope)
    with some.attach(tiny.model) as handle:
        steered = tiny.generate(inputs, tokens=FORCED)
    assert handle.opened is not None
    assert torch.equal(handle.opened, is_open)
    assert 0 < int(is_open.sum()) < 4
    assert torch.equal(steered[~is_open], plain[~is_open])
    has_image = torch.tensor([True, False, True, False])
    moved = is_open & has_image if scope == "image" else is_open
    assert bool((steered[moved] != plain[moved]).flatten(1).any(1).all())


def test_closed_prompts_run_one_pass_and_open_ones_stop_the_first_at_the_decision(tiny32) -> None:
    ran: list[int] = []
    blocks = find_decoder(tiny32.model).layers
    handles = [b.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(blocks)]
    tower = tiny32.model.model.vision_tower if tiny32.family == "llava" else tiny32.model.model.visual
    handles.append(tower.register_forward_hook(lambda *_: ran.append(-1)))
    try:
        with eraser(threshold=NOTHING).attach(tiny32.model):
            tiny32.logits(tiny32.inputs())
        assert ran == [-1, 0, 1, 2, 3]
        ran.clear()
        with eraser(threshold=EVERYTHING).attach(tiny32.model):
            tiny32.logits(tiny32.inputs())
        assert ran == [-1, 0, 1, 2, 0, 1, 2, 3]  # images are encoded once
    finally:
        for handle in handles:
            handle.remove()


def test_two_pass_with_every_gate_open_equals_constant_steering(tiny, side) -> None:
    inputs = tiny.inputs(side=side)
    with eraser("constant").attach(tiny.model):
        constant = tiny.logits(inputs)
    with eraser("two_pass").attach(tiny.model):
        assert torch.equal(tiny.logits(inputs), constant)


def check_that_only_opened_rows_moved(found: torch.Tensor, plain: torch.Tensor, inputs, opened: torch.Tensor) -> None:
    """Logits `(B, T, V)` with and without an eraser: closed rows are equal to the last bit, opened ones are not."""
    real = inputs["attention_mask"].bool()
    for row, is_open in enumerate(opened):
        assert torch.equal(found[row][real[row]], plain[row][real[row]]) != bool(is_open)


def test_gates_at_several_sites_decide_as_one_gate_on_their_joined_streams(tiny, side, tmp_path) -> None:
    inputs = tiny.inputs(side=side)
    sites = [HookSite(1), DECISION, HookSite(3)]
    streams = run_capture(tiny.model, inputs, sites)
    joined = torch.cat([streams[site].double() for site in sites], dim=1)
    gate = Gate(torch.cat([vector(20 + i, 2) for i in range(3)], dim=1) / 6, torch.tensor([0.3, -0.2]))
    expected = gate(joined)
    middle = expected.max(dim=1).values.sort().values[1:3].mean().item()
    parts = gate.with_threshold(middle).split(3)
    one = Eraser(
        directions={site: vector(i, 2) for i, site in enumerate(STEERED)}, gates=dict(zip(sites, parts, strict=True))
    )
    assert one.decision_site == HookSite(3)
    with one.attach(tiny.model) as handle:
        found = tiny.logits(inputs)
    values = handle.gate_values[HookSite(3)]
    torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(handle.opened, (values > middle).any(dim=1))
    assert 0 < int(handle.opened.sum()) < len(handle.opened)
    check_that_only_opened_rows_moved(found, tiny.logits(inputs), inputs, handle.opened)
    one.save_pretrained(tmp_path, model=tiny.model)
    with Eraser.from_pretrained(tmp_path, model=tiny.model).attach(tiny.model):
        assert torch.equal(tiny.logits(inputs), found)


# --- (e) the patch itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_patched_positions_are_old_plus_patch_and_the_rest_is_untouched(tiny, side, scope) -> None:
    inputs = tiny.inputs(side=side)
    site = HookSite(1)
    sites = [HookSite(layer, where) for layer in range(4) for where in ("input", "output")]
    one = Eraser(
        directions={site: vector(0, 2)},
        gates={DECISION: Gate(vector(1, 2) / 6, torch.zeros(2)).with_threshold(EVERYTHING)},
        amount="gate", strength=0.7, scope=scope,
    )  # fmt: skip
    before = run_capture(tiny.model, inputs, sites, "all")
    with one.attach(tiny.model) as handle:
        after = run_capture(tiny.model, inputs, sites, "all")
    real = inputs["attention_mask"].bool()
    image = inputs["input_ids"] == 5
    last = torch.zeros_like(real)
    last[torch.arange(4), inputs["attention_mask"].cumsum(1).argmax(1)] = True
    where = {"last": last, "text": real & ~image, "image": real & image}.get(scope, real)[..., None]
    delta = patch(handle.gate_values[DECISION], one.directions[site], 0.7, tiny.dtype)[:, None]
    assert torch.equal(after[site], torch.where(where, before[site] + delta, before[site]))
    for other in sites:
        if other.depth < site.depth:
            assert torch.equal(after[other], before[other])


def test_patch_is_the_dense_matrix() -> None:
    a, r, h = vector(0, 3).double(), vector(1, 3).double(), vector(2, 5).double()
    dense = 0.5 * h @ (a.T @ r)
    torch.testing.assert_close(patch(h @ a.T, r, 0.5, torch.float64), dense)


# --- (b) batched and padded against one by one --------------------------------------------------------------


@pytest.mark.parametrize("mode", ["two_pass", "gated", "published"])
def test_batched_and_padded_equals_one_by_one(tiny_any, side, mode) -> None:
    tiny = tiny_any
    inputs = tiny.inputs(side=side)
    if tiny.family == "llava":  # as `generate` does; rotary angles are float32, so shifted ones would cost 1e-7
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    last = inputs["attention_mask"].cumsum(1).argmax(1)
    if mode == "two_pass":
        chosen, is_open = splitting(tiny, inputs, scope="text", amount="gate")
    else:
        chosen, is_open = eraser(mode, None, scope="text"), torch.ones(4, dtype=torch.bool)
    rows = torch.arange(4)
    plain = tiny.logits(inputs)[rows, last]
    with chosen.attach(tiny.model) as handle:
        batched = tiny.logits(inputs)[rows, last]
    assert handle.opened is not None
    assert torch.equal(handle.opened, is_open)
    alone, steered = [], []
    for row in range(4):
        single = tiny.inputs([tiny.rows[row]])
        alone.append(tiny.logits(single)[0, -1])
        with chosen.attach(tiny.model) as handle:
            steered.append(tiny.logits(single)[0, -1])
        assert handle.opened is not None
        assert bool(handle.opened[0]) == bool(is_open[row])
    assert apart(batched, torch.stack(steered)) <= limit(tiny.dtype, apart(plain, torch.stack(alone)))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative distance of two results, all rows together."""
    return float((one.double() - other.double()).norm() / other.double().norm())


def limit(dtype: torch.dtype, unsteered: float) -> float:
    """How far two ways to the same result may lie apart; in bfloat16 by twice what the unsteered model's own do."""
    return {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2 * unsteered}[dtype]


# --- (c) cached against uncached decoding -------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["prompt", "prompt+generation"])
@pytest.mark.parametrize("mode", ["two_pass", "gated", "constant"])
def test_cached_decoding_equals_uncached(tiny_any, mode, scope) -> None:
    tiny = tiny_any
    inputs = tiny.inputs()
    if mode == "two_pass":
        chosen, _ = splitting(tiny, inputs, scope=scope)
    else:
        chosen = eraser(mode, None, scope=scope)
    chosen = chosen.with_(decode_decay=0.5, strength=0.5)
    plain = [tiny.generate(inputs, tokens=FORCED, use_cache=cached) for cached in (True, False)]
    with chosen.attach(tiny.model) as handle:
        steered = []
        for cached in (True, False):
            steered.append(tiny.generate(inputs, tokens=FORCED, use_cache=cached))
            assert handle.opened is not None
            assert bool(handle.opened.any())
    assert not torch.equal(steered[0], plain[0])
    assert apart(*steered) <= limit(tiny.dtype, apart(*plain))


def grown(inputs: dict[str, torch.Tensor], token: int) -> dict[str, torch.Tensor]:
    rows = len(inputs["input_ids"])
    more = {"input_ids": token, "attention_mask": 1, "mm_token_type_ids": 0}
    return {
        key: torch.cat([value, torch.full((rows, 1), more[key])], dim=1) if key in more else value
        for key, value in inputs.items()
    }


def test_uncached_decoding_by_hand_keeps_the_first_decision(tiny32) -> None:
    inputs = tiny32.inputs()
    some, is_open = splitting(tiny32, inputs, scope="prompt")
    with some.attach(tiny32.model) as handle:
        by_generate = tiny32.generate(inputs, tokens=FORCED)
        handle.new_prompt()
        by_hand = [tiny32.logits(inputs)[:, -1]]
        for token in FORCED[:-1]:
            inputs = grown(inputs, token)
            by_hand.append(tiny32.logits(inputs)[:, -1])
            assert torch.equal(handle.opened, is_open)
    torch.testing.assert_close(torch.stack(by_hand, dim=1), by_generate, rtol=1e-4, atol=1e-3)


def test_a_different_prompt_is_decided_anew(tiny32) -> None:
    inputs = tiny32.inputs()
    with eraser(threshold=NOTHING).attach(tiny32.model) as handle:
        tiny32.logits(inputs)
        first = handle.gate_values[DECISION]
        other = grown(inputs, 30)
        other["input_ids"] = other["input_ids"].clone()
        other["input_ids"][:, -2] = 60  # one token longer, but not the same prefix
        tiny32.logits(other)
        second = handle.gate_values[DECISION]
        assert not torch.equal(first, second)
        tiny32.logits(inputs)
        assert torch.equal(handle.gate_values[DECISION], first)
        tiny32.logits(grown(grown(inputs, 30), 41))  # two tokens more: not a step of decoding
        assert not torch.equal(handle.gate_values[DECISION], first)
        tiny32.logits(inputs)
        seen = grown(inputs, 30)
        seen["attention_mask"] = torch.ones_like(seen["attention_mask"])  # the same tokens, padding included now
        tiny32.logits(seen)
        assert not torch.equal(handle.gate_values[DECISION], first)
        tiny32.logits(inputs)
        pictures = {**grown(inputs, 30), "pixel_values": inputs["pixel_values"] + 1}
        tiny32.logits(pictures)
        assert not torch.equal(handle.gate_values[DECISION][0], first[0])


def test_generation_scope_steers_each_token_with_its_own_vector_and_decay(tiny32) -> None:
    """Compared with an edit written by hand, step by step."""
    inputs, width = tiny32.inputs(), tiny32.inputs()["input_ids"].shape[1]
    r, late = vector(0), vector(5)
    site = HookSite(1)
    one = Eraser(
        directions={site: r}, mode="constant", scope="prompt+generation", strength=0.5, decode_strength=0.4,
        decode_decay=0.5, decode_directions={site: late},
    )  # fmt: skip
    with one.attach(tiny32.model):
        found = tiny32.generate(inputs, tokens=FORCED)
    step = [0]

    def by_hand(stream: torch.Tensor) -> torch.Tensor:
        step[0] += 1
        if stream.shape[1] == width:
            return stream + inputs["attention_mask"][..., None] * 0.5 * r
        return stream + 0.5 * 0.4 * 0.5 ** (step[0] - 2) * late

    with edit(tiny32.model, {site: by_hand}):
        expected = tiny32.generate(inputs, tokens=FORCED)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_decoding_runs_without_hooks_where_the_scope_ends_with_the_prompt(tiny32) -> None:
    counts: list[int] = []
    block = find_decoder(tiny32.model).layers[0]
    before = len(block._forward_hooks)
    handle = block.register_forward_pre_hook(lambda m, _: counts.append(len(m._forward_hooks) - before))
    try:
        with eraser("constant").attach(tiny32.model):
            tiny32.generate(tiny32.inputs(), tokens=FORCED)
    finally:
        handle.remove()
    assert counts == [1, 0, 0, 0]


# --- teacher forcing ----------------------------------------------------------------------------------------


def test_labels_end_the_prompt(tiny32, side) -> None:
    """Scoring an answer in one pass steers and decides as generating it would."""
    inputs = tiny32.inputs()
    some, is_open = splitting(tiny32, inputs, scope="prompt+generation")
    with some.attach(tiny32.model):
        stepwise = tiny32.generate(inputs, tokens=FORCED)
    whole = inputs
    for token in FORCED[:-1]:
        whole = grown(whole, token)
    labels = torch.full_like(whole["input_ids"], -100)
    labels[:, -3:] = whole["input_ids"][:, -3:]
    if side == "right":
        pads = whole["attention_mask"].argmax(1)
        roll = (torch.arange(labels.shape[1])[None] + pads[:, None]) % labels.shape[1]
        labels = labels.gather(1, roll)
        for key in {"input_ids", "attention_mask", "mm_token_type_ids"} & set(whole):
            whole[key] = whole[key].gather(1, roll)
    with some.attach(tiny32.model) as handle:
        logits = tiny32.logits({**whole, "labels": labels})
        assert torch.equal(handle.opened, is_open)
        declared = (labels == -100) & whole["attention_mask"].bool()
        if side == "left":
            handle.declare_prompt(declared)
            assert torch.equal(tiny32.logits(whole), logits)
    ends = whole["attention_mask"].cumsum(1).argmax(1)
    found = torch.stack([logits[torch.arange(4), ends - 3 + i] for i in range(4)], dim=1)
    torch.testing.assert_close(found, stepwise, rtol=1e-3, atol=2e-3)


def test_a_gate_behind_a_repeated_prefill_decides_by_the_second_pass(tiny32) -> None:
    """What it read in the pass that was given up is forgotten, and so is the mask that it made."""
    inputs = tiny32.inputs()
    first = Eraser(
        directions={HookSite(0): vector(1)}, gates={HookSite(2): Gate(vector(2), torch.zeros(1), threshold=EVER_OPEN)},
        strength=3.0,
    )  # fmt: skip
    site, gate = HookSite(1), Gate(vector(3) / 6, torch.zeros(1))
    with first.attach(tiny32.model):
        alone = tiny32.logits(inputs)
        after = gate(run_capture(tiny32.model, inputs, [site])[site])[:, 0]
    before = gate(run_capture(tiny32.model, inputs, [site])[site])[:, 0]
    flips = []
    for threshold in torch.stack([before, after]).mean(0).tolist():  # one row changes its side at each
        second = Eraser(directions={site: vector(4)}, gates={site: gate.with_threshold(threshold)}, mode="gated")
        with first.attach(tiny32.model), second.attach(tiny32.model) as handle:
            found = tiny32.logits(inputs)
        assert torch.equal(handle.opened, after > threshold)
        check_that_only_opened_rows_moved(found, alone, inputs, handle.opened)
        flips += [bool(row) for row in (before > threshold) != (after > threshold)]
    assert any(flips)


# --- the short ways of a batch without padding, and of one vector for every token ----------------------------

EVEN = (
    ([1, 20, 21, 22, 23, 24], None),
    ([1, 5, 5, 5, 5, 25], torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(5))),
    ([1, 50, 51, 52, 53, 54], None),
    ([1, 30, 31, 32, 33, 34], None),
)
"""Rows of one length: nothing is padded."""


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mode", ["two_pass", "gated", "constant"])
def test_a_batch_without_padding_is_steered_as_one_whose_prompts_are_declared(tiny, mode, scope) -> None:
    """A declared prompt is looked at token by token; where none is declared nobody looks, for the same bits."""
    inputs = tiny.inputs(EVEN)
    some = splitting(tiny, inputs, scope=scope)[0] if mode == "two_pass" else eraser(mode, 0.0, scope=scope)
    with some.attach(tiny.model) as handle:
        found, generated = tiny.logits(inputs), tiny.generate(inputs, tokens=FORCED)
        values, opened = handle.gate_values, handle.opened
    with some.attach(tiny.model) as handle:
        handle.declare_prompt(inputs["attention_mask"])
        assert torch.equal(tiny.logits(inputs), found)
        handle.declare_prompt(inputs["attention_mask"])
        assert torch.equal(tiny.generate(inputs, tokens=FORCED), generated)
        assert torch.equal(handle.opened, opened)
        assert all(torch.equal(handle.gate_values[site], value) for site, value in values.items())
    with some.attach(tiny.model):
        assert torch.equal(tiny.logits({k: v for k, v in inputs.items() if k != "attention_mask"}), found)


def test_a_vector_for_every_token_is_the_same_whatever_is_told_of_the_prompt(tiny, side) -> None:
    """Padding gets nothing, and a prompt that is declared or labelled gets what its continuation gets."""
    inputs = tiny.inputs(side=side)
    one = eraser("constant", scope="prompt+generation")
    with one.attach(tiny.model) as handle:
        found = tiny.logits(inputs)
        assert handle.opened.tolist() == [True] * 4
    with one.attach(tiny.model) as handle:
        handle.declare_prompt(inputs["attention_mask"])
        assert torch.equal(tiny.logits(inputs), found)
    with one.attach(tiny.model):
        ends = inputs["attention_mask"].cumsum(1) == inputs["attention_mask"].sum(1, keepdim=True)
        labels = torch.where(ends & (inputs["attention_mask"] > 0), inputs["input_ids"], -100)
        assert torch.equal(tiny.logits({**inputs, "labels": labels}), found)
    if side == "left":  # decoding continues behind the prompt
        with one.attach(tiny.model):
            generated = tiny.generate(inputs, tokens=FORCED)
        with one.attach(tiny.model) as handle:
            handle.declare_prompt(inputs["attention_mask"])
            assert torch.equal(tiny.generate(inputs, tokens=FORCED), generated)


def test_a_single_generated_token_is_no_prefill_of_one_vector_for_every_token(tiny32) -> None:
    ids, mask = (tiny32.inputs(EVEN[:2])[name] for name in ("input_ids", "attention_mask"))
    decoder = find_decoder(tiny32.model).module
    with eraser("constant", scope="prompt+generation").attach(tiny32.model) as handle, torch.no_grad():
        cache = decoder(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values
        cache.batch_repeat_interleave(2)
        more = torch.ones(4, mask.shape[1] + 1, dtype=torch.long)
        decoder(input_ids=torch.full((4, 1), 9), attention_mask=more, past_key_values=cache)
        assert handle.opened.tolist() == [True, True], "rows of the latest prefill"


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mode", ["two_pass", "gated", "constant", "published"])
def test_a_mask_that_leaves_tokens_out_is_refused(tiny32, mode, scope) -> None:
    """Its tokens could be padding, and then the last one is not where the prompt ends."""
    inputs = tiny32.inputs([EVEN[0], EVEN[2], EVEN[3]])  # the model itself objects where there are pictures
    for short in (inputs["attention_mask"][:, :-2], inputs["attention_mask"][:1]):
        with (
            eraser(mode, scope=scope).attach(tiny32.model),
            pytest.raises(ValueError, match=r"The attention mask has .* columns, but the call has 3 rows of 6 tokens"),
        ):
            tiny32.logits({**inputs, "attention_mask": short})


# --- turns, beams, chunks -----------------------------------------------------------------------------------


def test_each_generate_decides_anew_on_a_kept_cache_too(tiny32) -> None:
    from transformers import DynamicCache

    inputs = tiny32.inputs([([1, 30, 31, 32], None), ([1, 50, 51, 52], None)])
    inputs.pop("mm_token_type_ids", None)
    following = {
        "input_ids": torch.cat([inputs["input_ids"], torch.tensor([[9, 33, 34], [9, 55, 56]])], dim=1),
        "attention_mask": torch.ones(2, 7, dtype=torch.long),
    }
    outs = []
    for _ in range(2):  # an open second turn resets the cache to the end of the first turn, not to nothing
        cache = DynamicCache(config=tiny32.model.config)
        with eraser(threshold=NOTHING).attach(tiny32.model) as handle:
            tiny32.generate(inputs, past_key_values=cache, max_new_tokens=1)
            first = handle.gate_values[DECISION]
        cache.crop(4 - cache.get_seq_length())
        with eraser(threshold=EVERYTHING).attach(tiny32.model) as handle:
            outs.append(tiny32.generate(following, past_key_values=cache, tokens=FORCED))
            assert not torch.equal(handle.gate_values[DECISION], first)
        assert cache.get_seq_length() == 7 + len(FORCED) - 1
    assert torch.equal(*outs)
    cache = DynamicCache(config=tiny32.model.config)
    tiny32.generate(inputs, past_key_values=cache, max_new_tokens=1)
    cache.crop(4 - cache.get_seq_length())
    with eraser("constant").attach(tiny32.model):
        assert torch.equal(tiny32.generate(following, past_key_values=cache, tokens=FORCED), outs[0])


@pytest.mark.parametrize("scope", ["prompt", "prompt+generation"])
def test_beams(tiny32, scope) -> None:
    inputs = tiny32.inputs()
    options = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False}
    plain = tiny32.model.generate(**inputs, **options)
    some, is_open = splitting(tiny32, inputs, scope=scope)
    with some.attach(tiny32.model) as handle:
        found = tiny32.model.generate(**inputs, **options)
    assert torch.equal(handle.opened, is_open.repeat_interleave(2))
    assert torch.equal(found[~is_open], plain[~is_open])
    with eraser("constant", scope=scope).attach(tiny32.model):
        constant = tiny32.model.generate(**inputs, **options)
    assert torch.equal(found[is_open], constant[is_open])
    assert not torch.equal(found, plain)


@pytest.mark.parametrize("scope", ["prompt", "prompt+generation"])
def test_rows_that_are_repeated_after_the_prefill_keep_their_decision(tiny32, scope) -> None:
    """Each prompt is continued twice from one prefill, as a sampler may do: like the same prompts asked twice."""
    inputs = tiny32.inputs()
    some, is_open = splitting(tiny32, inputs, scope=scope)
    following = torch.tensor([30, 41, 22, 53, 33, 44, 25, 56])[:, None]

    def ask(twice_before: bool) -> torch.Tensor:
        asked = inputs if not twice_before else tiny32.inputs([row for row in tiny32.rows for _ in range(2)])
        with torch.no_grad(), some.attach(tiny32.model):
            cache = tiny32.model(**asked, use_cache=True).past_key_values
            mask = asked["attention_mask"]
            if not twice_before:
                cache.batch_repeat_interleave(2)
                mask = mask.repeat_interleave(2, dim=0)
            mask = torch.cat([mask, torch.ones_like(following)], dim=1)
            positions = (mask.cumsum(1) - 1)[:, -1:]
            return tiny32.model(
                input_ids=following, attention_mask=mask, position_ids=positions, past_key_values=cache
            ).logits

    assert is_open.any() and not is_open.all()
    torch.testing.assert_close(ask(twice_before=False), ask(twice_before=True), rtol=1e-4, atol=1e-3)


def test_another_batch_does_not_go_on_from_a_prompt(tiny32) -> None:
    inputs = tiny32.inputs()
    with torch.no_grad(), eraser(scope="prompt+generation").attach(tiny32.model):
        cache = tiny32.model(**inputs, use_cache=True).past_key_values
        cache.batch_select_indices(torch.tensor([0, 1, 2]))
        mask = torch.cat([inputs["attention_mask"][:3], torch.ones(3, 1, dtype=torch.long)], dim=1)
        options = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1)[:, -1:], "past_key_values": cache}
        with pytest.raises(RuntimeError, match="prefilled with 4"):
            tiny32.model(input_ids=torch.full((3, 1), 30), **options)


def test_what_is_read_under_an_eraser_is_the_steered_stream(tiny32) -> None:
    """Also before the decision, where a first pass that is given up came by unsteered."""
    inputs, site = tiny32.inputs(), STEERED[0]
    plain = run_capture(tiny32.model, inputs, [site])[site]
    some, is_open = splitting(tiny32, inputs)
    with some.attach(tiny32.model):
        steered = run_capture(tiny32.model, inputs, [site])[site]
    assert (steered - plain).abs().amax(dim=1).gt(0.1).tolist() == is_open.tolist()


def test_static_cache(tiny32) -> None:
    inputs = tiny32.inputs()
    some, is_open = splitting(tiny32, inputs)
    with some.attach(tiny32.model) as handle:
        dynamic = tiny32.generate(inputs, tokens=FORCED)
        static = tiny32.generate(inputs, tokens=FORCED, cache_implementation="static", disable_compile=True)
        assert torch.equal(handle.opened, is_open)
    torch.testing.assert_close(static, dynamic, rtol=1e-4, atol=1e-3)


def test_chunked_prefill_is_refused(tiny32) -> None:
    inputs = tiny32.inputs([([1, 30, 31, 32], None)])
    with eraser().attach(tiny32.model), pytest.raises(ValueError, match="prefill_chunk_size"):
        tiny32.generate(inputs, prefill_chunk_size=2)


def test_prompt_lookup_decoding_does_not_take_candidates_for_the_prompt(tiny32) -> None:
    inputs = tiny32.inputs([([1, 30, 31, 30, 31, 30], None)])
    inputs.pop("mm_token_type_ids", None)
    with eraser().attach(tiny32.model) as handle:
        plain = tiny32.generate(inputs, max_new_tokens=6)
        value = handle.gate_values[DECISION]
        looked_up = tiny32.generate(inputs, max_new_tokens=6, prompt_lookup_num_tokens=3)
        torch.testing.assert_close(handle.gate_values[DECISION], value)
    torch.testing.assert_close(looked_up, plain, rtol=1e-4, atol=1e-3)


# --- (i) positions ------------------------------------------------------------------------------------------


def test_positions_of_qwen_are_untouched(qwen) -> None:
    inputs, seen = qwen.inputs(), []

    def note(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["position_ids"].clone())

    handle = find_decoder(qwen.model).module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        qwen.generate(inputs, tokens=FORCED)
        plain, deltas = list(seen), qwen.model.model.rope_deltas.clone()
        seen.clear()
        some, _ = splitting(qwen, inputs)
        seen.clear()
        with some.attach(qwen.model):
            qwen.generate(inputs, tokens=FORCED)
    finally:
        handle.remove()
    assert int(deltas.abs().sum()) > 0
    assert torch.equal(qwen.model.model.rope_deltas, deltas)
    assert len(seen) == len(plain)
    assert all(torch.equal(a, b) for a, b in zip(seen, plain, strict=True))


def test_images_without_token_types_are_refused_on_qwen(qwen) -> None:
    inputs = qwen.inputs()
    del inputs["mm_token_type_ids"]
    before = state_of(qwen.model)
    with eraser().attach(qwen.model), pytest.raises(ValueError, match="mm_token_type_ids"):
        qwen.logits(inputs)
    with eraser().attach(qwen.model), pytest.raises(ValueError, match="mm_token_type_ids"):
        qwen.generate(inputs)
    assert state_of(qwen.model) == before


# --- as published -------------------------------------------------------------------------------------------


def test_published_follows_the_literal_rule(tiny) -> None:
    inputs = tiny.inputs()
    published = eraser("published", strength=0.6)

    def by_hand(site: HookSite):
        gate, r = published.gates[site], published.directions[site]

        def apply(h: torch.Tensor) -> torch.Tensor:
            if h.shape[1] <= 1:
                return h
            return h + (0.6 * (gate(h[:, -1]) @ r)).to(h.dtype)[:, None]

        return apply

    with edit(tiny.model, {site: by_hand(site) for site in published.sites}):
        expected = tiny.generate(inputs, tokens=FORCED)
    with published.attach(tiny.model) as handle:
        assert torch.equal(tiny.generate(inputs, tokens=FORCED), expected)
    assert set(handle.gate_values) == set(STEERED)


def test_published_reads_the_last_real_token_under_right_padding(tiny32) -> None:
    values = []
    for side in ("left", "right"):
        with eraser("published").attach(tiny32.model) as handle:
            tiny32.logits(tiny32.inputs(side=side))
        values.append(handle.gate_values[STEERED[0]])
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)


# --- one pass, gated ----------------------------------------------------------------------------------------


def test_gated_reads_every_layer_and_can_share_one_early_gate(tiny32) -> None:
    inputs = tiny32.inputs()
    with eraser("gated", None).attach(tiny32.model) as handle:
        tiny32.logits(inputs)
    assert set(handle.gate_values) == set(STEERED)
    shared = Eraser(
        directions={HookSite(2): vector(0), HookSite(3): vector(1)},
        gates={HookSite(0): Gate(vector(2), torch.zeros(1))},
        mode="gated",
    )
    with shared.attach(tiny32.model) as handle, torch.no_grad():
        before = run_capture(tiny32.model, inputs, [HookSite(0)])[HookSite(0)]
        with capture(tiny32.model, [HookSite(3)]) as after:
            tiny32.model(**inputs)
    torch.testing.assert_close(handle.gate_values[HookSite(0)], shared.gates[HookSite(0)](before))
    assert after[HookSite(3)].shape == (4, 32)
    with eraser("gated", NOTHING).attach(tiny32.model) as handle:
        steered = tiny32.logits(inputs)
    assert torch.equal(steered, tiny32.logits(inputs))
    assert not bool(handle.opened.any())


def test_several_requests_open_by_themselves(tiny32) -> None:
    inputs = tiny32.inputs()
    both = eraser(rank=2)
    both = both.with_(gates={s: g.with_threshold([EVERYTHING, NOTHING]) for s, g in both.gates.items()})
    first = Eraser(
        directions={s: r[:1] for s, r in both.directions.items()},
        gates={s: Gate(g.weight[:1], g.bias[:1]).with_threshold(EVERYTHING) for s, g in both.gates.items()},
    )
    with both.attach(tiny32.model):
        steered = tiny32.logits(inputs)
    with first.attach(tiny32.model):
        torch.testing.assert_close(tiny32.logits(inputs), steered)


def test_a_prompt_that_two_requests_claim_is_pushed_once(tiny32) -> None:
    """Two requests that push alike and both open: as one of them does."""
    inputs = tiny32.inputs()
    one = eraser()
    gates = {site: Gate(gate.weight.repeat(2, 1), gate.bias.repeat(2)) for site, gate in one.gates.items()}
    twice = Eraser(
        directions={site: r.repeat(2, 1) for site, r in one.directions.items()},
        gates={site: gate.with_threshold(EVERYTHING) for site, gate in gates.items()},
    )
    with one.attach(tiny32.model):
        once = tiny32.logits(inputs)
    with twice.attach(tiny32.model):
        torch.testing.assert_close(tiny32.logits(inputs), once, rtol=1e-4, atol=1e-4)


def test_a_row_that_any_site_opened_was_opened(tiny32) -> None:
    inputs, (first, *rest) = tiny32.inputs(), STEERED
    gated = eraser("gated", NOTHING)
    with gated.attach(tiny32.model) as handle:
        tiny32.logits(inputs)
    values = handle.gate_values[first][:, 0]
    middle, is_open = float(values.median()), values > values.median()
    early = gated.with_(gates={first: gated.gates[first].with_threshold(middle), **{s: gated.gates[s] for s in rest}})
    with early.attach(tiny32.model) as handle:
        tiny32.logits(inputs)
    assert is_open.any() and torch.equal(handle.opened, is_open), "the later sites, which open nothing, do not undo it"


def test_padding_stays_as_it_was_where_answers_are_steered(tiny32) -> None:
    """With labels a call holds prompt, answer and, on the right, padding: the last of these is nobody's."""
    inputs = tiny32.inputs(side="right")
    labels = torch.full_like(inputs["input_ids"], -100)
    ends = inputs["attention_mask"].sum(1) - 1
    labels[torch.arange(4), ends] = 30
    site = HookSite(0)
    plain = run_capture(tiny32.model, inputs, [site], "all")[site]
    steered = eraser("constant", scope="prompt+generation")
    with torch.no_grad(), steered.attach(tiny32.model), capture(tiny32.model, [site], "all") as found:
        tiny32.model(**inputs, labels=labels)
    padding = ~inputs["attention_mask"].bool()
    assert padding.any() and torch.equal(found[site][padding], plain[padding])
    assert not torch.equal(found[site][~padding], plain[~padding])


# --- (d) nothing is left behind -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["two_pass", "gated", "constant", "published"])
def test_nothing_is_left_on_the_model(tiny32, mode) -> None:
    inputs = tiny32.inputs()
    plain, before = tiny32.logits(inputs), state_of(tiny32.model)
    with eraser(mode).attach(tiny32.model):
        tiny32.generate(inputs)
    assert state_of(tiny32.model) == before

    def explode(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("inside a block")

    with (
        pytest.raises(RuntimeError, match="inside a block"),
        eraser(mode).attach(tiny32.model),
        edit(tiny32.model, {HookSite(3): explode}),
    ):
        tiny32.generate(inputs)
    assert state_of(tiny32.model) == before
    assert torch.equal(tiny32.logits(inputs), plain)


def test_nested_erasers_act_together_and_come_off_in_order(tiny32) -> None:
    inputs, before = tiny32.inputs(), state_of(tiny32.model)
    with eraser("constant").attach(tiny32.model):
        alone = tiny32.logits(inputs)
        with eraser().attach(tiny32.model):
            both = tiny32.logits(inputs)
        assert torch.equal(tiny32.logits(inputs), alone)
    assert not torch.equal(both, alone)
    assert state_of(tiny32.model) == before


def test_a_failed_call_does_not_leave_a_half_decided_prompt(tiny32) -> None:
    inputs = tiny32.inputs()

    def explode(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("too late")

    with eraser().attach(tiny32.model) as handle:
        expected = tiny32.logits(inputs)
        with pytest.raises(ValueError, match="no hook sites"), capture(tiny32.model, []):
            pass
        with pytest.raises(RuntimeError, match="late"), edit(tiny32.model, {HookSite(3): explode}):
            tiny32.logits(tiny32.inputs(tiny32.rows[:2]))
        assert torch.equal(tiny32.logits(inputs), expected)
        assert handle.opened is not None


def test_what_is_added_to_closed_rows_leaves_every_bit() -> None:
    """Minus zero is the one number that addition never shows: 0.0 would turn -0.0 into 0.0."""
    stream = torch.tensor([-0.0, 0.0, 1e-40, -1.0, float("inf")])
    for wide in (stream, stream.bfloat16(), stream.double()):
        added = wide + _only(torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=wide.dtype))
        assert added.dtype == wide.dtype
        assert bytes(added.untyped_storage()) == bytes(wide.untyped_storage())


def test_a_decision_over_several_blocks_counts_each_once_where_another_repeats_the_pass(tiny32) -> None:
    inputs = tiny32.inputs()
    gates = {HookSite(1): Gate(vector(1), torch.zeros(1)), HookSite(3): Gate(vector(2), torch.zeros(1))}
    gates[HookSite(3)] = gates[HookSite(3)].with_threshold(NOTHING)
    joined = Eraser(directions={HookSite(0): vector(3)}, gates=gates, mode="two_pass")
    again = eraser(strength=0.0)  # opens for everything, and so prefills twice
    with joined.attach(tiny32.model) as handle:
        tiny32.logits(inputs)
    alone = handle.gate_values[HookSite(3)]
    for first, second in ((again, joined), (joined, again)):
        with first.attach(tiny32.model) as one, second.attach(tiny32.model) as two:
            tiny32.logits(inputs)
        assert torch.equal((two if second is joined else one).gate_values[HookSite(3)], alone)


def test_a_compiled_decoder_is_refused_and_no_capture_is_empty(tiny32, monkeypatch) -> None:
    decoder = find_decoder(tiny32.model).module
    monkeypatch.setattr(decoder, "forward", torch.compile(decoder.forward, backend="eager"), raising=False)
    with pytest.raises(ValueError, match="compiled"), eraser().attach(tiny32.model):
        pass
    monkeypatch.undo()

    past = copy.deepcopy(decoder)  # a pass that comes by no block that has a hook
    monkeypatch.setattr(decoder, "forward", past.forward, raising=False)
    with pytest.raises(RuntimeError, match=r"did not come past the hooks at 2\.output"):
        run_capture(tiny32.model, tiny32.inputs(), [DECISION])


def test_a_stream_that_is_still_on_another_device_gets_its_push_there(tiny32) -> None:
    with eraser("constant").attach(tiny32.model) as handle:
        tiny32.logits(tiny32.inputs())
        stream = torch.zeros(2, 3, 32, device="meta")
        site = STEERED[1]
        assert handle._push(handle._prompt, site, stream).device.type == "meta"
