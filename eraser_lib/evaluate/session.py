"""What happens to one batch of questions: greedy answers, teacher-forced scores, gate values."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from eraser_lib.bench.records import Prompt, Question
from eraser_lib.evaluate.log import SCHEMA, prompt_hash
from eraser_lib.evaluate.refusal import RefusalDetector
from eraser_lib.evaluate.scores import LETTERS, score_answer, truth_ratio
from eraser_lib.evaluate.teacher import Prefill, continuation_logprobs, prefill
from eraser_lib.stream import ahead

if TYPE_CHECKING:
    from torch import Tensor

    from eraser_lib.families.base import Loaded

Context = Callable[[], AbstractContextManager[Any]]
Row = dict[str, Any]
Score = Callable[[Sequence[Sequence[int]]], list[list[float]]]


class Options(TypedDict, total=False):
    """Keyword options shared by `evaluate` and `evaluate_to`."""

    context: Context | None
    """Makes the context around all calls of the model, e.g. `lambda: eraser.attach(model)`; it may expose
    `gate_values` and `opened`, which are logged, see `gate_columns`."""
    prepare: Callable[[Prompt], Prompt] | None
    """Changes a prompt before it is asked, e.g. adds a system instruction."""
    batch_size: int
    max_new_tokens: int
    forced: bool
    """Score the ground truth and the options by teacher forcing (default: yes)."""
    truth_ratios: bool
    """Also score the paraphrase and the wrong answers of generation questions (default: no)."""
    stepwise: bool
    """Score answers token by token; always so for erasers in `published` mode, see `teacher`."""
    detector: RefusalDetector
    vocabulary: Collection[str] | None
    """Words of the world's text, for the fluency rule."""
    declined: Callable[[Prompt], Prompt] | None
    """Adds an instruction to decline, for the fluency of refusals; see `reference`."""
    reference: Loaded | None
    """Vanilla, to score the outputs' log-probability for the fluency rule."""
    reference_floor: float | None
    """1st percentile of vanilla's mean log-probability of its own answers, see `reference_floor`."""


