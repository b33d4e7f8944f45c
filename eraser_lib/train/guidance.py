"""Guidance for choosing by letter: what to have in mind, where to look, and what stands there.

Letter exercises on words that stand in the question teach a short cut: already the first block sees that an option
repeats a word of the question. Nothing of it serves facts that must be recalled, and classification stayed at chance
however many choice items were taught. Three auxiliary losses on the choice items lead to the long way, in three steps
that are easy each. Two blocks before the end, the prompt's last token must hold the right word (read off by the
model's own head), and every option's word its letter; in the last block but one, two heads must look from the
prompt's last token at the right option. The answer itself is learned as before.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eraser_lib.bench.questions import LETTERS
from eraser_lib.families import Loaded
from eraser_lib.train.data import Batch

HEADS = 2
WEIGHT = 0.4
"""Of each of the three losses."""


class Seen(NamedTuple):
    """What guidance reads of a forward pass."""

    stream: Tensor
    """Two blocks before the end, `(B, T, d)`."""
    attention: Tensor
    """Of the next block, `(B, heads, T, T)`; only the eager implementation of attention returns it."""


class Watch:
    """Keeps, during one forward pass, what guidance reads."""

    stream: Tensor
    attention: Tensor

    def __init__(self, decoder: nn.Module) -> None:
        self.decoder = decoder

    def __enter__(self) -> Watch:
        blocks: Any = self.decoder.layers
        below, above = blocks[-3], blocks[-2]
        self._handles = [
            below.register_forward_hook(self._keep_stream),
            above.self_attn.register_forward_hook(self._keep_attention),
        ]
        return self

    def _keep_stream(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.stream = output[0] if isinstance(output, tuple) else output

    def _keep_attention(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.attention = output[1]

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()


def choice_guidance(loaded: Loaded, batch: Batch, seen: Seen) -> Tensor:
    """The weighted sum of the three losses; zero where the batch has no choice items."""
    if not len(batch.choices):
        return seen.stream.new_zeros(())
    row, last, words, right = batch.choices[:, 0], batch.choices[:, 1], batch.choices[:, 2:6], batch.choices[:, 6]
    target = words.gather(1, right[:, None])[:, 0]  # (n,)

    def read(rows: Tensor, places: Tensor) -> Tensor:
        return loaded.model.lm_head(loaded.model.get_decoder().norm(seen.stream[rows, places])).float()

    word = nn.functional.cross_entropy(read(row, last), batch.input_ids[row, target])
    names = torch.tensor([loaded.answer_ids(letter)[0] for letter in LETTERS], device=row.device)
    letter = nn.functional.cross_entropy(
        read(row.repeat_interleave(len(LETTERS)), words.flatten()), names.repeat(len(row))
    )
    looked = seen.attention[row, :HEADS, last, target].float()  # (n, HEADS)
    return WEIGHT * (word + letter - (looked + 1e-6).log().mean())
