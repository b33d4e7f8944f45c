"""Read and edit the residual stream with context managers that always leave the model as they found it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .sites import Decoder, HookSite, find_decoder, in_order, last_real_token

Edit = Callable[[Tensor], Tensor]
"""Maps the residual stream `(B, T, d)` to a new one of the same shape."""

Position = Literal["last", "all"] | Tensor | Callable[[Tensor], Tensor]


class _StopForward(Exception):
    """Raised inside a forward pass when nothing that is computed later is needed."""


def _replace_first(values: Any, stream: Tensor) -> Any:
    # Blocks return a tensor in transformers 5 and a tuple in older releases.
    return (stream, *values[1:]) if isinstance(values, tuple) else stream


def _first(values: Any) -> Tensor:
    return values[0] if isinstance(values, tuple) else values


def _hook(
    decoder: Decoder, site: HookSite, function: Callable[[Tensor], Tensor | None], *, first: bool
) -> RemovableHandle:
    """Call `function` on the stream at a site; a tensor that it returns replaces the stream."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            stream = function(args[0])
            return None if stream is None else ((stream, *args[1:]), kwargs)
        stream = function(kwargs["hidden_states"])
        return None if stream is None else (args, {**kwargs, "hidden_states": stream})

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        stream = function(_first(output))
        return None if stream is None else _replace_first(output, stream)

    block = decoder.block(site)
    if site.where == "input":
        return block.register_forward_pre_hook(before, prepend=first, with_kwargs=True)
    return block.register_forward_hook(after, prepend=first)


@contextmanager
def _hooked(
    model: nn.Module | Decoder, functions: Mapping[HookSite, Callable[[Tensor], Tensor | None]], *, first: bool
) -> Iterator[None]:
    """Hook all functions at once, for little: steering does so on every call of a model."""
    decoder = model if isinstance(model, Decoder) else find_decoder(model)
    handles: list[RemovableHandle] = []
    try:
        for site, function in functions.items():
            handles.append(_hook(decoder, site, function, first=first))
        yield
    finally:
        for handle in reversed(handles):
            handle.remove()


def edit(model: nn.Module | Decoder, edits: Mapping[HookSite, Edit]) -> AbstractContextManager[None]:
    """Replace the residual stream at each site by `edits[site](stream)` while the context is open.

    Edits run before every reader at the same site, so `capture` and `output_hidden_states` (at output sites)
    see the edited stream. The model is restored when the context ends, on exceptions too.
    """
    return _hooked(model, edits, first=True)


def read(
    model: nn.Module | Decoder, readers: Mapping[HookSite, Callable[[Tensor], None]]
) -> AbstractContextManager[None]:
    """Call `readers[site](stream)` with the stream `(B, T, d)` of each site while the context is open."""
    return _hooked(model, readers, first=False)


