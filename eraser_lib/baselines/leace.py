"""LEACE: remove, by one affine map, every linear trace of "this is a forgotten person" from the residual stream.

The least-squares map after which no linear classifier can tell the labels apart, in closed form (arXiv 2306.03819; the
package ``concept-erasure``). What has to be stated, because it decides what the method does here: the *label* is either
"forgotten or not" (rank 1), which forgotten person it is, if any (rank k), or which person in which kind of prompt,
with a picture or without (rank 2k). The map is *fitted* on the stream at the last prompt token of forget and retain
rows, at the output of one block or, each on the unsteered stream, of several. It is *applied* where the answer is made
(the last prompt token and every generated one) or at every position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from concept_erasure import LeaceEraser
from torch import Tensor

from eraser_lib.hooks import edit
from eraser_lib.sites import HookSite

Label: TypeAlias = Literal["forget", "person", "kind"]


class Scrubbing:
    """The handle of attached maps: says where a prompt begins, as an eraser's handle does."""

    def __init__(self, maps: Mapping[HookSite, LeaceEraser], everywhere: bool) -> None:
        self.maps, self.everywhere = maps, everywhere
        self._placed: dict[tuple[HookSite, torch.device], LeaceEraser] = {}
        self._fresh: set[HookSite] = set(maps)

    def new_prompt(self) -> None:
        """The next call of the model reads a new prompt; later calls continue it."""
        self._fresh = set(self.maps)

    def edit_at(self, site: HookSite) -> Any:
        """The edit of one site, for prompts that are padded on the left."""

        def apply(stream: Tensor) -> Tensor:
            prompt = site in self._fresh
            self._fresh.discard(site)
            if self.everywhere or not prompt:
                return self._mapped(site, stream)
            return torch.cat([stream[:, :-1], self._mapped(site, stream[:, -1:])], dim=1)

        return apply

    def _mapped(self, site: HookSite, stream: Tensor) -> Tensor:
        key = (site, stream.device)
        if key not in self._placed:  # they are fitted where the activations are kept
            fitted = self.maps[site]
            parts = (fitted.proj_left, fitted.proj_right, fitted.bias)
            self._placed[key] = LeaceEraser(*(None if part is None else part.to(stream.device) for part in parts))
        changed: Tensor = self._placed[key](stream.to(torch.promote_types(stream.dtype, torch.float32)))
        return changed.to(stream.dtype)


@dataclass(frozen=True)
class Scrubber:
    """Fitted maps, one per site."""

    maps: Mapping[HookSite, LeaceEraser]
    everywhere: bool

    @contextmanager
    def attach(self, model: Any) -> Iterator[Scrubbing]:
        """Map the residual stream while the context is open; one context per batch, or `new_prompt` between."""
        handle = Scrubbing(self.maps, self.everywhere)
        with edit(model, {site: handle.edit_at(site) for site in self.maps}):
            yield handle

    @property
    def bytes(self) -> int:
        """Bytes of the factors and offsets, as float32."""
        return 4 * sum(
            m.proj_left.numel() + m.proj_right.numel() + (0 if m.bias is None else m.bias.numel())
            for m in self.maps.values()
        )


@dataclass(frozen=True)
class Leace:
    """What is erased, and where."""

    layers: tuple[int, ...]
    """Blocks whose outputs are mapped."""
    label: Label = "forget"
    everywhere: bool = False
    """Every position instead of the last prompt token and what is generated."""
    name = "leace"

    def fit(
        self, forget: Mapping[HookSite, Tensor], retain: Mapping[HookSite, Tensor], people: Sequence[str]
    ) -> Scrubber:
        """Fit the maps on activations `(N, d)` and `(M, d)` per site.

        `people`: N names of who is asked about, which for the label `kind` also say in which kind of prompt.

        Raises:
            ValueError: there is not one name per forget row.
        """
        names = list(dict.fromkeys(people))
        columns = {name: 0 if self.label == "forget" else number for number, name in enumerate(names)}
        maps = {}
        for layer in self.layers:
            site = HookSite(layer, "output")
            gone, kept = forget[site].double(), retain[site].double()
            if len(people) != len(gone):
                raise ValueError(f"LEACE needs a name per forget row; there are {len(people)} for {len(gone)} rows")
            label = torch.zeros(len(gone) + len(kept), 1 + max(columns.values()), dtype=torch.float64)
            label[torch.arange(len(gone)), torch.tensor([columns[name] for name in people])] = 1
            found = LeaceEraser.fit(torch.cat([gone, kept]), label)
            bias = None if found.bias is None else found.bias.float()
            maps[site] = LeaceEraser(found.proj_left.float(), found.proj_right.float(), bias)
        return Scrubber(maps, self.everywhere)
