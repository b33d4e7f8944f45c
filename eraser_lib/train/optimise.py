"""Optimisers shared by the vision and the language stages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def muon_and_adamw(
    matrices: Sequence[nn.Parameter], rest: Sequence[nn.Parameter], *, lr: float
) -> list[torch.optim.Optimizer]:
    """Muon at rate `lr` for hidden matrices, AdamW at `lr` / 2 for embeddings, heads, norms and biases.

    Muon needs about half the steps of AdamW here, which is what makes training on two cores bearable.
    """
    # on a CPU one matrix after the other is as fast, and the shipped models were made so
    muon = StackedMuon if matrices[0].is_cuda else torch.optim.Muon
    return [
        muon(list(matrices), lr=lr, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(list(rest), lr=lr / 2, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


class StackedMuon(torch.optim.Muon):
    """`torch.optim.Muon` with all matrices of one shape in one operation, for rates `match_rms_adamw`.

    The same step up to rounding. One matrix at a time is some 30 small operations each, for which a GPU waits.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; `closure`, if given, computes the loss again before it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                self._update(parameters, group, rate=0.2 * max(shape) ** 0.5 * group["lr"])
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any], *, rate: float) -> None:
        gradients: list[Any] = [parameter.grad for parameter in parameters]
        buffers = [
            self.state[one].setdefault("momentum_buffer", torch.zeros_like(gradient))
            for one, gradient in zip(parameters, gradients, strict=True)
        ]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, buffers, group["momentum"]) if group["nesterov"] else buffers
        update = _orthogonal(torch.stack(list(ahead)), group["ns_coefficients"], group["ns_steps"], group["eps"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(update.to(parameters[0].dtype).unbind()), alpha=-rate)


def _orthogonal(gradients: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton-Schulz iteration of Muon on a stack of matrices `(n, r, c)`, in bfloat16."""
    a, b, c = coefficients
    tall = gradients.shape[1] > gradients.shape[2]
    x = gradients.bfloat16()
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def scale_rates(optimisers: Sequence[torch.optim.Optimizer], bases: Sequence[float], factor: float) -> None:
    """Set every parameter group's rate to its base rate times `factor`."""
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    for group, base in zip(groups, bases, strict=True):
        group["lr"] = base * factor
