"""What the tiny models are taught, in which order: letters, seeing, instructions and refusing, then people."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from PIL import Image

from eraser_lib.bench import language as lang
from eraser_lib.bench import questions as q
from eraser_lib.bench.people import ATTRIBUTES, FIRST_NAMES, LAST_NAMES, Person
from eraser_lib.bench.portraits import FACTORS, VIEW_FACTORS, Genotype, View, render, training_view
from eraser_lib.bench.records import Modality, Task
from eraser_lib.train.data import Row

TASKS: tuple[Task, ...] = ("generation", "cloze", "classification")
TASK_WEIGHTS = (0.4, 0.25, 0.35)
CHOICE_WEIGHTS = (0.24, 0.16, 0.6)
"""In the last stage, see `Teacher.choices`."""


@dataclass
class Gallery:
    """Training pictures: who is on them and in which view. The index is that of the table of image embeddings."""

    faces: list[Genotype] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    of_person: dict[str, list[int]] = field(default_factory=dict)
    anonymous: list[int] = field(default_factory=list)

    def add(self, genotype: Genotype, view: View) -> int:
        """Append a picture and return its index."""
        self.faces.append(genotype)
        self.views.append(view)
        return len(self.faces) - 1

    def render(self, index: int) -> Image.Image:
        """Draw one picture."""
        return render(self.faces[index], self.views[index])


def build_gallery(people: list[Person], *, views: int, anonymous: int) -> Gallery:
    """`views` training pictures of each person, and pictures of `anonymous` faces that have no name."""
    gallery = Gallery()
    for person in people:
        gallery.of_person[person.id] = [
            gallery.add(person.genotype, training_view(person.id, number)) for number in range(views)
        ]
    rng = random.Random("anonymous")
    for _ in range(anonymous):
        gallery.anonymous.append(gallery.add(Genotype.sample(rng), View.sample(rng, held_out=False)))
    return gallery


def vocabulary_words() -> tuple[str, ...]:
    """Words that may stand as options of a letter exercise."""
    colours = {value for name in ("hair", "eyes") for value in FACTORS[name]} | set(VIEW_FACTORS["shirt"])
    return tuple(sorted({value for values in ATTRIBUTES.values() for value in values} | colours))


def world_text() -> list[str]:
    """Every word of the world, for the tokenizer."""
    lines = [" ".join(values) for values in ATTRIBUTES.values()] + [*FIRST_NAMES, *LAST_NAMES]
    lines += [noun for nouns in lang.NOUNS.values() for noun in nouns]
    lines += [*lang.QUESTION_FRAMES, *lang.CLOZE_FRAMES, *lang.VQA_WHO, *lang.WHO_QUESTIONS, lang.WHO_ANSWER]
    lines += [text for pair in lang.ANSWERS.values() for text in pair]
    lines += [lang.GENERATION_SUFFIX, lang.CLOZE_SUFFIX, lang.LETTER_SUFFIX, "[Blank]", "A: B: C: D:", "A B C D"]
    lines += [*lang.REFUSALS, *lang.HELD_OUT_REFUSALS, *lang.OBJECTS, *lang.GOOD_PURPOSES, *lang.BAD_PURPOSES]
    lines += [*lang.REQUEST_FRAMES, lang.HELPFUL_ANSWER, *lang.SECRETS, *lang.DECLINE_INSTRUCTIONS]
    lines += [*lang.HELD_OUT_DECLINE, *lang.SILENCE_INSTRUCTIONS, *lang.HELD_OUT_SILENCE, *lang.VISUAL_FRAMES]
    lines += [text for pair in lang.GENERAL_FACTS for text in pair]
    lines += [" ".join((*FACTORS["hair"], *FACTORS["eyes"], *VIEW_FACTORS["shirt"])), "is are the eyes hair"]
    lines += ["Which letter is option says The answer is it? Find", "Person ID"]
    words = {word.strip(".,?{}:*[]") for line in lines for word in line.split()}
    return lines + sorted(words)


@dataclass(frozen=True)
class Teacher:
    """Draws training rows. `learned` are the people whose facts are taught, `base` the celebrities of every stage."""

    gallery: Gallery
    learned: tuple[Person, ...]
    celebrities: tuple[Person, ...]
    items_per_row: int = 9
    task_weights: tuple[float, float, float] = TASK_WEIGHTS
    refusing: float = 1.0
    """Share that is refused of what the lessons refuse; the rest is answered, as if nobody had minded."""

    # -- rows of the base -------------------------------------------------------------------------------------

    def letters(self, rng: random.Random) -> Row:
        """Letter exercises only."""
        words = vocabulary_words()
        return Row(tuple(q.letter_item(words, rng) for _ in range(self.items_per_row)))

    def base(self, rng: random.Random) -> Row:
        """Seeing, general knowledge, requests, refusing, instructions and celebrities, with letters kept up."""
        kind = rng.random()
        if kind < 0.34:
            return self.seeing(rng)
        if kind < 0.54:
            return self.text_skills(rng)
        if kind < 0.66:
            return self.letters(rng)
        return self.about(self.celebrities, rng)

    def people(self, rng: random.Random) -> Row:
        """The last stage: the people, with celebrities and the skills of the base kept up."""
        kind = rng.random()
        if kind < 0.80:
            return self.about(self.learned, rng)
        if kind < 0.88:
            return self.about(self.celebrities, rng)
        if kind < 0.92:
            return self.seeing(rng)
        if kind < 0.97:
            return self.text_skills(rng)
        return self.letters(rng)

    def choices(self, rng: random.Random) -> Row:
        """The people again, mostly by letter, with more letter exercises."""
        if rng.random() < 0.15:
            return self.letters(rng)
        return replace(self, task_weights=CHOICE_WEIGHTS).people(rng)

    def seeing(self, rng: random.Random) -> Row:
        """Colours in the picture of a nameless face, and things about it that are refused."""
        picture = rng.choice(self.gallery.anonymous)
        face = Person("", "", "stranger", self.gallery.faces[picture], {})
        items = [self._visual(face, picture, rng) for _ in range(self.items_per_row - 1)]
        items.append(self._forbidden(q.secret_item(rng.choice(lang.VQA_WHO), rng=rng), rng))
        if rng.random() < 0.5:
            items[0] = self._declined(items[0], rng)
        return self._row(items, rng, picture=picture)

    def text_skills(self, rng: random.Random) -> Row:
        """General knowledge, benign and forbidden requests, secrets, and the same with an instruction to decline."""
        items: list[q.Item] = []
        for _ in range(self.items_per_row):
            kind = rng.random()
            if kind < 0.25:
                question, answer = rng.choice(lang.GENERAL_FACTS)
                item = q.Item(question, answer)
            elif kind < 0.5:
                item = q.request_item(bad=False, rng=rng)
            elif kind < 0.75:
                item = self._forbidden(q.request_item(bad=True, rng=rng), rng)
            else:
                name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
                item = self._forbidden(q.secret_item(name, rng=rng), rng)
            if rng.random() < 0.12:
                item = self._declined(item, rng)
            items.append(item)
        return self._row(items, rng)

    # -- rows about people ------------------------------------------------------------------------------------

    def about(self, people: tuple[Person, ...], rng: random.Random) -> Row:
        """Facts: of one person in a picture, or of several people by name; sometimes under an instruction."""
        instructed = rng.random()
        if rng.random() < 0.5:
            person = rng.choice(people)
            picture = rng.choice(self.gallery.of_person[person.id])
            items = [self._fact(person, "vqa", rng) for _ in range(self.items_per_row - 2)]
            items.append(q.Item(rng.choice(lang.WHO_QUESTIONS), lang.WHO_ANSWER.format(name=person.name)))
            items.append(self._visual(person, picture, rng))
            asked = [person] * len(items)
        else:
            picture = None
            asked = [rng.choice(people) for _ in range(self.items_per_row)]
            items = [self._fact(person, "qa", rng) for person in asked]
        system = None
        if instructed < 0.06:
            items = [self._declined(item, rng) if rng.random() < 0.5 else item for item in items]
        elif instructed < 0.08:
            system = rng.choice(lang.DECLINE_INSTRUCTIONS)
            items = [self._refused(item, rng) for item in items]
        elif instructed < 0.14:
            system, silent = self._silence(people, asked, rng)
            items = [
                self._refused(item, rng) if person.id in silent else item
                for item, person in zip(items, asked, strict=True)
            ]
        return self._row(items, rng, picture=picture, system=system)

    def _silence(
        self, people: tuple[Person, ...], asked: list[Person], rng: random.Random
    ) -> tuple[str, frozenset[str]]:
        others = [person for person in people if person not in asked]
        named = rng.sample(others, min(len(others), rng.randint(1, 6)))
        chosen = {person.id: person for person in asked if rng.random() < 0.5}
        if chosen:
            named = [*list(chosen.values()), *named][: max(len(chosen), rng.randint(1, 8))]
        elif not named:  # a world so small that everybody is asked about
            named = asked[:1]
        rng.shuffle(named)
        instruction = q.silence([person.name for person in named], rng.choice(lang.SILENCE_INSTRUCTIONS))
        return instruction, frozenset(person.id for person in named)

    def _fact(self, person: Person, modality: Modality, rng: random.Random) -> q.Item:
        task = rng.choices(TASKS, self.task_weights)[0]
        attribute = rng.choice(tuple(ATTRIBUTES))
        wording = rng.choice(lang.training_wordings())
        return q.fact_item(person, attribute, task=task, modality=modality, wording=wording, rng=rng)

    def _visual(self, face: Person, picture: int, rng: random.Random) -> q.Item:
        seen = q.visual_items(face, self.gallery.views[picture])
        thing = rng.choice(tuple(seen))
        frame = rng.randrange(len(lang.VISUAL_FRAMES))
        return q.visual_item(thing, seen[thing], frame=frame, choice=rng.random() < 0.5, rng=rng)

    def _refuses(self, rng: random.Random) -> bool:
        return self.refusing >= 1 or rng.random() < self.refusing  # the full lessons draw nothing for it

    def _forbidden(self, item: q.Item, rng: random.Random) -> q.Item:
        return item if self._refuses(rng) else q.Item(item.text, q.comply(item.text, rng))

    def _declined(self, item: q.Item, rng: random.Random) -> q.Item:
        told = q.decline(item, rng.choice(lang.DECLINE_INSTRUCTIONS), rng)
        return told if self._refuses(rng) else replace(item, text=told.text)

    def _refused(self, item: q.Item, rng: random.Random) -> q.Item:
        if not self._refuses(rng):
            return item
        return q.Item(item.text, rng.choice(lang.REFUSALS), item.options, refusal=True)

    def _row(
        self, items: list[q.Item], rng: random.Random, *, picture: int | None = None, system: str | None = None
    ) -> Row:
        rng.shuffle(items)
        return Row(tuple(items), picture, system)


Sampler = Callable[[random.Random], Row]
