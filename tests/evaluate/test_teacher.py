from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from eraser_lib.bench.records import Prompt, Question
from eraser_lib.evaluate.teacher import continuation_logprobs, prefill
from eraser_lib.families.base import Loaded


def single_forward(loaded: Loaded, prompt: Prompt, answer: str) -> list[float]:
    """Oracle: one row, prompt and answer in one unpadded forward."""
    inputs = loaded.encode([prompt], [answer])
    labels = inputs.pop("labels")[0]
    with torch.no_grad():
        logprobs = torch.log_softmax(loaded.model(**inputs).logits[0].double(), dim=-1)
    where = (labels != -100).nonzero().flatten().tolist()
    return [float(logprobs[index - 1, labels[index]]) for index in where]


@contextmanager
def gate_at_last_prompt_token(model: nn.Module, *, scale: float) -> Iterator[list[Tensor]]:
    """A small eraser of its own: one decision per row at prefill, added at every position of later calls."""
    decisions: list[Tensor] = []
    layer = model.get_decoder().layers[0]
    direction = torch.linspace(-1, 1, 64, dtype=torch.float64)

    def steer(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object], output: Tensor) -> Tensor:
        if kwargs["past_key_values"].get_seq_length() == output.shape[1]:  # the cache has grown inside the block
            decisions[:] = [(output[:, -1] @ direction > 0).to(output)]
        return output + scale * decisions[0][:, None, None] * direction

    handle = layer.register_forward_hook(steer, with_kwargs=True)
    try:
        yield decisions
    finally:
        handle.remove()


def pairs(questions: Sequence[Question]) -> tuple[list[Prompt], list[str]]:
    return [q.prompt for q in questions], [q.answer for q in questions]


@pytest.mark.parametrize("stepwise", [False, True])
def test_equals_the_single_forward(loaded: Loaded, questions: list[Question], stepwise: bool) -> None:
    prompts, answers = pairs(questions)
    state = prefill(loaded.model, loaded.encode(prompts))
    found = continuation_logprobs(state, [loaded.answer_ids(answer) for answer in answers], stepwise=stepwise)
    for prompt, answer, row in zip(prompts, answers, found, strict=True):
        assert row == pytest.approx(single_forward(loaded, prompt, answer), rel=1e-9)


def test_one_prefill_serves_several_continuations(loaded: Loaded, questions: list[Question]) -> None:
    prompts, answers = pairs(questions)
    state = prefill(loaded.model, loaded.encode(prompts))
    long = [loaded.answer_ids(answer) for answer in answers]
    before = continuation_logprobs(state, long)
    continuation_logprobs(state, [loaded.answer_ids("a fox is the pet of Anna")] * len(prompts))
    continuation_logprobs(state, [ids[:1] for ids in long])
    assert continuation_logprobs(state, long) == before


def test_empty_continuations(loaded: Loaded, questions: list[Question]) -> None:
    state = prefill(loaded.model, loaded.encode([q.prompt for q in questions[:2]]))
    assert continuation_logprobs(state, [[], []]) == [[], []]
    ids = loaded.answer_ids("cat")
    assert [len(row) for row in continuation_logprobs(state, [ids, []])] == [len(ids), 0]


def test_scores_what_steered_generation_sees(loaded: Loaded, questions: list[Question]) -> None:
    """The greedy token of steered generation is the most likely one of the steered scores, at each step."""
    prompts = [q.prompt for q in questions]
    inputs = loaded.encode(prompts)
    width = inputs["input_ids"].shape[1]
    with gate_at_last_prompt_token(loaded.model, scale=2.0) as decisions:
        out = loaded.model.generate(
            **inputs, do_sample=False, max_new_tokens=6, min_new_tokens=6,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        opened = decisions[0].clone()
        state = prefill(loaded.model, inputs)
        assert torch.equal(decisions[0], opened)
        found = continuation_logprobs(state, out.sequences[:, width:].tolist())
        steps = continuation_logprobs(state, out.sequences[:, width:].tolist(), stepwise=True)
    seen = torch.stack([torch.log_softmax(step.double(), -1) for step in out.logits], dim=1)  # (B, A, V)
    wanted = seen.gather(-1, out.sequences[:, width:, None]).squeeze(-1)
    # generate hands out float32 logits
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.tensor(steps), torch.tensor(found), rtol=1e-6, atol=1e-6)
    assert 0 < opened.sum() < len(prompts), "the test needs open and closed rows"


def test_right_padding_and_wrong_counts_are_refused(loaded: Loaded, questions: list[Question]) -> None:
    prompts = [q.prompt for q in questions]
    with pytest.raises(ValueError, match="padded on the left"):
        prefill(loaded.model, loaded.encode(prompts, padding_side="right"))
    state = prefill(loaded.model, loaded.encode(prompts[:2]))
    with pytest.raises(ValueError, match="one continuation for each of the 2"):
        continuation_logprobs(state, [[1]])
