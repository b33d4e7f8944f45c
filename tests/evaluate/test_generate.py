from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from eraser_lib.bench.records import Prompt, Question, Stored
from eraser_lib.evaluate.generate import batches, evaluate, evaluate_to, reference_floor
from eraser_lib.evaluate.log import log_key, read_log, to_table
from eraser_lib.evaluate.session import Session, gate_columns, trimmed_mean
from eraser_lib.evaluate.teacher import continuation_logprobs, prefill
from eraser_lib.experiments.activations import read_activations
from eraser_lib.families.base import Loaded
from eraser_lib.sites import HookSite

RUN = {"preset": "tiny", "model": "llava", "split": "5", "method": "vanilla", "seed": 0}


class Killed(Exception):
    """Stands for the end of the process."""


def test_rows_follow_the_schema_and_the_order(loaded: Loaded, questions: list[Question]) -> None:
    log = evaluate(
        loaded, questions, batch_size=4, max_new_tokens=5, truth_ratios=True, reference=loaded, log_extra=RUN
    )
    to_table(log)
    assert log["id"].tolist() == [question.id for question in questions]
    assert log["seconds"].gt(0).all()
    choice = log[log["task"] == "classification"]
    for row in choice.itertuples():
        assert len(row.option_logprobs) == 4
        assert row.forced == "ABCD"[row.option_logprobs.index(max(row.option_logprobs))]
    generated = log[log["task"] == "generation"]
    assert generated["truth_ratio"].gt(0).all()
    assert [len(values) for values in generated["wrong_logprobs"]] == [3] * len(generated)
    assert log[log["task"] == "cloze"]["truth_ratio"].isna().all()
    spoken = log[log["output"] != ""]
    # greedy answers are likelier to the model that gave them than the truth is, in nearly every row of a
    # random model
    assert (spoken["reference_logprob"] > spoken["answer_logprob"] / spoken["answer_tokens"]).mean() > 0.9
    assert reference_floor(log) <= spoken["reference_logprob"].median()


def test_outputs_of_one_token_are_natural_to_any_model_and_change_nothing_beside_them(
    loaded: Loaded, questions: list[Question]
) -> None:
    outputs = ["B", "", "the pet is a cat", "cat", "i cannot say"]
    found = Session(loaded, {}, reference=loaded)._reference(questions[:5], outputs)
    assert (found[0], found[1], found[3]) == (0.0, None, 0.0)
    for row in (2, 4):
        alone = prefill(loaded.model, loaded.encode([questions[row].prompt]))
        logprobs = continuation_logprobs(alone, [loaded.answer_ids(outputs[row])[:-1]])[0]
        assert found[row] == pytest.approx(trimmed_mean(logprobs))


def test_only_refusals_may_be_natural_as_an_answer_to_an_instruction_to_decline(
    loaded: Loaded, questions: list[Question]
) -> None:
    outputs = ["i cannot say", "the pet is a cat", "i cannot say", "B"]
    asked = questions[:4]

    def declined(prompt: Prompt) -> Prompt:
        return replace(prompt, text=f"{prompt.text} i cannot say")

    def detector(text: str) -> bool:
        return "cannot" in text

    told = [replace(question, prompt=declined(question.prompt)) for question in asked]
    plain = Session(loaded, {}, reference=loaded)._reference(asked, outputs)
    other = Session(loaded, {}, reference=loaded)._reference(told, outputs)
    both = Session(loaded, {}, reference=loaded, declined=declined, detector=detector)  # type: ignore[arg-type]
    assert plain[0] != other[0]
    assert plain[2] != other[2]
    better = [max(plain[0], other[0]), plain[1], max(plain[2], other[2]), 0.0]
    assert both._reference(asked, outputs) == pytest.approx(better)


def test_answer_logprob_leaves_the_end_of_the_turn_out(loaded: Loaded, questions: list[Question]) -> None:
    question = questions[2]
    row = evaluate(loaded, [question], max_new_tokens=2).iloc[0]
    inputs = loaded.encode([question.prompt], [question.answer])
    labels = inputs.pop("labels")
    with torch.no_grad():
        logprobs = torch.log_softmax(loaded.model(**inputs).logits[:, :-1], -1)
    wanted = logprobs.gather(-1, labels[:, 1:, None].clamp_min(0)).squeeze(-1)[labels[:, 1:] != -100][:-1]
    assert row["answer_tokens"] == len(wanted)
    assert row["answer_logprob"] == pytest.approx(float(wanted.sum()), rel=1e-6)
    assert row["answer_prob"] == pytest.approx(float(wanted.mean().exp()), rel=1e-6)