@dataclass
class Session:
    """All that does not change from batch to batch."""

    loaded: Loaded
    extra: dict[str, object]
    context: Context | None = None
    prepare: Callable[[Prompt], Prompt] | None = None
    batch_size: int = 64
    max_new_tokens: int = 50
    forced: bool = True
    truth_ratios: bool = False
    stepwise: bool = False
    detector: RefusalDetector = RefusalDetector()  # noqa: RUF009 (frozen by use: it has no mutable state)
    vocabulary: Collection[str] | None = None
    declined: Callable[[Prompt], Prompt] | None = None
    reference: Loaded | None = None
    reference_floor: float | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    """Question -> `prompt_hash` of what is asked."""

    def fingerprint(self, questions: Sequence[Question], key: str) -> str:
        """Hash of everything that decides the rows, as far as it can be seen from here."""
        parts: list[object] = [
            key,
            sorted((name, str(value)) for name, value in self.extra.items()),
            SCHEMA.names,
        ]
        parts += [self.batch_size, self.max_new_tokens, self.forced, self.truth_ratios, self.stepwise]
        parts += [str(self.loaded.model.dtype), self.loaded.model.device.type]
        parts += [self.detector.patterns, sorted(self.vocabulary or ()), self.reference_floor]
        for question, shown in zip(questions, ahead(self._hash, questions), strict=True):
            parts.append([question.id, shown, question.answer, question.fact, question.options])
            parts.append([question.wrong, question.paraphrase])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def encoded(self, questions: Sequence[Question]) -> dict[str, Tensor]:
        """What the model reads of a batch: pictures decoded and texts tokenised, for `ask`; no model is called."""
        for question in questions:
            self._hash(question)
        return self.loaded.encode([self._prepared(question) for question in questions])

    def ask(self, questions: Sequence[Question], inputs: dict[str, Tensor]) -> list[Row]:
        """One batch: generate, score, and one row per question; `inputs` is what `encoded` says of them."""
        start = time.perf_counter()
        with self.context() if self.context else nullcontext() as handle:
            outputs = self.loaded.generate_from(inputs, max_new_tokens=self.max_new_tokens)
            gates = gate_columns(handle, len(questions))
            if handle is not None and hasattr(handle, "new_prompt"):
                handle.new_prompt()
            stepwise = self.stepwise or _fires_on_length(handle)
            scores = self._teacher(questions, inputs, stepwise) if self.forced else [{} for _ in questions]
        likely = self._reference(questions, outputs)
        share = (time.perf_counter() - start) / len(questions)
        return [
            self._row(question, output, gate | score, logprob) | {"seconds": share}
            for question, output, gate, score, logprob in zip(questions, outputs, gates, scores, likely, strict=True)
        ]

    def _prepared(self, question: Question) -> Prompt:
        return self.prepare(question.prompt) if self.prepare else question.prompt

    def _hash(self, question: Question) -> str:
        """`prompt_hash` of what is asked, for which pictures are decoded: once, by a worker."""
        if question.id not in self.hashes:
            self.hashes[question.id] = prompt_hash(self._prepared(question))
        return self.hashes[question.id]

    def _ids(self, answer: str) -> list[int]:
        # The end of the turn is left out: a sure end would lift the mean of a short answer.
        return self.loaded.answer_ids(answer)[:-1]

    def _teacher(self, questions: Sequence[Question], inputs: dict[str, Tensor], stepwise: bool) -> list[Row]:
        state = prefill(self.loaded.model, inputs)

        def score(answers: Sequence[Sequence[int]]) -> list[list[float]]:
            return continuation_logprobs(state, answers, stepwise=stepwise)

        truth = self._means(score, [question.answer for question in questions])
        rows: list[Row] = [
            {"answer_logprob": mean * n, "answer_tokens": n, "answer_prob": math.exp(mean)} for mean, n in truth
        ]
        self._options(state, score, questions, rows)
        if self.truth_ratios:
            self._truth_ratios(score, questions, rows)
        return rows

    def _means(self, score: Score, answers: Sequence[str]) -> list[tuple[float, int]]:
        """Mean log-probability per token and number of tokens of one answer per row; 0 tokens give 0."""
        logprobs = score([self._ids(answer) for answer in answers])
        return [(sum(row) / max(len(row), 1), len(row)) for row in logprobs]

    def _options(self, state: Prefill, score: Score, questions: Sequence[Question], rows: list[Row]) -> None:
        most = max((len(question.options) for question in questions), default=0)
        if not most:
            return
        ids = [self._ids(letter) for letter in LETTERS[:most]]
        first = [letter[0] for letter in ids]
        if len(set(first)) == most:
            table = state.first[:, first].tolist()
        else:  # a tokenizer whose letters begin with the same token: compare whole letters
            scored = [score([letter] * len(rows)) for letter in ids]
            table = [[sum(column[row]) for column in scored] for row in range(len(rows))]
        for row, question, values in zip(rows, questions, table, strict=True):
            if question.options:
                values = values[: len(question.options)]
                letter = LETTERS[values.index(max(values))]
                row |= {
                    "option_logprobs": values,
                    "forced": letter,
                    "forced_correct": letter == question.letter,
                }

    def _truth_ratios(self, score: Score, questions: Sequence[Question], rows: list[Row]) -> None:
        asked = [q.task == "generation" and q.paraphrase is not None and bool(q.wrong) for q in questions]
        if not any(asked):
            return
        paraphrase = self._means(score, [q.paraphrase or q.answer for q in questions])
        wrong = [
            self._means(score, [q.wrong[number] if number < len(q.wrong) else q.answer for q in questions])
            for number in range(max(len(q.wrong) for q in questions))
        ]
        for index, question in enumerate(questions):
            if asked[index]:
                values = [column[index][0] for column in wrong[: len(question.wrong)]]
                right = paraphrase[index][0]
                rows[index] |= {
                    "paraphrase_logprob": right,
                    "wrong_logprobs": values,
                    "truth_ratio": truth_ratio(values, right),
                }

    def _reference(self, questions: Sequence[Question], outputs: Sequence[str]) -> list[float | None]:
        """How natural the outputs are to vanilla: as answers to what was asked or, where a refusal is more natural
        there, to the same question with an instruction to decline."""
        if self.reference is None:
            return [None] * len(questions)
        ids = [self.reference.answer_ids(output)[:-1] if output else [] for output in outputs]
        # Without its least likely token a single token is 0 to any model: so are letters and most cloze answers.
        found: list[float | None] = [0.0 if tokens else None for tokens in ids]
        rows = [row for row, tokens in enumerate(ids) if len(tokens) > 1]
        asked = {row: questions[row].prompt for row in rows}
        contexts = [asked]
        if self.declined is not None:
            contexts.append({row: self.declined(asked[row]) for row in rows if self.detector(outputs[row])})
        for prompts in filter(None, contexts):
            state = prefill(self.reference.model, self.reference.encode(list(prompts.values())))
            for row, logprobs in zip(prompts, continuation_logprobs(state, [ids[r] for r in prompts]), strict=True):
                value, before = trimmed_mean(logprobs), found[row]
                # the first context replaces the 0, the second one only counts where it is better
                found[row] = value if prompts is asked or before is None else max(before, value)
        return found

    def _row(self, question: Question, output: str, scored: Row, reference_logprob: float | None) -> Row:
        tokens = len(self._ids(output)) if output else 0
        ended = tokens < self.max_new_tokens
        score = score_answer(
            question,
            output,
            detector=self.detector,
            ended=ended,
            vocabulary=self.vocabulary,
            reference_logprob=reference_logprob,
            reference_floor=self.reference_floor,
        )
        about = {
            name: getattr(question, name)
            for name in (
                "id", "subset", "role", "modality", "task", "attribute", "person", "view", "wording",
                "answer", "fact",
            )
        }  # fmt: skip
        return {
            **self.extra,
            **about,
            "prompt_hash": self._hash(question),
            "output": output,
            "output_tokens": tokens,
            "ended": ended,
            "reference_logprob": reference_logprob,
            **asdict(score),
            **scored,
        }


