"""What a steered model remembers between two calls of its decoder: the prompt and its decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .hooks import real_tokens


@dataclass
class Call:
    """One call of the decoder: new tokens of all rows, at columns `past .. past + width - 1`."""

    past: int
    """The clock: tokens already in the key-value cache (0 without a cache)."""

    batch: int
    width: int
    real: Tensor
    """Tokens that are not padding, `(B, width)`."""

    tokens: Tensor
    """Token ids `(B, width)`, or embeddings `(B, width, d)` where ids are unknown."""

    pixels: Any = None
    """The `pixel_values` of the call, kept to tell two prompts with the same text apart."""

    image: Tensor | None = None
    """Image tokens, `(B, width)`; `None` when unknown."""

    prompt: Tensor | None = None
    """Tokens that belong to the prompt, where the caller said so (labels, declared mask), `(B, width)`."""

    padded: bool = True
    """Whether some token may be padding: false only where that was known without waiting for a device."""


@dataclass
class Prompt:
    """A batch of prompts, fixed at their first prefill; later calls refer back to it."""

    start: int
    """Column of the first token of this prefill; above 0 on a later turn with a kept cache."""

    width: int
    last: Tensor
    """Column of the last prompt token of each row, `(B,)`."""

    mask: Tensor
    """Prompt positions to be patched, `(B, width)`."""

    call: Call
    """The prefill itself."""

    seen: int
    """Length of the sequence at the latest call."""

    whole: bool = True
    """Whether the prefill holds nothing but prompt and padding, as far as the caller said."""

    full: bool = False
    """Whether the prefill is known to hold prompt tokens alone, so that every row's prompt ends where it ends."""

    everywhere: bool = False
    """Whether `mask` is known to leave nothing out, so that nobody need look at it."""

    opened: dict[Any, Tensor] = field(default_factory=dict)
    """Rows that the gate of a site opened for, `(B,)` per site, at its latest reading."""

    amounts: dict[Any, Tensor] = field(default_factory=dict)
    """How much of each direction a row gets, `(B, k)` per site; the key `None` serves all sites."""

    pushes: dict[Any, Tensor] = field(default_factory=dict)
    """What generated tokens get, kept from step to step by site and number of rows."""

    def repeated(self, batch: int) -> Prompt:
        """The same prompts with each row repeated, for beams that are expanded after the prefill."""
        before = self.last.shape[0]
        if batch == before:
            return self
        if batch % before:
            raise RuntimeError(
                f"The decoder got {batch} rows, but the prompt was prefilled with {before}. Call "
                "handle.new_prompt() before another batch continues from a cache."
            )
        times = batch // before
        amounts = {key: value.repeat_interleave(times, dim=0) for key, value in self.amounts.items()}
        last, mask = self.last.repeat_interleave(times), self.mask.repeat_interleave(times, dim=0)
        return replace(self, last=last, mask=mask, amounts=amounts)

    def ends(self, call: Call, stream: Tensor) -> Tensor:
        """The stream `(B, T, d)` of a call at the last prompt token of each row, `(B, d)`."""
        if self.full and call is self.call:
            return stream[:, -1].contiguous()
        rows = torch.arange(call.batch, device=stream.device)
        return stream[rows, (self.last - call.past).to(stream.device)]

    def columns(self, call: Call) -> Tensor:
        """The prompt positions to be patched among the tokens of a call, `(B, call.width)`."""
        after = max(call.past + call.width - self.start - self.width, 0)
        full = pad(self.mask, (max(self.start - call.past, 0), after))
        offset = max(call.past - self.start, 0)
        return full[:, offset : offset + call.width]

    def covers(self, call: Call) -> bool:
        """Whether every token of a call is patched; told without looking at any tensor."""
        return self.everywhere and call.past >= self.start and self.holds_all(call)

    def steps(self, call: Call) -> Tensor:
        """Generation step of each token of a call, `(B, T)`: 1 for the first generated, below 1 before."""
        columns = torch.arange(call.past, call.past + call.width, device=self.last.device)
        return columns[None, :] - self.last[:, None]

    def holds_all(self, call: Call) -> bool:
        """Whether no token of a call was generated; told without looking at any tensor."""
        return self.whole and call.past + call.width <= self.start + self.width

    def continued_by(self, call: Call) -> bool:
        """Whether an uncached call repeats this sequence and images with one more token."""
        before = self.call
        if self.start or call.batch != before.batch or call.width != self.seen + 1 or call.prompt is not None:
            return False
        same_tokens = call.tokens.shape[2:] == before.tokens.shape[2:] and torch.equal(
            call.tokens[:, : self.width], before.tokens
        )
        if not same_tokens or not torch.equal(call.real[:, : self.width], before.real):
            return False
        if call.pixels is None or before.pixels is None:
            return call.pixels is before.pixels
        return call.pixels is before.pixels or (
            call.pixels.shape == before.pixels.shape and torch.equal(call.pixels, before.pixels)
        )


