"""LoRA: any loss trained through low-rank adapters instead of the weights, as is usual for models of billions.

Every linear map of the language decoder gets an adapter, W + (alpha / r) B A with B = 0 at first, so that a training
starts at vanilla. The adapters are those of ``peft``. Source: arXiv 2106.09685.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eraser_lib.baselines.training import Loss
from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded
from eraser_lib.families.adapters import decoder_maps


@dataclass(frozen=True)
class LowRank(Loss):
    """A loss whose adapters are trained and whose weights stay.

    Raises:
        ValueError: the rank is not positive, or the method is no plain loss: RMU and MMUnlearner pick single weights,
            which an adapter does not have.
    """

    loss: Loss
    rank: int = 8
    scale: float = 2.0
    """alpha / r, by which an adapter's output is multiplied."""

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise ValueError(
                f"{self.loss.name} chooses single weights to train, so it has no form with LoRA; set lora to 0"
            )
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; a LoRA adapter needs at least 1")

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the method."""
        return self.loss.name

    def parameters(self, model: Any) -> list[nn.Parameter]:
        """Give the model its adapters, the same ones at every call, and return their weights."""
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(
            r=self.rank, lora_alpha=self.scale * self.rank, target_modules=decoder_maps(model)  # type: ignore[arg-type]
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            inject_adapter_in_model(config, model)
        return [parameter for name, parameter in model.named_parameters() if "lora_" in name]

    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""
        return self.loss.terms(model, vanilla, gone, kept)
