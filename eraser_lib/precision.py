"""Numbers that must not be rounded, and where they are worked out.

Autocast would lower a float32 product to bfloat16, and its result looks wide.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

WIDE = 512
"""Streams at least this wide are worth a GPU: the algebra of a gate grows with the cube of the width, and is repeated
for every request."""


def workbench(width: int) -> torch.device:
    """Where gates and detectors on streams of this width are fitted: on a GPU where there is one and they are wide."""
    return torch.device("cuda" if width >= WIDE and torch.cuda.is_available() else "cpu")


def exact(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products on the device keep their precision, whatever autocast surrounds it."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