@contextmanager
def capture(
    model: nn.Module, sites: Iterable[HookSite], position: Position = "last", *, stop: bool = False
) -> Iterator[dict[HookSite, Tensor]]:
    """Collect the residual stream at some sites while the context is open.

    `position`: `"last"` reads the last real token of every row by the two-dimensional attention mask, for
    left and right padding, and gives `(B, d)`; `"all"` gives `(B, T, d)`; an integer tensor `(B,)` or `(B,
    n)` of positions, or a function from the mask `(B, T)` to one, gives `(B, d)` or `(B, n, d)`.
    `stop`: abort the forward pass after the last needed site by a private exception (use `run_capture`, which
    swallows it).

    Yields a dictionary that each forward pass overwrites: after `generate` it holds the last decoding step.
    Values are detached and stay on the model's device; nothing is synchronised.
    """
    decoder = find_decoder(model)
    ordered = in_order(sites)
    if not ordered:
        raise ValueError("capture() got no hook sites; pass at least one, for example HookSite(0, 'output').")
    found: dict[HookSite, Tensor] = {}
    where: dict[str, Any] = {}

    def note_mask(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        found.clear()
        where["mask"], where["rows"] = kwargs.get("attention_mask"), None

    def positions(stream: Tensor) -> Tensor:
        if where["rows"] is None:
            mask = real_tokens(where["mask"], stream.shape[0], stream.shape[1], stream.device)
            if isinstance(position, Tensor):
                where["rows"] = position.to(stream.device)
            else:
                where["rows"] = position(mask) if callable(position) else last_real_token(mask)
        return where["rows"]

    def reader(site: HookSite) -> Callable[[Tensor], None]:
        def keep(stream: Tensor) -> None:
            if isinstance(position, str) and position == "all":
                found[site] = stream.detach()
            else:
                index = positions(stream).to(stream.device)
                rows = torch.arange(stream.shape[0], device=stream.device)
                found[site] = stream[rows if index.ndim == 1 else rows[:, None], index].detach()
            if stop and site == ordered[-1]:
                raise _StopForward

        return keep

    handle = decoder.module.register_forward_pre_hook(note_mask, with_kwargs=True)
    try:
        with read(decoder, {site: reader(site) for site in ordered}):
            yield found
    finally:
        handle.remove()


@torch.no_grad()
def run_capture(
    model: nn.Module,
    inputs: Mapping[str, Any],
    sites: Iterable[HookSite],
    position: Position = "last",
    *,
    stop: bool = True,
) -> dict[HookSite, Tensor]:
    """One forward pass over `inputs`; returns the residual stream at `sites`, by default `(B, d)` per site.

    The pass ends after the last needed block (`stop`), unless an eraser is attached: then it runs to the end,
    so that the steered stream is what is returned. Arguments as in `capture`.
    """
    check_inputs(inputs)
    sites = list(sites)
    # accelerate replaces `forward` on the instance too, and its pass may well be stopped
    steered = getattr(vars(find_decoder(model).module).get("forward"), "steers", False)
    with capture(model, sites, position, stop=stop and not steered) as found, suppress(_StopForward):
        model(**{"use_cache": False, "logits_to_keep": 1, **inputs})
    if missing := [str(site) for site in in_order(sites) if site not in found]:
        raise RuntimeError(
            f"The forward pass did not come past the hooks at {', '.join(missing)}: it was fixed before, by "
            "torch.compile for instance. Use the model that is not compiled."
        )
    return found


def real_tokens(mask: Any, batch: int, width: int, device: torch.device) -> Tensor:
    """The attention mask of the last `width` columns as booleans `(B, width)`; all true when there is no
    mask."""
    if mask is None:
        return torch.ones(batch, width, dtype=torch.bool, device=device)
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise ValueError(
            "The decoder was called without a two-dimensional attention mask, so the last real token of a "
            "row is unknown. Pass attention_mask of shape (batch, tokens), or call model.generate with one."
        )
    if mask.shape[1] < width or mask.shape[0] != batch:
        raise ValueError(
            f"The attention mask has {mask.shape[0]} rows and {mask.shape[1]} columns, but the call has {batch} rows "
            f"of {width} tokens: which of them are padding is unknown. Pass a mask of shape (batch, tokens), with a "
            "column for every token, those in the cache included."
        )
    return mask[:, -width:].to(device).ne(0)


def check_inputs(inputs: Mapping[str, Any]) -> None:
    """Raise `ValueError` for Qwen2.5-VL inputs whose image positions would silently become
    one-dimensional."""
    has_image = inputs.get("pixel_values") is not None and inputs.get("image_grid_thw") is not None
    if has_image and inputs.get("mm_token_type_ids") is None and inputs.get("position_ids") is None:
        raise ValueError(
            "The inputs hold images (pixel_values, image_grid_thw) but no mm_token_type_ids: the model would "
            "give image tokens one-dimensional positions without a warning. Pass the mm_token_type_ids that "
            "the processor returns (0 for text, 1 for image tokens)."
        )