def begin_prompt(call: Call, scope: str, columns: int | None) -> Prompt:
    """Fix prompt length and patched positions per row. `columns`: prompt length told by `generate`."""
    prompt = call.real if call.prompt is None else call.real & call.prompt
    followed = columns is not None and call.past + call.width > columns
    if followed:
        assert columns is not None
        # Candidate tokens of assisted decoding follow the prompt.
        prompt = prompt & (torch.arange(call.width, device=prompt.device) < columns - call.past)
    whole = call.prompt is None and not followed
    full = whole and not call.padded  # the common case of one prompt on a CPU, where every small operation counts
    places = torch.arange(call.width, device=prompt.device)
    if full:
        last = places[-1:].expand(call.batch)
    else:
        last = torch.where(prompt, places, -1).amax(dim=1)
        if call.prompt is not None and bool((last < 0).any()):
            raise ValueError(
                "A row has no prompt token before its first label (or in its declared prompt mask), so there is "
                "nowhere to read its gate. Set its prompt's labels to -100, or call handle.declare_prompt(mask)."
            )
        last = torch.where(last < 0, call.width - 1, last)  # (B,)
    mask = prompt
    if scope == "last":
        mask = prompt & (places == last[:, None])
    elif scope in ("text", "image"):
        if call.image is None:
            raise ValueError(
                f"Scope {scope!r} needs to know which tokens are image tokens: call the model with input_ids "
                "or mm_token_type_ids (it got embeddings only)."
            )
        mask = prompt & (call.image if scope == "image" else ~call.image)
    end = call.past + call.width
    return Prompt(call.past, call.width, call.past + last, mask, call, end, whole, full, full and mask is prompt)


def size_of_call(decoder: Mapping[str, Any], ids: Tensor | None = None) -> tuple[int, int, int]:
    """Cached tokens, rows and new tokens of a decoder call; `ids` stand in where the decoder got no embeddings."""
    tokens = decoder.get("inputs_embeds")
    if tokens is None:
        tokens = decoder.get("input_ids") if ids is None else ids
    if tokens is None:
        raise ValueError("The decoder was called with neither inputs_embeds nor input_ids as keyword arguments.")
    cache = decoder.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length()), tokens.shape[0], tokens.shape[1]


def padding(
    decoder: Mapping[str, Any], mask: Any, size: tuple[int, int, int], device: torch.device
) -> tuple[Tensor, bool]:
    """Which tokens of a decoder call are real, `(B, T)`, and whether some may be padding, as in `Call`.

    `size`: of `size_of_call`; the other arguments as in `describe_call`.
    """
    past, batch, width = size
    given = decoder.get("attention_mask")
    if isinstance(mask, Tensor) and not (isinstance(given, Tensor) and given.ndim == 2) and given is not None:
        given = pad(mask, (0, max(past + width - mask.shape[1], 0)), value=1)[:, : past + width]
        given = given.repeat_interleave(batch // given.shape[0], dim=0)
    real = real_tokens(given, batch, width, device)
    # a subclass stands for values that are not there, as under torch.export
    known = real.device.type == "cpu" and type(real) is Tensor
    return real, given is not None and not (known and bool(real.all()))


def describe_call(
    decoder: Mapping[str, Any], outer: Mapping[str, Any], model: nn.Module, mask: Any, *, images: bool = True
) -> Call:
    """Collect what is known about a decoder call.

    `decoder`: the keyword arguments of the decoder; `outer`: those of the whole model, empty when the decoder
    is called by itself; `mask`: a two-dimensional attention mask for when the decoder got a prepared one;
    `images`: whether anybody will ask which tokens are image tokens.
    """
    ids = outer.get("input_ids")
    if ids is None:
        ids = decoder.get("input_ids")
    past, batch, width = size_of_call(decoder, ids)
    if ids is not None and tuple(ids.shape) != (batch, width):
        ids = None
    tokens = decoder["inputs_embeds"] if ids is None else ids
    real, padded = padding(decoder, mask, (past, batch, width), tokens.device)
    call = Call(past, batch, width, real, tokens, padded=padded)
    call.pixels = outer.get("pixel_values")
    if images:
        types = outer.get("mm_token_type_ids")
        image_token = getattr(getattr(model, "config", None), "image_token_id", None)
        if types is not None and types.shape[-1] >= width:
            call.image = types[:, -width:].ne(0)
        elif ids is not None:
            call.image = ids.eq(image_token) if image_token is not None else torch.zeros_like(ids, dtype=torch.bool)
    labels = outer.get("labels")
    if labels is not None and tuple(labels.shape) == (batch, width):
        # Teacher forcing: the prompt ends before the first token that counts in the loss.
        call.prompt = labels.ne(-100).to(call.real.device).cumsum(dim=1).eq(0)
    return call
