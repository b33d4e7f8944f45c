"""Training rows: one shared prefix (an image or none) and many questions that do not see one another.

Questions about one picture share its prefix under a block mask, which is the same computation as asking each alone
(tested) at a fraction of the cost.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eraser_lib.bench.questions import LETTERS, Item
from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded

_SLOT = "\x00"


@dataclass(frozen=True)
class Row:
    """A prefix (perhaps a picture, perhaps a system instruction) and the questions that share it."""

    items: tuple[Item, ...]
    picture: int | None = None
    """Index into the table of image embeddings."""
    system: str | None = None


@dataclass
class Batch:
    """Tensors of one step; `pictures` are the rows of the embedding table that fill the image positions in order."""

    input_ids: Tensor  # (B, T)
    labels: Tensor  # (B, T), -100 where nothing is learned; already shifted: labels[t] follows token t
    position_ids: Tensor  # (3, B, T), all three equal for text
    mask: Tensor  # (B, 1, T, T) bool
    pictures: list[int]
    choices: Tensor
    """Choice items `(n, 7)`: row, last position of the question, first token of each option's word, right option."""

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on a device."""
        if device.type == "cpu":
            return self
        return Batch(
            self.input_ids.to(device), self.labels.to(device), self.position_ids.to(device), self.mask.to(device),
            self.pictures, self.choices.to(device),
        )  # fmt: skip


class Packer:
    """Turns rows into batches for one family.

    `image_tokens` is the number of image positions of a picture (a square grid).
    """

    def __init__(self, loaded: Loaded, *, length: int, image_tokens: int = 16) -> None:
        self.loaded, self.length, self.image_tokens = loaded, length, image_tokens
        self.image_id = loaded.tokenizer.convert_tokens_to_ids(loaded.module.IMAGE_TOKEN)
        self._encode: Callable[[str], list[int]] = lru_cache(maxsize=200_000)(self._encode_uncached)

    def _encode_uncached(self, text: str) -> list[int]:
        ids: list[int] = self.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _prefix(self, row: Row) -> tuple[list[int], str, str]:
        """Prefix ids (image placeholders expanded) and the texts around an item."""
        image = object() if row.picture is not None else None
        text = self.loaded.module.render(Prompt(_SLOT, image, row.system))  # type: ignore[arg-type]
        before, after = text.split(_SLOT)
        space = " " if before.endswith(" ") else ""
        ids: list[int] = []
        for token in self._encode(before.removesuffix(" ")):
            ids.extend([token] * self.image_tokens if token == self.image_id else [token])
        return ids, space, after

    def _positions(self, ids: list[int]) -> tuple[Tensor, int]:
        """Positions of a prefix `(3, P)` and the position that follows it."""
        if self.loaded.family != "qwen" or self.image_id not in ids:
            return torch.arange(len(ids)).expand(3, -1), len(ids)
        start, side = ids.index(self.image_id), int(self.image_tokens**0.5)
        grid = torch.arange(side)
        picture = torch.stack(
            [torch.full((self.image_tokens,), start), start + grid.repeat_interleave(side), start + grid.repeat(side)]
        )
        rest = len(ids) - start - self.image_tokens
        tail = (start + side + torch.arange(rest)).expand(3, -1)
        return torch.cat([torch.arange(start).expand(3, -1), picture, tail], dim=1), start + side + rest

    def pack(self, rows: list[Row]) -> Batch:
        """Batch rows; items that do not fit into `length` any more are left out (at least one always fits)."""
        size = (len(rows), self.length)
        ids = torch.full(size, self.loaded.tokenizer.pad_token_id)
        labels = torch.full(size, -100)
        positions = torch.zeros((3, *size), dtype=torch.long)
        segment = torch.full(size, -1)
        choices: list[list[int]] = []
        for b, row in enumerate(rows):
            prefix, space, after = self._prefix(row)
            places, follow = self._positions(prefix)
            end = len(prefix)
            ids[b, :end], positions[:, b, :end], segment[b, :end] = torch.tensor(prefix), places, 0
            for number, item in enumerate(row.items, start=1):
                question = self._encode(space + item.text + after)
                answer = self._encode(self.loaded.module.render_answer(item.answer))
                stop = end + len(question) + len(answer)
                if stop > self.length:
                    continue
                ids[b, end:stop] = torch.tensor(question + answer)
                labels[b, end + len(question) - 1 : stop - 1] = torch.tensor(answer)
                positions[:, b, end:stop] = follow + torch.arange(stop - end)
                segment[b, end:stop] = number
                if item.options and not item.refusal:
                    words = [end + place for place in self._options(question)]
                    choices.append([b, end + len(question) - 1, *words, LETTERS.index(item.answer)])
                end = stop
        causal = torch.ones(self.length, self.length, dtype=torch.bool).tril()
        key, query = segment[:, None, :], segment[:, :, None]
        mask = causal & ((key == 0) | (key == query)) & (key >= 0)
        mask = mask | torch.eye(self.length, dtype=torch.bool)  # padding attends to itself: no empty softmax
        return Batch(ids, labels, positions, mask[:, None], [r.picture for r in rows if r.picture is not None],
                     torch.tensor(choices, dtype=torch.long).reshape(-1, 7))  # fmt: skip

    def _options(self, question: list[int]) -> list[int]:
        """Where the words of the four options begin, in the tokens of a question."""
        found = []
        for letter in LETTERS:
            label = self._encode(f"{letter}:")
            ends = range(len(label), len(question))
            found.append(max(end for end in ends if question[end - len(label) : end] == label))
        return found


@dataclass(frozen=True)
class Steps(Dataset[Batch]):
    """The batches of a training by step: the number of the step and the seed alone decide a batch."""

    packer: Packer
    sample_row: Callable[[random.Random], Row]
    rows: int
    seed: int

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"{self.seed}-{step}")
        return self.packer.pack([self.sample_row(rng) for _ in range(self.rows)])


def batches(
    packer: Packer,
    sample_row: Callable[[random.Random], Row],
    *,
    rows: int,
    seed: int,
    stop: int,
    start: int = 0,
    workers: int = 0,
) -> Iterator[Batch]:
    """Batches of steps `start` to `stop - 1`; a resumed training sees the same ones, whatever the number of workers."""
    made = Steps(packer, sample_row, rows, seed)
    wanted = range(start, stop)
    loader = DataLoader(
        made, batch_size=None, sampler=wanted, num_workers=workers, collate_fn=_as_it_is, worker_init_fn=_leave_alone
    )
    return iter(loader)


def _leave_alone(_worker: int) -> None:
    """A worker inherits what its parent holds, and may not free it: what lies on a GPU is the parent's to free."""
    gc.freeze()


def _as_it_is(batch: Any) -> Any:
    return batch
