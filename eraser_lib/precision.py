"""Numbers that must not be rounded: autocast would lower a float32 product to bfloat16, and its result looks wide."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def exact(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products on the device keep their precision, whatever autocast surrounds it."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
