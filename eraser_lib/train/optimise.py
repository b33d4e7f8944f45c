"""Optimisers shared by the vision and the language stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def muon_and_adamw(
    matrices: Sequence[nn.Parameter], rest: Sequence[nn.Parameter], *, lr: float
) -> list[torch.optim.Optimizer]:
    """Muon at rate `lr` for hidden matrices, AdamW at `lr` / 2 for embeddings, heads, norms and biases.

    Muon needs about half the steps of AdamW here, which is what makes training on two cores bearable.
    """
    return [
        torch.optim.Muon(list(matrices), lr=lr, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(list(rest), lr=lr / 2, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def scale_rates(optimisers: Sequence[torch.optim.Optimizer], bases: Sequence[float], factor: float) -> None:
    """Set every parameter group's rate to its base rate times `factor`."""
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    for group, base in zip(groups, bases, strict=True):
        group["lr"] = base * factor
