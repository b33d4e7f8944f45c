"""Attach an eraser to a model: one decision per prompt row, the cache's past length as the clock.

Only the decoder's `forward` is wrapped, on the instance: image features, rotary positions and `rope_deltas`
are computed outside it and passed in, so a second prefill neither runs the vision tower again nor moves a
position.

Which call is a prompt?

- Inside `model.generate`: the first decoder call of each `generate` (also on a later turn that keeps a
  cache); everything after it is a continuation, cached or not.
- Outside `generate`: a call without past tokens is a new prompt, unless it repeats the current sequence with
  exactly one more token and the same images (uncached decoding by hand). A call with past tokens continues
  the current prompt. `handle.new_prompt()` starts a new one in any case.
- Where every token gets the same vector (constant steering of prompt and continuation alike) nobody asks: only
  padding is told apart.
- With `labels` the prompt of a row ends before its first counted label; `handle.declare_prompt` says it by a
  mask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from .gate import Gate
from .hooks import check_inputs, edit, read
from .precision import exact
from .prompts import Call, Prompt, begin_prompt, describe_call, padding, size_of_call
from .sites import Decoder, HookSite, find_decoder, in_order, last_real_token

if TYPE_CHECKING:
    from .eraser import Eraser


NO_PARTS: Mapping[HookSite, Tensor] = {}


class _Opened(Exception):
    """Raised at the decision site when a gate opened, to give up a prefill; carries its handle."""


class Steering:
    """The handle of an attached eraser: its latest decisions, and where a prompt begins and ends."""

    gate_values: dict[HookSite, Tensor]
    """Gate values `(B, k)` at the latest prefill: per gate site, or of all sites at the decision site of `two_pass`."""

    opened: Tensor | None
    """Rows `(B,)` that were steered at the latest prefill; `None` before it."""

    def __init__(self, eraser: Eraser, model: nn.Module) -> None:
        self.eraser = eraser
        self.gate_values = {}
        self.opened = None
        self._model, self._decoder = model, find_decoder(model)
        _refuse_compiled(model, self._decoder)
        self._directions = {s: eraser.directions[s].to(self._decoder.device(s)) for s in eraser.sites}
        later = eraser.decode_directions or {}
        self._later = {s: later[s].to(v.device) if s in later else v for s, v in self._directions.items()}
        self._gates: dict[HookSite, Gate] = {s: g.to(self._decoder.device(s)) for s, g in eraser.gates.items()}
        # the same vector for every token, asked or generated: no prompt has to be told from what follows it
        self._uniform = (
            eraser.mode == "constant"
            and eraser.scope == "prompt+generation"
            and eraser.decode_directions is None
            and eraser.decode_strength == eraser.decode_decay == 1
            and all(direction.shape[0] == 1 for direction in eraser.directions.values())
        )
        self._constant: dict[tuple[HookSite, bool, torch.dtype, torch.device], Tensor] = {}
        if self._uniform:  # ready before the first call
            for site, direction in self._directions.items():
                weights = next(self._decoder.block(site).parameters())
                if weights.is_floating_point():
                    self._push(None, site, torch.empty(0, dtype=weights.dtype, device=direction.device))
        self._outer: dict[str, Any] = {}
        self._declared: Tensor | None = None
        self._prompt: Prompt | None = None
        self._fresh = True
        self._generating: tuple[int | None, Any] | None = None

    def new_prompt(self) -> None:
        """Forget the current prompt: the next call of the model starts a new one and is decided anew."""
        self._fresh = True

    def declare_prompt(self, mask: Tensor) -> None:
        """Say for the next call which tokens belong to the prompt, `(B, T)`; the rest counts as generated."""
        self._declared, self._fresh = mask.ne(0), True

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Wrap the decoder's forward and the model's generate; restore both at the end."""
        before = self._model.register_forward_pre_hook(self._note_inputs, with_kwargs=True)
        after = self._model.register_forward_hook(lambda *_: self._outer.clear(), always_call=True)
        with ExitStack() as stack:
            stack.callback(after.remove)
            stack.callback(before.remove)
            stack.enter_context(_wrapped(self._decoder.module, "forward", self._forward))
            if hasattr(self._model, "generate"):
                stack.enter_context(_wrapped(self._model, "generate", self._generate))
            yield

    def _note_inputs(self, _: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        check_inputs(kwargs)
        self._outer.clear()
        self._outer.update(kwargs)

    def _generate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        check_inputs(kwargs)
        tokens = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
        tokens = kwargs.get("inputs_embeds") if tokens is None else tokens
        mask = kwargs.get("attention_mask")
        widths = [t.shape[1] for t in (tokens, mask) if isinstance(t, Tensor) and t.ndim > 1]
        outside, self._fresh = self._generating, True
        self._generating = (max(widths, default=0) or None, mask)
        try:
            return original(*args, **kwargs)
        finally:
            self._generating = outside

    def _forward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if args:
            raise TypeError("A steered decoder must be called with keyword arguments only.")
        columns, mask = self._generating or (None, None)
        run = functools.partial(original, **kwargs)
        if self._uniform and self._declared is None and self._prompt is None:
            return self._everywhere(run, kwargs, mask)
        if self._is_idle(kwargs):
            return run()
        call = describe_call(kwargs, self._outer, self._model, mask, images=self.eraser.scope in ("text", "image"))
        if self.eraser.mode == "published":
            return self._published(run, call)
        if self._is_new(call):
            if self._declared is not None:
                call.prompt, self._declared = self._declared.to(call.real.device), None
            if columns is not None and call.past + call.width < columns:
                end = call.past + call.width
                raise ValueError(
                    f"The prompt has {columns} tokens, but the first prefill ends at {end}: "
                    "a gate is read at the last prompt token, so prefill in chunks is not supported. Set "
                    "prefill_chunk_size=None."
                )
            prompt = begin_prompt(call, self.eraser.scope, columns)
            self._prompt, self._fresh = None, True
            output = self._decide(run, call, prompt, kwargs.get("past_key_values"))
            self._prompt, self._fresh = prompt, False
            return output
        assert self._prompt is not None
        self._prompt.seen = call.past + call.width
        with edit(self._decoder, self._edits(call, self._prompt.repeated(call.batch))):
            return run()

    def _is_idle(self, kwargs: dict[str, Any]) -> bool:
        """Whether nothing is added to a call whatever it holds, so that it need not be looked at: a decoding step.

        The authors' rule takes any call of one token for one.
        """
        past, batch, width = size_of_call(kwargs, self._outer.get("input_ids"))
        if self.eraser.mode == "published":
            return width <= 1
        prompt = self._prompt
        if prompt is None or self._fresh:
            return False
        if past == 0 or past < prompt.start + prompt.width or self.eraser.scope == "prompt+generation":
            return False
        prompt.seen = past + width
        prompt.repeated(batch)  # another batch is an error, also where nothing is added
        return True

    def _is_new(self, call: Call) -> bool:
        if self._prompt is None or self._fresh:
            return True
        if call.past > 0:
            return False
        if self._generating is not None:
            return call.width <= self._prompt.width
        return not self._prompt.continued_by(call)

    def _everywhere(self, run: Callable[[], Any], kwargs: dict[str, Any], mask: Any) -> Any:
        """Add the vectors to all tokens of a call but padding; a single one that was generated is none."""
        ids = self._outer.get("input_ids", kwargs.get("input_ids"))
        size = past, batch, width = size_of_call(kwargs, ids)
        device = (kwargs["inputs_embeds"] if ids is None else ids).device
        padded = self._fresh or past == 0 or width > 1
        if padded:
            real, padded = padding(kwargs, mask, size, device)
        if self._fresh or past == 0:
            self.opened = torch.ones(batch, dtype=torch.bool, device=device)
            self._fresh = False

        def edit_at(site: HookSite) -> Callable[[Tensor], Tensor]:
            def apply(stream: Tensor) -> Tensor:
                added = self._push(None, site, stream)
                return stream + (_only(real[..., None], added) if padded else added)

            return apply

        with edit(self._decoder, {site: edit_at(site) for site in self._directions}):
            return run()

    def _decide(self, run: Callable[[], Any], call: Call, prompt: Prompt, cache: Any) -> Any:
        """Run the prefill of a new prompt: read the gates, fix the amounts, steer."""
        self.gate_values, self.opened = {}, None
        if self.eraser.mode == "constant":
            some = next(iter(self._directions.values()))
            prompt.amounts[None] = torch.ones(call.batch, some.shape[0], device=call.real.device)
            self.opened = torch.ones(call.batch, dtype=torch.bool, device=call.real.device)
            with edit(self._decoder, self._edits(call, prompt)):
                return run()
        if self.eraser.mode == "gated":
            early = {s: self._reader(s, call, prompt) for s in self._gates if s not in self._directions}
            with read(self._decoder, early), edit(self._decoder, self._edits(call, prompt, decide=True)):
                return run()
        *early_sites, site = in_order(self._gates)
        parts: dict[HookSite, Tensor] = {}
        readers = {s: self._part(s, call, prompt, parts) for s in early_sites}
        undo = _remember(cache)
        try:
            with read(self._decoder, {**readers, site: self._reader(site, call, prompt, parts=parts, stop=True)}):
                return run()
        except _Opened as signal:
            if signal.args[0] is not self:
                raise
        undo()
        with edit(self._decoder, self._edits(call, prompt)):
            return run()

    def _read(self, site: HookSite, call: Call, prompt: Prompt, stream: Tensor) -> Tensor:
        """Readings `(B, readings)` of one site's gate at the last prompt token of every row."""
        return self._gates[site].read(prompt.ends(call, stream))

    def _part(
        self, site: HookSite, call: Call, prompt: Prompt, parts: dict[HookSite, Tensor]
    ) -> Callable[[Tensor], None]:
        """Notes the readings of one site for the decision that a later site takes.

        Another eraser on the model may give a pass up and begin again: the readings of the last pass count.
        """

        def note(stream: Tensor) -> None:
            parts[site] = self._read(site, call, prompt, stream)

        return note

    def _reader(
        self,
        site: HookSite,
        call: Call,
        prompt: Prompt,
        *,
        parts: Mapping[HookSite, Tensor] = NO_PARTS,
        stop: bool = False,
    ) -> Callable[[Tensor], None]:
        """Reads the gate of one site, adds the `parts` of earlier ones, and fixes the amounts."""
        gate = self._gates[site]
        key = None if stop or len(self._gates) == 1 else site

        def decide(stream: Tensor) -> None:
            readings = self._read(site, call, prompt, stream)
            for part in parts.values():
                readings = readings + part.to(readings.device)
            values = gate.values(readings)
            is_open = gate.opens(values)
            self.gate_values[site] = values.detach()
            prompt.opened[site] = row_open = is_open.any(dim=1)
            self.opened = functools.reduce(lambda rows, more: rows | more.to(rows.device), prompt.opened.values())
            if stop and not bool(row_open.any()):  # the only synchronisation: one per prefill
                prompt.amounts[key] = torch.zeros_like(values)
                return
            if gate.threshold is None or self.eraser.amount == "gate":
                prompt.amounts[key] = torch.where(is_open, values, 0.0)
            else:  # requests that open share one push: a prompt that two of them claim is not pushed twice as far
                prompt.amounts[key] = is_open.to(values) / is_open.sum(dim=-1, keepdim=True).clamp_min(1)
            if stop:
                raise _Opened(self)

        return decide

    def _edits(self, call: Call, prompt: Prompt, *, decide: bool = False) -> dict[HookSite, Callable[[Tensor], Tensor]]:
        """What is done to the stream at every steered site. With `decide` its own gate is read there first."""
        generates = self.eraser.scope == "prompt+generation"
        if generates and call.past >= prompt.start + prompt.width:
            return self._late_edits(call, prompt)
        constant = self.eraser.mode == "constant"
        positions = None if prompt.covers(call) else prompt.columns(call)[..., None]  # (B, T, 1)
        mixed = generates and not prompt.holds_all(call)
        generated = ((prompt.steps(call) > 0) & call.real)[..., None] if mixed else None
        # the amounts of a gated prompt are known once its site is reached, and often serve all sites after it
        masks: dict[Any, tuple[Tensor | None, Tensor | None]] = {}

        def patched(site: HookSite, device: torch.device) -> Tensor:
            key = site if site in prompt.amounts else None
            amounts, mask = masks.get((key, device), (None, None))
            # another eraser may have this pass begin again, and a gate read anew
            if amounts is not prompt.amounts[key]:
                amounts = prompt.amounts[key]
                opened = _open(amounts)
                mask = (opened if positions is None else positions & opened.to(positions.device)).to(device)
                masks[key, device] = amounts, mask
            assert mask is not None
            return mask

        def edit_at(site: HookSite) -> Callable[[Tensor], Tensor]:
            def apply(stream: Tensor) -> Tensor:
                if decide and site in self._gates:
                    self._reader(site, call, prompt)(stream)
                added = self._push(prompt, site, stream)
                if constant and positions is None:
                    return stream + added
                added = _only(patched(site, stream.device), added)
                if generated is not None:
                    assert positions is not None
                    later = self._late_push(prompt, site, stream) * self._fade(call, prompt, stream)
                    added = torch.where(positions.to(stream.device), added, _only(generated, later))
                return stream + added

            return apply

        return {site: edit_at(site) for site in self._directions}

    def _late_edits(self, call: Call, prompt: Prompt) -> dict[HookSite, Callable[[Tensor], Tensor]]:
        """All tokens of the call were generated: one addition per site, of vectors prepared at the first step."""
        real = call.real[..., None] if call.width > 1 else None

        def edit_at(site: HookSite) -> Callable[[Tensor], Tensor]:
            def apply(stream: Tensor) -> Tensor:
                key = (site, call.batch)
                if key not in prompt.pushes:
                    prompt.pushes[key] = self._late_push(prompt, site, stream)
                added = prompt.pushes[key]
                if self.eraser.decode_decay != 1:
                    added = added * self._fade(call, prompt, stream)
                return stream + (added if real is None else _only(real, added))

            return apply

        return {site: edit_at(site) for site in self._directions}

    def _push(self, prompt: Prompt | None, site: HookSite, stream: Tensor, *, later: bool = False) -> Tensor:
        """What a steered token of each open row gets, `(B, 1, d)` in the stream's dtype; `(1, 1, d)` if all get it."""
        vectors = self._later if later else self._directions
        if vectors[site].device != stream.device:  # before a block's input is moved to the block's own device
            vectors[site] = vectors[site].to(stream.device)
        direction = vectors[site]
        strength = self.eraser.strength * (self.eraser.decode_strength if later else 1.0)
        if self.eraser.mode == "constant" and direction.shape[0] == 1:
            key = (site, later, stream.dtype, stream.device)
            if key not in self._constant:
                self._constant[key] = patch(direction.new_ones(1, 1), direction, strength, stream.dtype)[:, None]
            return self._constant[key]
        assert prompt is not None  # amounts are fixed for a prompt
        amount = prompt.amounts[site if site in prompt.amounts else None].to(stream.device)
        return patch(amount, direction, strength, stream.dtype)[:, None]

    def _late_push(self, prompt: Prompt, site: HookSite, stream: Tensor) -> Tensor:
        """What a generated token of each row gets, `(B, 1, d)`; `NOTHING` in closed rows."""
        amount = prompt.amounts[site if site in prompt.amounts else None]
        return _only(_open(amount), self._push(prompt, site, stream, later=True))

    def _fade(self, call: Call, prompt: Prompt, stream: Tensor) -> Tensor:
        """How much is left of the push at each generated token, `(B, T, 1)`."""
        steps = prompt.steps(call).clamp_min(1) - 1
        return (self.eraser.decode_decay ** steps.to(stream.device, torch.float32)).to(stream.dtype)[..., None]

    def _published(self, run: Callable[[], Any], call: Call) -> Any:
        """The authors' rule, literally: any call longer than one token is a prompt, all of whose positions
        move."""
        self.gate_values = {}
        self.opened = torch.ones(call.batch, dtype=torch.bool, device=call.real.device)
        last = last_real_token(call.real)

        def edit_at(site: HookSite) -> Callable[[Tensor], Tensor]:
            def apply(stream: Tensor) -> Tensor:
                rows = torch.arange(call.batch, device=stream.device)
                values = self._gates[site](stream[rows, last.to(stream.device)])
                self.gate_values[site] = values.detach()
                return stream + patch(values, self._directions[site], self.eraser.strength, stream.dtype)[:, None]

            return apply

        with edit(self._decoder, {site: edit_at(site) for site in self._directions}):
            return run()


NOTHING = -0.0
"""What may be added to any number and leaves its bits alone; 0.0 turns -0.0 into 0.0."""


def _open(amount: Tensor) -> Tensor:
    """Rows of `amount` `(B, k)` that are steered, `(B, 1, 1)`."""
    return amount.ne(0).any(dim=1)[:, None, None]


def _only(where: Tensor, values: Tensor) -> Tensor:
    """`values` at some places and `NOTHING` elsewhere, broadcast against each other."""
    return torch.where(where.to(values.device), values, NOTHING)


def patch(amount: Tensor, direction: Tensor, strength: float, dtype: torch.dtype) -> Tensor:
    """What is added to a row's residual stream: `strength * sum_k amount_k r_k`, rounded once to `dtype`.

    `amount`: `(B, k)`; `direction`: `(k, d)`. Returns `(B, d)`.
    """
    wide = torch.promote_types(dtype, torch.float32)
    with exact(amount.device):
        return (strength * (amount.to(wide) @ direction.to(wide))).to(dtype)


def _refuse_compiled(model: nn.Module, decoder: Decoder) -> None:
    """`ValueError` for a forward pass that torch.compile has fixed: it would run past every hook without a word."""
    parts: list[Any] = [model, decoder.module, *decoder.layers]
    if _compiled(vars(decoder.module).get("forward")) or any(
        hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None for part in parts
    ):
        raise ValueError(
            "This model is compiled as a whole (torch.compile), which fixes its forward pass: hooks that come later "
            "are skipped silently. Attach to the model that is not compiled (model._orig_mod), or compile inside the "
            "blocks, where hooks stay outside: block.forward = torch.compile(block.forward) for every block."
        )


def _compiled(forward: Any) -> bool:
    """Whether a method on an instance is one of torch.compile, or wraps one."""
    while forward is not None:
        if hasattr(forward, "_torchdynamo_orig_callable"):
            return True
        forward = getattr(forward, "__wrapped__", None)
    return False


@contextmanager
def _wrapped(owner: nn.Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put `function(original, ...)` in the place of a method, on the instance only."""
    original = getattr(owner, name)
    had = vars(owner).get(name)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(original, *args, **kwargs)

    wrapper.steers = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapper)
    try:
        yield
    finally:
        if had is None:
            delattr(owner, name)
        else:
            setattr(owner, name, had)


def _remember(cache: Any) -> Callable[[], None]:
    """A function that puts a key-value cache back into its present state, in place."""
    if cache is None:
        return lambda: None
    layers = list(cache.layers)
    states = [dict(vars(layer)) for layer in layers]
    growing = all(isinstance(layer, DynamicLayer) for layer in layers)
    empty = int(cache.get_seq_length()) == 0

    def undo() -> None:
        if growing:
            # Growing layers concatenate into new tensors, so the old ones are still what they were.
            del cache.layers[len(layers) :]
            for layer, state in zip(layers, states, strict=True):
                vars(layer).clear()
                vars(layer).update(state)
        elif empty:
            cache.reset()
        else:
            raise RuntimeError(
                f"A second prefill would overwrite a non-empty {type(cache).__name__}, whose tokens cannot "
                "be taken back. Use a DynamicCache for turns that keep their cache."
            )

    return undo
