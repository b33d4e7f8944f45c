"""Muon for all matrices of a shape at once takes the steps of torch's, one matrix after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eraser_lib.train.optimise import StackedMuon, muon_and_adamw

SHAPES = ((48, 48), (48, 48), (96, 48), (48, 96), (48, 48))


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


@pytest.mark.parametrize("nesterov", [True, False])
def test_stacked_steps_are_those_of_torch(nesterov: bool) -> None:
    ours, theirs, start = matrices(), matrices(), matrices()
    options = {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    stacked = StackedMuon(ours, adjust_lr_fn="match_rms_adamw", **options)
    single = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(pair[0].shape, generator=generator) if (step, number) != (2, 0) else None
            for parameter in pair:  # one without a gradient is left where it is
                parameter.grad = None if gradient is None else gradient.clone()
        stacked.step()
        single.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        # both iterate in bfloat16, and sum in another order
        assert (one - other).norm() < 0.01 * (other - before).norm()
        assert torch.equal(stacked.state[one]["momentum_buffer"], single.state[other]["momentum_buffer"])


def test_a_state_of_torch_goes_on_stacked() -> None:
    ours, theirs = matrices(), matrices()
    single = torch.optim.Muon(theirs, lr=0.05, adjust_lr_fn="match_rms_adamw")
    for parameter in theirs:
        parameter.grad = torch.ones_like(parameter)
    single.step()
    stacked = StackedMuon(ours, lr=0.05, adjust_lr_fn="match_rms_adamw")
    stacked.load_state_dict(single.state_dict())
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(stacked.state[one]["momentum_buffer"], single.state[other]["momentum_buffer"])


def test_on_a_cpu_the_shipped_models_are_made_by_torch_itself() -> None:
    muon, _ = muon_and_adamw(matrices(), [nn.Parameter(torch.zeros(3))], lr=0.01)
    assert type(muon) is torch.optim.Muon