def trimmed_mean(logprobs: Sequence[float]) -> float:
    """Mean log-probability per token without the least likely token, of at least two.

    A fluent sentence with a wrong fact has one unlikely token, the fact: that is a matter of being right, which other
    metrics count. A garbled one has several.
    """
    return (sum(logprobs) - min(logprobs)) / (len(logprobs) - 1)


def gate_columns(handle: object, rows: int) -> list[Row]:
    """Gate columns of the last prefill, read from what a context gave; empty where it exposes none.

    Args:
        handle: may have `gate_values`, a mapping of a hook site to values of shape `(B, k)` or `(B,)`, and
            `opened`, flags of shape `(B,)`. With several requests the largest value of a row counts;
            `gate_value` is that of the last site.
        rows: B, the number of prompts.

    Raises:
        ValueError: the number of values is not the number of prompts.
    """
    found: list[Row] = [{} for _ in range(rows)]
    values: Mapping[Any, Any] = getattr(handle, "gate_values", None) or {}
    sites = sorted(values, key=lambda site: (site.layer, site.where == "output"))
    columns = [_column(values[site], rows) for site in sites]
    for index in range(rows if columns else 0):
        layers = [float(column[index]) for column in columns]
        found[index] = {"gate_values": layers, "gate_value": layers[-1]}
    opened = getattr(handle, "opened", None)
    if opened is not None:
        for row, flag in zip(found, _column(opened, rows), strict=True):
            row["opened"] = bool(flag)
    return found


def _column(values: Tensor, rows: int) -> list[float]:
    if len(values) != rows:
        raise ValueError(f"the context reports gate values of {len(values)} rows for a batch of {rows} prompts")
    column: list[float] = values.reshape(rows, -1).amax(dim=1).tolist()
    return column


def _fires_on_length(handle: object) -> bool:
    # The authors' rule takes any call longer than one token for a prompt and would steer a scored answer
    # again.
    return getattr(getattr(handle, "eraser", None), "mode", None) == "published"
