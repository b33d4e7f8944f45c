"""Peak memory counted, not trusted: every tensor that torch makes, from its birth to its death."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while the context is open, as long as they live.

    Views share the memory of what they look at and count once. Tensors made before the context count nothing, so a
    model's weights stay out. Works on every device, also where the allocator tells nothing (the CPU).
    """

    def __init__(self, device: str | None = None) -> None:
        """`device`: count the tensors of devices of this type alone, such as `cuda`; by default all."""
        super().__init__()
        self._device = device
        self.now = 0
        """Bytes alive at present."""
        self.peak = 0
        """The most that were alive at once."""
        self.largest = 0
        """Bytes of the largest single tensor."""
        self._holders: dict[int, int] = {}
        self._before: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and note what came out of it."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and _memory(leaf) not in self._holders:
                # kept, or a tensor that is made later could get its address and pass for it
                self._before[_memory(leaf)] = leaf.untyped_storage()
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return out

    def _note(self, tensor: Tensor) -> None:
        key, size = _memory(tensor), tensor.untyped_storage().nbytes()
        if key in self._before or self._device not in (None, tensor.device.type):
            return
        if key not in self._holders:
            self.now += size
            self.peak, self.largest = max(self.peak, self.now), max(self.largest, size)
        self._holders[key] = self._holders.get(key, 0) + 1
        weakref.finalize(tensor, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.now -= size


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
