"""Evaluation under the real eraser: what is scored is what steered generation sees, in every mode."""

from __future__ import annotations

import pytest
import torch

from eraser_lib.bench.records import Question
from eraser_lib.eraser import Eraser
from eraser_lib.evaluate.generate import evaluate
from eraser_lib.evaluate.session import Session
from eraser_lib.families.base import Loaded
from eraser_lib.gate import Gate
from eraser_lib.sites import HookSite

EARLY, LATE = HookSite(0), HookSite(1)


def eraser_of(mode: str, threshold: float) -> Eraser:
    generator = torch.Generator().manual_seed(3)
    direction, weight = torch.randn(2, 1, 64, generator=generator)
    gate = Gate(weight, torch.zeros(1))
    if mode == "constant":
        return Eraser({EARLY: direction}, mode="constant", scope="prompt+generation", strength=2.0)
    if mode == "published":
        return Eraser({EARLY: direction}, {EARLY: gate}, mode="published", strength=0.5)
    return Eraser(
        {EARLY: direction}, {LATE: gate.with_threshold(threshold)}, mode="two_pass", scope="prompt+generation",
        strength=2.0,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["two_pass", "constant", "published"])
def test_scores_equal_the_logits_of_steered_generation(
    loaded: Loaded, questions: list[Question], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take what steered generation says for the ground truth: its scored log-probability must be generation's own."""
    gates = Eraser({EARLY: torch.zeros(1, 64)}, eraser_of("two_pass", 0.0).gates, mode="two_pass")
    values = evaluate(loaded, questions, context=lambda: gates.attach(loaded.model), max_new_tokens=1, forced=False)[
        "gate_value"
    ]
    eraser = eraser_of(mode, float(values.median()))
    inputs = loaded.encode([question.prompt for question in questions])
    with eraser.attach(loaded.model) as handle:
        out = loaded.model.generate(
            **inputs, do_sample=False, max_new_tokens=5, min_new_tokens=5,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        opened = handle.opened.tolist()
    said = out.sequences[:, inputs["input_ids"].shape[1] :]
    steps = torch.stack([torch.log_softmax(step.double(), -1) for step in out.logits], dim=1)
    wanted = steps.gather(-1, said[..., None]).squeeze(-1).sum(dim=1).tolist()
    tokens = {question.answer + question.id: row.tolist() for question, row in zip(questions, said, strict=True)}

    taught = [
        Question(**{**vars(question), "answer": question.answer + question.id, "options": (), "task": "cloze"})
        for question in questions
    ]
    monkeypatch.setattr(Session, "_ids", lambda self, answer: tokens.get(answer, [0]))
    log = evaluate(loaded, taught, context=lambda: eraser.attach(loaded.model), max_new_tokens=5, batch_size=18)
    assert log["answer_logprob"].tolist() == pytest.approx(wanted, rel=1e-5)
    assert log["opened"].tolist() == opened
    if mode == "two_pass":
        assert 0 < sum(opened) < len(opened), "the test needs open and closed rows"
