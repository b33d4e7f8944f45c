"""How a benchmark's questions are put to a model: the named protocols, which do not compare with one another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from eraser_lib.bench import language as lang
from eraser_lib.bench.records import Modality, Prompt, Question


@dataclass(frozen=True)
class Protocol:
    """The texts around a question."""

    name: str
    classification: Callable[[str, tuple[str, ...]], str]
    cloze: Callable[[str], str]
    generation: Callable[[str, Modality], str]
    shots: bool = False
    """Whether questions about other people are shown first, with their answers; see `one_shot`."""


def _gap(sentence: str) -> str:
    return f"{sentence.replace('__', '[Blank]')}\n{lang.CLOZE_SUFFIX}"


def _sentence(question: str, modality: Modality) -> str:
    return f"{question}\n{lang.GENERATION_SUFFIX}"


def _accurately(question: str, modality: Modality) -> str:
    suffix = lang.GENERATION_SUFFIX
    return f"{question}\n{suffix.replace('sentence', 'sentence accurately') if modality == 'vqa' else suffix}"


WORLD = Protocol("world", lang.classification_prompt, lang.cloze_prompt, lambda text, _: lang.generation_prompt(text))
"""The tiny world's: the authors' words, on one line where its tokenizer knows no line break."""
ZERO_SHOT = Protocol("zero_shot", lang.classification_prompt, _gap, _sentence)
"""The prompts of MLLMEraser's evaluation (arXiv 2510.04217)."""
ONE_SHOT = Protocol("one_shot", lang.classification_prompt, _gap, _accurately, shots=True)
"""Those of MLLMU-Bench's own script for LLaVA (arXiv 2410.22108), with examples before letters and gaps."""
PROTOCOLS = {protocol.name: protocol for protocol in (WORLD, ZERO_SHOT, ONE_SHOT)}


SHOWN = {"classification": 1, "cloze": 2}
"""People whose questions are shown before those of a task."""


def one_shot(questions: Sequence[Question], *, seed: int = 0) -> list[Question]:
    """Show questions about other people, with answers, before every letter question and every gap.

    As in MLLMU-Bench's script for LLaVA: letters come after those about one person, gaps after those about two, of the
    same modality and part; questions that are shown are not asked; generation questions and those about celebrities
    stand alone.
    The script draws the people anew in each run without a seed; here the seed draws them, once for all questions.

    Raises:
        ValueError: questions about too few people for somebody to be left.
    """
    plain = [question for question in questions if question.subset != "celebrity"]
    people = sorted({question.person for question in plain if question.person is not None})
    if plain and len(people) <= max(SHOWN.values()):
        raise ValueError(
            f"one-shot prompts need questions about {max(SHOWN.values()) + 1} people or more; these are about "
            f"{len(people)}"
        )
    drawn = {task: random.Random(f"{task}-{seed}").sample(people, count) if people else []
             for task, count in SHOWN.items()}  # fmt: skip
    examples: dict[tuple[str, str], list[Prompt]] = {}
    for question in plain:
        if question.person in drawn.get(question.task, ()):
            examples.setdefault((question.task, question.modality), []).append(_example(question))
    return [
        question
        if question.subset == "celebrity"
        else replace(
            question,
            prompt=replace(question.prompt, shots=tuple(examples.get((question.task, question.modality), ()))),
        )
        for question in questions
        if question.subset == "celebrity" or question.person not in drawn.get(question.task, ())
    ]


def _example(question: Question) -> Prompt:
    text = question.prompt.text
    if question.task == "classification":
        text = f"Question: {text.removesuffix(lang.LETTER_SUFFIX).rstrip()}"
    return replace(question.prompt, text=f"{text}\nCorrect Answer: {question.answer}")
