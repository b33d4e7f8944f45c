"""Log-probabilities of given answers, under exactly the steering that a generated answer would see.

The prompt is read in one prefill (a gate decides there, at the last prompt token) and the answer follows as a
decode on the same cache. A single forward over prompt and answer would move the last prompt token, and a gate
that decides there would look at the answer instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


@dataclass
class Prefill:
    """A model that has read a batch of left-padded prompts and can be asked for several continuations."""

    model: Any
    mask: Tensor
    """Attention mask of the prompts, shape `(B, T)`."""
    next_position: Tensor
    """Position of the first token after the prompt, `(B, 1)`, or with the axis of M-RoPE `(4, B, 1)`."""
    cache: Any
    first: Tensor
    """Log-probabilities of the first answer token, shape `(B, vocabulary)`, float32 or wider, in nats."""


def prefill(model: Any, inputs: dict[str, Tensor]) -> Prefill:
    """Read a batch of prompts the way `model.generate` does.

    Args:
        model: a causal model of `transformers`; whatever is attached to it acts.
        inputs: model inputs with `input_ids` and `attention_mask` of shape `(B, T)`, padded on the left.

    Raises:
        ValueError: a row ends with padding.
    """
    mask = inputs["attention_mask"]
    if not bool(mask[:, -1].all()):
        raise ValueError("prompts must be padded on the left to be continued; found a row that ends with padding")
    # The model's own preparation for generation: positions that skip the padding, and M-RoPE for images.
    positions = model._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    with torch.no_grad():
        out = model(**inputs, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Prefill(
        model=model,
        mask=mask,
        next_position=positions[..., -1:] + 1,
        cache=out.past_key_values,
        first=_log_softmax(out.logits[:, -1]),
    )


def continuation_logprobs(
    state: Prefill, answers: Sequence[Sequence[int]], *, stepwise: bool = False
) -> list[list[float]]:
    """Log-probability of each token of one continuation per row.

    Args:
        state: what `prefill` returned; it can be used again afterwards.
        answers: token ids of each row's continuation, of any length (0 gives an empty list), B rows.
        stepwise: feed one token per call, as generation does. Slower; needed only for steering rules that
            take the length of a call for the clock.

    Returns:
        One list of log-probabilities in nats per row, as long as its continuation.

    Raises:
        ValueError: the number of continuations is not B.
    """
    batch = state.mask.shape[0]
    if len(answers) != batch:
        raise ValueError(f"expected one continuation for each of the {batch} prompts; found {len(answers)}")
    longest = max((len(answer) for answer in answers), default=0)
    if longest == 0:
        return [[] for _ in answers]
    ids = torch.zeros(batch, longest, dtype=torch.long)  # (B, A); the fill is masked and comes last
    valid = torch.zeros(batch, longest, dtype=state.mask.dtype)
    for row, answer in enumerate(answers):
        ids[row, : len(answer)] = torch.tensor(list(answer), dtype=torch.long)
        valid[row, : len(answer)] = 1
    ids, valid = ids.to(state.mask.device), valid.to(state.mask.device)
    logprobs = [state.first.gather(1, ids[:, :1])]  # (B, 1)
    if longest > 1:
        logprobs.append(_decode(state, ids, valid, step=1 if stepwise else longest - 1))
    rows = torch.cat(logprobs, dim=1).tolist()
    return [row[: len(answer)] for row, answer in zip(rows, answers, strict=True)]


def _decode(state: Prefill, ids: Tensor, valid: Tensor, *, step: int) -> Tensor:
    """Log-probabilities of all tokens but the first, shape (B, A - 1); the cache is cut back afterwards."""
    fed = 0
    found = []
    last = ids.shape[1] - 1
    try:
        while fed < last:
            stop = min(fed + step, last)
            offset = torch.arange(fed, stop, device=ids.device)
            with torch.no_grad():
                out = state.model(
                    input_ids=ids[:, fed:stop],
                    attention_mask=torch.cat([state.mask, valid[:, :stop]], dim=1),
                    position_ids=state.next_position + offset,
                    past_key_values=state.cache,
                    use_cache=True,
                )
            targets = ids[:, fed + 1 : stop + 1].unsqueeze(-1)
            found.append(_log_softmax(out.logits).gather(-1, targets).squeeze(-1))
            fed = stop
    finally:
        state.cache.crop(-(state.cache.get_seq_length() - state.mask.shape[1]))
    return torch.cat(found, dim=1)


def _log_softmax(logits: Tensor) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide, dim=-1)
