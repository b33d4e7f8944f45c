"""How a benchmark's questions are put to a model: the named protocols, which do not compare with one another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from eraser_lib.bench import language as lang
from eraser_lib.bench.records import Prompt, Question


@dataclass(frozen=True)
class Protocol:
    """The texts around a question."""

    name: str
    classification: Callable[[str, tuple[str, ...]], str]
    cloze: Callable[[str], str]
    generation: Callable[[str], str]
    shots: bool = False
    """Whether the questions about one other person are shown first, with their answers; see `one_shot`."""


def _gap(sentence: str) -> str:
    return f"{sentence.replace('__', '[Blank]')}\n{lang.CLOZE_SUFFIX}"


def _sentence(question: str) -> str:
    return f"{question}\n{lang.GENERATION_SUFFIX}"


WORLD = Protocol("world", lang.classification_prompt, lang.cloze_prompt, lang.generation_prompt)
"""The tiny world's: the authors' words, on one line where its tokenizer knows no line break."""
ZERO_SHOT = Protocol("zero_shot", lang.classification_prompt, _gap, _sentence)
"""The prompts of MLLMEraser's evaluation (arXiv 2510.04217)."""
ONE_SHOT = replace(ZERO_SHOT, name="one_shot", shots=True)
"""Those of MLLMU-Bench's own script (arXiv 2410.22108): letters and gaps after the questions about one person."""
PROTOCOLS = {protocol.name: protocol for protocol in (WORLD, ZERO_SHOT, ONE_SHOT)}


def one_shot(questions: Sequence[Question], *, seed: int = 0) -> list[Question]:
    """Show the questions about one person, with answers, before every other classification and cloze question.

    MLLMU-Bench draws that person anew in each run without a seed; here it is drawn by the seed, one for all questions,
    and, as there, is not asked about. A question is preceded by those of its own task and modality. Generation
    questions stay as they are.

    Raises:
        ValueError: questions about fewer than two people.
    """
    people = sorted({question.person for question in questions if question.person is not None})
    if len(people) < 2:
        raise ValueError(f"one-shot prompts need questions about two people or more; these are about {len(people)}")
    shown = random.Random(f"one-shot-{seed}").choice(people)
    examples: dict[tuple[str, str], list[Prompt]] = {}
    for question in questions:
        if question.person == shown and question.task != "generation":
            examples.setdefault((question.task, question.modality), []).append(_example(question))
    return [
        replace(
            question,
            prompt=replace(question.prompt, shots=tuple(examples.get((question.task, question.modality), ()))),
        )
        for question in questions
        if question.person != shown
    ]


def _example(question: Question) -> Prompt:
    text = question.prompt.text
    if question.task == "classification":
        text = f"Question: {text.removesuffix(lang.LETTER_SUFFIX).rstrip()}"
    return replace(question.prompt, text=f"{text}\nCorrect Answer: {question.answer}")
