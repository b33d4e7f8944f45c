"""MANU: zero the MLP neurons that matter to forgotten people more than to retained ones. Needs no training.

A neuron's importance on a data set compares its activation z on questions with pictures (m) and on text alone (t):
I = I_abs + I_freq + I_var + I_rms, with I_abs = |Zm - Zt| / (Zm + Zt + e), Z = mean |z|;
I_freq = |Nm - Nt| / (Nm + Nt + e), N = share of tokens with |z| > tau; I_var = sqrt(Vm + Vt), V the variance;
I_rms = sqrt(|Em - Et| / (Em + Et + e)), E = mean z^2.
Neurons with the largest I(forget) / (I(retain) + e) are cut, a share of all blocks together.

Prompts with pictures are much longer: sums over tokens would favour what image tokens do, so Z, N, E and V are per
token and each term is divided by its mean within a block. ``raw=True`` is the form with sums, as it is usually
written. Source: arXiv 2502.15910.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded
from eraser_lib.sites import find_decoder

EPS = 1e-8


@dataclass(frozen=True)
class Activity:
    """What the neurons of one block do on one kind of prompt: sums over tokens, each `(neurons,)`."""

    absolute: Tensor
    frequent: Tensor
    square: Tensor
    plain: Tensor
    tokens: int

    def __add__(self, other: Activity) -> Activity:
        return Activity(
            self.absolute + other.absolute, self.frequent + other.frequent, self.square + other.square,
            self.plain + other.plain, self.tokens + other.tokens,
        )  # fmt: skip

    @staticmethod
    def of(values: Tensor, tau: float) -> Activity:
        """Of activations `(tokens, neurons)`."""
        z = values.double()
        return Activity(z.abs().sum(0), (z.abs() > tau).double().sum(0), z.square().sum(0), z.sum(0), len(z))


def importance(pictures: Activity, text: Activity, *, raw: bool = False) -> Tensor:
    """Importance of the neurons of one block, `(neurons,)`."""
    m, t = pictures, text
    counts = (1, 1) if raw else (m.tokens, t.tokens)
    (zm, zt), (nm, nt), (em, et) = (
        (first / counts[0], second / counts[1])
        for first, second in ((m.absolute, t.absolute), (m.frequent, t.frequent), (m.square, t.square))
    )
    variances = [a.square / a.tokens - (a.plain / a.tokens).square() for a in (m, t)]
    terms = [
        (zm - zt).abs() / (zm + zt + EPS),
        (nm - nt).abs() / (nm + nt + EPS),
        (variances[0] + variances[1]).clamp_min(0).sqrt(),
        ((em - et).abs() / (em + et + EPS)).sqrt(),
    ]
    return torch.stack(terms if raw else [term / (term.mean() + EPS) for term in terms]).sum(0)


def activity(loaded: Loaded, rows: Sequence[Question], *, tau: float, batch: int = 32) -> list[Activity]:
    """What the MLP neurons of every block do at the real tokens of questions with their answers."""
    blocks: Any = find_decoder(loaded.model).layers
    found: list[Activity | None] = [None] * len(blocks)
    real: list[Tensor] = []
    handles = []
    for number, block in enumerate(blocks):

        def keep(_: object, args: tuple[Tensor, ...], number: int = number) -> None:
            new = Activity.of(args[0][real[0]], tau)
            before = found[number]
            found[number] = new if before is None else before + new

        handles.append(block.mlp.down_proj.register_forward_pre_hook(keep))
    try:
        for start in range(0, len(rows), batch):
            chunk = rows[start : start + batch]
            inputs = loaded.encode([row.prompt for row in chunk], [row.answer for row in chunk])
            inputs.pop("labels")
            real[:] = [inputs["attention_mask"].bool()]
            with torch.no_grad():
                loaded.model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return [each for each in found if each is not None]


Measured = tuple[list[tuple[Activity, Activity]], list[tuple[Activity, Activity]]]
"""Of forget and of retain rows: per block, what its neurons do on pictures and on text alone."""


@dataclass(frozen=True)
class Pruned:
    """A changed copy of the model and what it cost."""

    loaded: Loaded
    seconds: float
    cut: list[list[int]]
    """Neurons that were zeroed, per block."""


@dataclass(frozen=True)
class Manu:
    """Neuron pruning."""

    share: float = 0.05
    """Share of all MLP neurons that is cut."""
    tau: float = 0.1
    """From where on a neuron counts as active."""
    raw: bool = False
    """Sums over tokens and no standardising."""
    name = "manu"

    def measure(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Measured:
        """What the neurons do on pictures and on text alone, of forget and of retain rows.

        Raises:
            ValueError: the forget or the retain rows lack questions with pictures, or questions without.
        """
        found = []
        for name, rows in (("forget", forget), ("retain", retain)):
            kinds = [[row for row in rows if row.modality == kind] for kind in ("vqa", "qa")]
            if not all(kinds):
                raise ValueError(f"MANU needs {name} questions with pictures and without; found only one kind")
            pictures, text = (activity(loaded, kind, tau=self.tau) for kind in kinds)
            found.append(list(zip(pictures, text, strict=True)))
        return found[0], found[1]

    def cut(self, loaded: Loaded, measured: Measured) -> Pruned:
        """Zero the neurons in a copy of the model; the model given is not changed."""
        began = time.perf_counter()
        gone, kept = ([importance(m, t, raw=self.raw) for m, t in blocks] for blocks in measured)
        ratios = [forget / (retain + EPS) for forget, retain in zip(gone, kept, strict=True)]
        count = round(self.share * sum(map(len, ratios)))
        top = torch.cat(ratios).topk(count).indices.tolist()
        model = copy.deepcopy(loaded.model)
        cut, start = [], 0
        blocks: Any = find_decoder(model).layers
        for block, ratio in zip(blocks, ratios, strict=True):
            mine = sorted(index - start for index in top if start <= index < start + len(ratio))
            with torch.no_grad():
                block.mlp.down_proj.weight[:, mine] = 0
            cut.append(mine)
            start += len(ratio)
        return Pruned(Loaded(model, loaded.processor, loaded.family), time.perf_counter() - began, cut)

    def fit(self, loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question]) -> Pruned:
        """`measure` and `cut`; the seconds are those of both."""
        began = time.perf_counter()
        pruned = self.cut(loaded, self.measure(loaded, forget, retain))
        return replace(pruned, seconds=time.perf_counter() - began)