def test_context_is_entered_per_batch_and_its_decisions_are_logged(loaded: Loaded, questions: list[Question]) -> None:
    entered = []

    @contextmanager
    def attach() -> Iterator[SimpleNamespace]:
        handle = SimpleNamespace()
        size = min(4, len(questions) - 4 * len(entered))
        entered.append(size)
        handle.gate_values = {
            HookSite(3): torch.arange(float(size))[:, None],
            HookSite(1): torch.zeros(size, 2),
        }
        handle.opened = torch.arange(size) > 0
        yield handle

    log = evaluate(loaded, questions, context=attach, batch_size=4, max_new_tokens=2, forced=False)
    assert sum(entered) == len(questions)
    first = batches(questions, 4)[0]
    assert [log["gate_value"][index] for index in first] == [0.0, 1.0, 2.0, 3.0]
    assert [log["opened"][index] for index in first] == [False, True, True, True]
    assert log["gate_values"][first[2]] == [0.0, 2.0]


def test_gate_values_of_a_wrong_batch_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 rows for a batch of 2"):
        gate_columns(SimpleNamespace(gate_values={HookSite(0): torch.zeros(3, 1)}), 2)
    assert gate_columns(None, 2) == [{}, {}]


def test_prepare_changes_what_is_asked(loaded: Loaded, questions: list[Question]) -> None:
    plain = evaluate(loaded, questions[:2], max_new_tokens=2)
    changed = evaluate(
        loaded, questions[:2], max_new_tokens=2, prepare=lambda prompt: replace(prompt, system="i cannot say")
    )
    assert (plain["prompt_hash"] != changed["prompt_hash"]).all()


def test_a_killed_evaluation_resumes_to_the_same_log(
    loaded: Loaded, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    generate = Loaded.generate_from

    def counting(self: Loaded, inputs: dict[str, torch.Tensor], **options: int) -> list[str]:
        if len(asked) == 3:
            raise Killed
        asked.append(len(inputs["input_ids"]))
        return generate(self, inputs, **options)

    path = tmp_path / "vanilla" / "seed0.parquet"
    settings = {"log_extra": RUN, "batch_size": 4, "max_new_tokens": 3, "part_seconds": 0.0, "key": "model-1"}
    with monkeypatch.context() as patched:
        patched.setattr(Loaded, "generate_from", counting)
        with pytest.raises(Killed):
            evaluate_to(path, loaded, questions, **settings)
        assert not path.exists()
        asked.clear()
        log = evaluate_to(path, loaded, questions, **settings)
        assert sum(asked) == len(questions) - 12, "finished batches were asked again"
        asked.clear()
        evaluate_to(path, loaded, questions, **settings)
        assert not asked, "a finished log was made again"
    whole = evaluate_to(tmp_path / "whole.parquet", loaded, questions, **settings)
    pd.testing.assert_frame_equal(log.drop(columns="seconds"), whole.drop(columns="seconds"))
    pd.testing.assert_frame_equal(read_log(path), log)
    assert list(path.parent.iterdir()) == [path]


def test_another_model_makes_the_log_anew(loaded: Loaded, questions: list[Question], tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    settings = {"log_extra": RUN, "max_new_tokens": 1, "forced": True}
    evaluate_to(path, loaded, questions[:2], key="a", **settings)
    first = log_key(path)
    evaluate_to(path, loaded, questions[:2], key="b", **settings)
    assert log_key(path) != first


def test_batches_are_sorted_by_length_and_reject_double_ids(questions: list[Question]) -> None:
    found = batches(questions, 5)
    assert sorted(index for batch in found for index in batch) == list(range(len(questions)))
    pictured = [questions[index].prompt.image is not None for batch in found for index in batch]
    assert pictured == sorted(pictured, reverse=True)
    with pytest.raises(ValueError, match="unique"):
        batches([questions[0], questions[0]], 2)
    with pytest.raises(ValueError, match="at least 1"):
        batches(questions, 0)


def test_pictures_are_decoded_by_workers_beside_the_model_and_answers_are_the_same(
    loaded: Loaded, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored(question: Question) -> Question:
        if not question.prompt.images:
            return question
        out = io.BytesIO()
        question.prompt.images[0].save(out, "PNG")
        return replace(question, prompt=replace(question.prompt, image=Stored(out.getvalue())))

    options = {"batch_size": 2, "max_new_tokens": 3}
    plain = evaluate(loaded, questions, **options)
    threads: list[threading.Thread] = []
    decode = Stored.decode
    monkeypatch.setattr(Stored, "decode", lambda self: threads.append(threading.current_thread()) or decode(self))
    kept = [stored(question) for question in questions]
    pictures = sum(isinstance(question.prompt.image, Stored) for question in kept)
    logs = [
        evaluate(loaded, kept, **options),
        evaluate_to(tmp_path / "log.parquet", loaded, kept, log_extra=RUN, **options),
    ]
    same = ["id", "prompt_hash", "output", "answer_logprob"]
    for log in logs:
        assert log[same].to_dict("list") == plain[same].to_dict("list")
    assert threading.main_thread() not in threads
    assert len(threads) == 4 * pictures, "once for the model and once for the hash of what was asked"
    threads.clear()
    read = [read_activations(loaded, [q.prompt for q in asked], batch_size=2) for asked in (questions, kept)]
    assert all(torch.equal(read[0][site], read[1][site]) for site in read[0])
    assert len(threads) == pictures and threading.main_thread() not in threads
