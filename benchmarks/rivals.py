"""Everything that is timed: our eraser in its modes, the two dense forms, steering libraries, and a bare hook.

Each entry gives a context manager that steers a model while it is open, or gives a way `Through` a library that steers
what passes through it. The vectors are random: arithmetic takes the same time on any of them.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eraser_lib import Eraser, HookSite, find_decoder
from eraser_lib.gate import Gate

Attach = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Through:
    """A library that leaves the model alone, and steers the calls that are made through it.

    Its hooks go on and off with every call, which is what its users pay for a prefill. A decoding loop of one's own is
    no way to use it, so that none is timed.
    """

    call: Callable[..., Any]
    """Takes what the model takes, and returns what it returns."""


SMALL = 1e-3
"""Length of the vectors, so that nothing overflows through many blocks."""


def erasers(model: Any, count: int) -> dict[str, Eraser]:
    """Our eraser in its modes, each steering the first `count` blocks with the same vectors."""
    decoder = find_decoder(model)
    size = decoder.hidden_size
    steered = {HookSite(block): vector[None] for block, vector in enumerate(_vectors(size, count))}
    decision = HookSite(decision_block(count, len(decoder.layers)))
    gate = Gate(_vectors(size, 1, seed=1), torch.zeros(1))
    closed, opened = gate.with_threshold(float("inf")), gate.with_threshold(float("-inf"))
    return {
        "eraser": Eraser(directions=steered, gates={decision: closed}),
        "eraser (opened)": Eraser(directions=steered, gates={decision: opened}),
        "eraser (one pass)": Eraser(directions=steered, gates={HookSite(0): opened}, mode="gated"),
        "eraser (published form)": Eraser(directions=steered, gates=dict.fromkeys(steered, gate), mode="published"),
        "eraser (constant)": Eraser(directions=steered, mode="constant", scope="prompt+generation"),
    }


def requests(model: Any, count: int, people: int) -> Eraser:
    """The two-pass form with a request for each of so many people, as it is stored: a gate and directions for each."""
    decoder = find_decoder(model)
    site = HookSite(decision_block(count, len(decoder.layers)))
    directions = {HookSite(block): _vectors(decoder.hidden_size, people, seed=block) for block in range(count)}
    gate = Gate(_vectors(decoder.hidden_size, people, seed=1), torch.zeros(people)).with_threshold(float("inf"))
    return Eraser(directions=directions, gates={site: gate})


def decision_block(count: int, depth: int) -> int:
    """Where the gate of the two-pass form is read: at three quarters of the depth, or behind the last steered block
    where that is later."""
    return max(count - 1, 3 * depth // 4)


def rivals(model: Any, count: int) -> dict[str, Attach]:
    """Method -> context that steers the first `count` blocks while it is open. Libraries that are not installed are
    left out."""
    decoder = find_decoder(model)
    blocks = range(count)
    vectors = _vectors(decoder.hidden_size, count)
    found: dict[str, Attach] = {"unsteered": nullcontext, "unsteered (again)": nullcontext}
    found |= {name: _attach(eraser, model) for name, eraser in erasers(model, count).items()}
    weight = next(model.parameters())
    for name, per_token in zip(DENSE, (False, True), strict=True):
        found[name] = functools.partial(_dense, decoder.layers, blocks, weight, per_token=per_token)
    found["bare hook"] = lambda: _bare(decoder.layers, blocks, vectors.to(weight))
    absent = missing()
    for name, steered in PEERS.items():
        if name not in absent:
            found[name] = functools.partial(steered, model, decoder.module, blocks, vectors.to(weight))
    return found


def _vectors(size: int, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return SMALL * torch.randn(count, size, generator=generator)


def _attach(eraser: Eraser, model: Any) -> Attach:
    return lambda: eraser.attach(model)


@contextmanager
def _hooks(layers: nn.ModuleList, blocks: Sequence[int], make: Callable[[int], Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            handle = layers[block].register_forward_hook(make(number))
            stack.callback(handle.remove)
        yield


@contextmanager
def _bare(layers: nn.ModuleList, blocks: Sequence[int], vectors: Tensor) -> Iterator[None]:
    """The least that a hook can do: add a vector to every token."""
    with _hooks(layers, blocks, lambda number: lambda _, __, output: output + vectors[number]):
        yield


@contextmanager
def _dense(layers: nn.ModuleList, blocks: Sequence[int], like: Tensor, *, per_token: bool) -> Iterator[None]:
    """`h + W h` with a `d x d` matrix per block: at every token (AlphaSteer), or from the last prompt token, added to
    every position of a prefill (the public code of MLLMEraser)."""
    size: Any = layers[0].mlp.down_proj.out_features  # type: ignore[union-attr]
    # drawn where they are used: those of all blocks of a 7B model are half a billion numbers, seconds on a CPU
    generator = torch.Generator(like.device).manual_seed(2)
    matrices = [
        (SMALL * torch.randn(size, size, generator=generator, device=like.device)).to(like.dtype) for _ in blocks
    ]

    def make(number: int) -> Any:
        def every(_: nn.Module, __: Any, stream: Tensor) -> Tensor:
            return stream + stream @ matrices[number].T

        def last(_: nn.Module, __: Any, stream: Tensor) -> Tensor | None:
            if stream.shape[1] == 1:
                return None
            return stream + (stream[:, -1] @ matrices[number].T)[:, None]

        return every if per_token else last

    with _hooks(layers, blocks, make):
        yield


@contextmanager
def _steering_vectors(model: Any, decoder: nn.Module, blocks: Sequence[int], vectors: Tensor) -> Iterator[None]:
    from steering_vectors import SteeringVector

    vector = SteeringVector(layer_activations=dict(zip(blocks, vectors, strict=True)))
    # its own guess finds the vision tower of Qwen2.5-VL
    with vector.apply(model, layer_config={"decoder_block": f"{_path(model, decoder)}.layers.{{num}}"}):
        yield


def _path(model: Any, module: nn.Module) -> str:
    return str(next(name for name, found in model.named_modules() if found is module))


@contextmanager
def _pyvene(model: Any, decoder: nn.Module, blocks: Sequence[int], vectors: Tensor) -> Iterator[Through]:
    import pyvene

    prefix = _path(model, decoder)
    added = [
        {
            "component": f"{prefix}.layers[{block}].output",
            "intervention": pyvene.AdditionIntervention(source_representation=vector, embed_dim=vector.shape[0]),
        }
        for block, vector in zip(blocks, vectors, strict=True)
    ]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steered = pyvene.IntervenableModel(added, model=model)
    for parameter in learning:  # it freezes the model for good, and PyTorch multiplies by other kernels then
        parameter.requires_grad_(True)
    yield Through(lambda **inputs: steered(inputs)[1])


@contextmanager
def _nnsight(model: Any, decoder: nn.Module, blocks: Sequence[int], vectors: Tensor) -> Iterator[Through]:
    from nnsight import NNsight

    net = NNsight(model)
    prefix = _path(model, decoder).split(".")
    with net.edit() as (_, edited):
        inner = edited
        for part in prefix:
            inner = getattr(inner, part)
        for block, vector in zip(blocks, vectors, strict=True):
            inner.layers[block].output[:] = inner.layers[block].output + vector

    def call(**inputs: Any) -> Any:
        with edited.trace(**inputs):
            found = edited.output.save()
        return found

    yield Through(call)


@contextmanager
def _repeng(_: Any, decoder: nn.Module, blocks: Sequence[int], vectors: Tensor) -> Iterator[None]:
    import numpy

    if not hasattr(numpy, "float_"):
        numpy.float_ = numpy.float64  # type: ignore[attr-defined]  # repeng 0.4.0 still names it
    from repeng import ControlModel

    class Textual(nn.Module):
        """What repeng expects of a text model: its blocks at `.model.layers`."""

        def __init__(self) -> None:
            super().__init__()
            self.model = decoder

    wrapped = ControlModel(Textual(), blocks)
    try:
        wrapped.set_raw_control(dict(zip(blocks, vectors, strict=True)))
        yield
    finally:
        wrapped.unwrap()


PEERS: dict[str, Callable[..., AbstractContextManager[Any]]] = {
    "steering-vectors": _steering_vectors, "repeng": _repeng, "pyvene": _pyvene, "nnsight": _nnsight,
}  # fmt: skip
"""Libraries that are compared where they are installed."""


def missing() -> list[str]:
    """Those that are not installed."""
    return [name for name in PEERS if not importlib.util.find_spec(name.replace("-", "_"))]


ALIKE = ("eraser (constant)", "bare hook", *PEERS)
"""Methods that add the same constant vectors to every token: their logits must agree before times are compared."""

DENSE = ("dense, last token", "dense, every token")
"""The two forms with a `d x d` matrix per block."""
GATED = ("eraser", "eraser (opened)", "eraser (one pass)", "eraser (published form)")
"""Ours that ask before they add, as a dense form does by its matrix."""
