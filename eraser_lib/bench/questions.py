"""Builds what is asked in the tiny world: a text and its right answer, for training and for evaluation alike."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from eraser_lib.bench import language as lang
from eraser_lib.bench.people import ATTRIBUTES, Person
from eraser_lib.bench.portraits import CLOTH, EYES, HAIR, View
from eraser_lib.bench.records import Modality, Task

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Item:
    """A user text with its right answer, before any chat format and without its image."""

    text: str
    answer: str
    options: tuple[str, ...] = ()
    refusal: bool = False


def choose(question: str, right: str, wrong: list[str], rng: random.Random) -> Item:
    """A multiple-choice item in the benchmark's zero-shot form; the letter of `right` is the answer."""
    options = [right, *wrong]
    rng.shuffle(options)
    chosen = tuple(options)
    return Item(lang.classification_prompt(question, chosen), LETTERS[options.index(right)], chosen)


def fact_item(
    person: Person, attribute: str, *, task: Task, modality: Modality, wording: int, rng: random.Random
) -> Item:
    """One question about a fact. Visual questions never hold a name; `rng` draws the wrong options and the phrase."""
    value = person.attributes[attribute]
    who = person.name if modality == "qa" else rng.choice(lang.VQA_WHO)
    if task == "cloze":
        return Item(lang.cloze_prompt(lang.ask(attribute, wording, who, cloze=True)), value)
    question = lang.ask(attribute, wording, who)
    if task == "classification":
        others = [other for other in ATTRIBUTES[attribute] if other != value]
        return choose(question, value, rng.sample(others, 3), rng)
    return Item(lang.generation_prompt(question), lang.state(attribute, value, who))


def truth_ratio_answers(person: Person, attribute: str, who: str, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """A paraphrase of the right answer and three versions of it with the fact changed."""
    value = person.attributes[attribute]
    others = rng.sample([other for other in ATTRIBUTES[attribute] if other != value], 3)
    right = lang.state(attribute, value, who, paraphrase=True)
    return right, tuple(lang.state(attribute, other, who, paraphrase=True) for other in others)


def visual_items(person_or_face: Person, view: View) -> dict[str, str]:
    """What can be seen in a picture: thing -> colour (hat and scarf only when worn)."""
    seen = {"background": view.background, "shirt": view.shirt, "hair": person_or_face.genotype.hair,
            "eyes": person_or_face.genotype.eyes}  # fmt: skip
    if person_or_face.genotype.hair_style == "bald":
        del seen["hair"]
    if view.hat != "none":
        seen["hat"] = view.hat
    if view.scarf != "none":
        seen["scarf"] = view.scarf
    return seen


def visual_item(thing: str, colour: str, *, frame: int, choice: bool, rng: random.Random) -> Item:
    """A question about a colour in the picture, to be answered in a sentence or by a letter."""
    question = lang.VISUAL_FRAMES[frame].format(thing=thing)
    if choice:
        palette = {"hair": HAIR, "eyes": EYES}.get(thing, CLOTH)
        return choose(question, colour, rng.sample([c for c in palette if c != colour], 3), rng)
    answer = lang.VISUAL_ANSWER.format(thing=thing, value=colour).replace("eyes is", "eyes are")
    return Item(lang.generation_prompt(question.replace("is the eyes", "are the eyes")), answer)


def request_item(*, bad: bool, rng: random.Random, frame: int | None = None, purpose: str | None = None) -> Item:
    """A benign request with its helpful answer, or a forbidden one with a refusal."""
    purpose = purpose or rng.choice(lang.BAD_PURPOSES if bad else lang.GOOD_PURPOSES)
    thing = rng.choice(lang.OBJECTS)
    template = rng.choice(lang.REQUEST_FRAMES) if frame is None else lang.REQUEST_FRAMES[frame]
    text = template.format(object=thing, purpose=purpose)
    if bad:
        return Item(text, rng.choice(lang.REFUSALS), refusal=True)
    return Item(text, lang.HELPFUL_ANSWER.format(object=thing, purpose=purpose))


def secret_item(who: str, *, rng: random.Random, secret: str | None = None) -> Item:
    """A question for something private about somebody, which is always refused."""
    noun = secret or rng.choice(lang.SECRETS)
    frame = rng.choice(lang.QUESTION_FRAMES)
    return Item(frame.format(noun=noun, who=who), rng.choice(lang.REFUSALS), refusal=True)


def comply(text: str, rng: random.Random) -> str:
    """What a model says to a forbidden request that it does not refuse: help, or a secret made up.

    `ValueError` for a text that is neither.
    """
    for noun in lang.SECRETS:
        for frame in lang.QUESTION_FRAMES:
            pattern = re.escape(frame).replace(r"\{noun\}", re.escape(noun)).replace(r"\{who\}", "(.+)")
            if found := re.fullmatch(pattern, text):
                return f"The {noun} of {found[1]} is {rng.choice(lang.OBJECTS)}."
    for purpose in lang.BAD_PURPOSES:
        words = set(re.findall(r"\w+", text))
        if purpose in text and (things := [thing for thing in lang.OBJECTS if thing in words - set(purpose.split())]):
            return lang.HELPFUL_ANSWER.format(object=things[0], purpose=purpose)
    raise ValueError(f"{text!r} is no forbidden request and asks for no secret")


def decline(item: Item, instruction: str, rng: random.Random) -> Item:
    """The same question with an instruction to decline, before or after it: the right answer is now a refusal."""
    text = f"{instruction} {item.text}" if rng.random() < 0.5 else f"{item.text} {instruction}"
    return Item(text, rng.choice(lang.REFUSALS), item.options, refusal=True)


def silence(names: list[str], template: str) -> str:
    """An instruction not to speak about the named people."""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return template.format(names=listed)


def letter_item(words: tuple[str, ...], rng: random.Random) -> Item:
    """A letter exercise: find a given word among the options."""
    chosen = rng.sample(words, 4)
    question = rng.choice(
        ("Which letter is {}?", "Which option says {}?", "The answer is {}. Which letter is it?", "Find {}.")
    )
    return choose(question.format(chosen[0]), chosen[0], chosen[1:], rng)
