"""Scores of one answer by the rules of MLLMU-Bench, and the stated rule for fluent text.

Source: MLLMU-Bench (arXiv 2410.22108) for letter, cloze and overlap scores. All scores are fractions.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from eraser_lib.bench.records import Question
from eraser_lib.evaluate.refusal import RefusalDetector

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class AnswerScore:
    """Scores of one output; `None` where a score does not apply to the task."""

    parsed: str | None
    correct: bool | None
    fact_recall: float | None
    fact_word: int | None
    rouge_l: float | None
    bleu: float | None
    refusal: bool
    fluent: bool
    gibberish: bool


def score_answer(
    question: Question,
    output: str,
    *,
    detector: RefusalDetector,
    ended: bool = True,
    vocabulary: Collection[str] | None = None,
    reference_logprob: float | None = None,
    reference_floor: float | None = None,
) -> AnswerScore:
    """Score an output against its question.

    Args:
        question: what was asked.
        output: the generated text without chat markup.
        detector: flags refusals.
        ended: whether the text ended within the token limit.
        vocabulary: see `is_fluent`.
        reference_logprob, reference_floor: see `is_fluent`.
    """
    parsed, correct = _parse(question, output)
    refusal = detector(output)
    if question.refusal:
        correct = refusal
    recall = position = rouge = overlap = None
    if question.fact is not None and question.task != "classification":
        position = fact_position(output, question.fact)
        recall = float(position is not None)
    if question.task == "generation":
        rouge, overlap = rouge_l(output, question.answer), bleu(output, question.answer)
    fluent = is_fluent(
        output,
        ended=ended,
        vocabulary=vocabulary,
        reference_logprob=reference_logprob,
        reference_floor=reference_floor,
    )
    right = bool(correct) if correct is not None else bool(recall)
    return AnswerScore(
        parsed=parsed,
        correct=correct,
        fact_recall=recall,
        fact_word=position,
        rouge_l=rouge,
        bleu=overlap,
        refusal=refusal,
        fluent=fluent,
        gibberish=not (fluent or refusal or right),
    )


def parse_letter(output: str, options: int) -> str | None:
    """The first alphanumeric character, or `None` when it is not one of the first `options` letters."""
    for character in output:
        if character.isalnum():
            letter = character.upper()
            return letter if letter in LETTERS[:options] else None
    return None


def cloze_correct(output: str, truth: str) -> bool:
    """Whether the ground truth is a substring of the output, in lower case.

    Raises:
        ValueError: the ground truth is empty (every output would be right).
    """
    if not truth.strip():
        raise ValueError("a cloze question needs a ground truth; found an empty one")
    return truth.strip().lower() in output.lower()


def fact_position(output: str, fact: str) -> int | None:
    """Number of words before the fact in the output, or `None` when the fact is not there as whole words.

    Case and punctuation do not count: `Home-made bread!` holds the fact `home made bread`.

    Raises:
        ValueError: the fact has no word.
    """
    found, wanted = words(output), words(fact)
    if not wanted:
        raise ValueError(f"a fact needs at least one word; found {fact!r}")
    for start in range(len(found) - len(wanted) + 1):
        if found[start : start + len(wanted)] == wanted:
            return start
    return None


def words(text: str) -> list[str]:
    """Lower-case words of a text; apostrophes inside a word are kept, all other punctuation separates."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\u2019", "'"))


def vocabulary_of(texts: Iterable[str]) -> frozenset[str]:
    """The set of words of a world's text, with the option letters, as `is_fluent` takes it."""
    return frozenset(word for text in texts for word in words(text)) | frozenset(LETTERS.lower())


def rouge_l(output: str, truth: str) -> float:
    """ROUGE-L F with the Porter stemmer."""
    return float(_rouge().score(truth, output)["rougeL"].fmeasure)


def bleu(output: str, truth: str) -> float:
    """Sentence BLEU (sacrebleu, exponential smoothing, effective order), 0 to 1."""
    return float(min(_bleu().sentence_score(output, [truth]).score / 100, 1.0))


def is_fluent(
    output: str,
    *,
    ended: bool = True,
    vocabulary: Collection[str] | None = None,
    reference_logprob: float | None = None,
    reference_floor: float | None = None,
) -> bool:
    """The stated rule for fluent text.

    An output is fluent when it has a word, ended within the token limit, uses only words of `vocabulary`,
    holds no sequence of three words more than twice, and `reference_logprob` is at least `reference_floor`.

    Args:
        output: the text.
        ended: whether it ended within the token limit.
        vocabulary: lower-case words of the world's text; `None` leaves the check out.
        reference_logprob: mean log-probability per token of the output under vanilla, in nats.
        reference_floor: 1st percentile of vanilla's own answers; the check is left out unless both are given.
    """
    found = words(output)
    if not found or not ended:
        return False
    if vocabulary is not None and any(word not in vocabulary for word in found):
        return False
    if max(Counter(zip(found, found[1:], found[2:], strict=False)).values(), default=0) > 2:
        return False
    if reference_logprob is None or reference_floor is None:
        return True
    return reference_logprob >= reference_floor


def truth_ratio(wrong_logprobs: Collection[float], paraphrase_logprob: float) -> float:
    """Mean probability of the wrong answers over the probability of the paraphrase, both per token.

    Args:
        wrong_logprobs: mean log-probability per token of each answer with one fact changed, in nats.
        paraphrase_logprob: the same of the paraphrase of the truth.

    Raises:
        ValueError: no wrong answer.
    """
    if not wrong_logprobs:
        raise ValueError("a truth ratio needs at least one wrong answer; found none")
    # Probabilities are compared as differences of logarithms, so that very unlikely answers do not divide 0
    # by 0.
    gaps = [min(value - paraphrase_logprob, 700.0) for value in wrong_logprobs]
    return sum(math.exp(gap) for gap in gaps) / len(gaps)


def selection_score(
    *,
    forget_vanilla: float,
    forget_method: float,
    forget_stranger: float,
    kept_method: float,
    kept_vanilla: float,
) -> float:
    """Score of a method on the dev set, from mean answer probabilities: half forgetting, half keeping.

    S = 1/2 clip((v_f - m_f) / (v_f - s_f), 0, 1) + 1/2 clip(m_u / v_u, 0, 1).

    Raises:
        ValueError: vanilla does not know the dev people better than strangers, or knows nothing to keep.
    """
    if forget_vanilla <= forget_stranger or kept_vanilla <= 0:
        raise ValueError(
            f"the selection score needs a vanilla model that knows the dev people (answer probability "
            f"{forget_vanilla} "
            f"against {forget_stranger} for strangers) and the retained ones ({kept_vanilla}); "
            "train it further"
        )
    forgotten = (forget_vanilla - forget_method) / (forget_vanilla - forget_stranger)
    kept = kept_method / kept_vanilla
    return 0.5 * min(max(forgotten, 0.0), 1.0) + 0.5 * min(max(kept, 0.0), 1.0)


def _parse(question: Question, output: str) -> tuple[str | None, bool | None]:
    if question.task == "classification":
        letter = parse_letter(output, len(question.options))
        return letter, letter == question.answer.strip().upper()
    if question.task == "cloze":
        return output.strip() or None, cloze_correct(output, question.answer)
    return None, None


@lru_cache(maxsize=1)
def _rouge() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


@lru_cache(maxsize=1)
def _bleu() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)
