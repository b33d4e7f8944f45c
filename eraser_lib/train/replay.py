"""The decoder's pass as a module of its own, which a GPU replays instead of waiting for Python.

A step of the `gpu` recipe is thousands of small operations, and an H100 that is told of them one by one waits for
Python most of the time. So the blocks are compiled, which joins the small operations, and the pass with its backward
is captured as a CUDA graph, which Python starts in one call.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from eraser_lib.train.guidance import Watch

Passed = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""See `Pass.forward`."""


class Pass(nn.Module):
    """A decoder without its embeddings; `guided` also gives what `guidance` reads."""

    def __init__(self, decoder: nn.Module, *, guided: bool) -> None:
        super().__init__()
        self.decoder, self.guided = decoder, guided

    def forward(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """The last hidden states `(B, T, d)`; guided, also the watched stream and the watched attention.

        `embeds`: `(B, T, d)`; `mask`: `(B, 1, T, T)`, added to attention scores; `positions`: as the model takes them.
        """
        with Watch(self.decoder) if self.guided else nullcontext() as watch:
            out = self.decoder(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False)
        hidden = cast(Tensor, out.last_hidden_state)
        return (hidden,) if watch is None else (hidden, watch.stream, watch.attention)


@contextmanager
def replayed(one: Pass, embeds: Tensor, mask: Tensor, positions: Tensor) -> Iterator[Passed]:
    """The same pass compiled and captured, on a GPU and for inputs of exactly these shapes and types.

    Weights may change in place while it is used, which is what optimisers do. On leaving, the decoder is as before and
    the graph is freed, or a process that is forked later would try to.
    """
    blocks = list(cast("nn.ModuleList", one.decoder.layers))
    # the block whose attention is watched is left as it is: a hook inside of it would not be compiled
    compiled = [block for block in blocks if not (one.guided and block is blocks[-2])]
    for block in compiled:
        block.forward = torch.compile(block.forward)
    graphed: nn.Module | Callable[..., object] | None = None
    try:
        # casts kept from one forward to the next would be captured with the weights of the first
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            sample = (torch.zeros_like(embeds).requires_grad_(), torch.zeros_like(mask), torch.zeros_like(positions))
            graphed = torch.cuda.make_graphed_callables(one, sample, allow_unused_input=True)
        yield cast("Passed", graphed)
    finally:
        for block in compiled:
            del block.forward
        vars(one).pop("forward", None)  # the graph hangs on it, in a circle
        graphed = None
        gc.collect()
