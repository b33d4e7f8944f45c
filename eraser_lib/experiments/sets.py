"""Which questions play which role: fit, select, calibrate and test rows, disjoint by construction and by test."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from eraser_lib.bench import language as lang
from eraser_lib.bench import questions as q
from eraser_lib.bench.documented import ASKED, STRANGERS, Documented
from eraser_lib.bench.people import ATTRIBUTES, FIRST_NAMES, LAST_NAMES, Person
from eraser_lib.bench.portraits import Genotype, View, render, test_view, training_view
from eraser_lib.bench.reader import read_part
from eraser_lib.bench.records import Modality, Prompt, Question, Role, Subset, Task
from eraser_lib.bench.world import FIRST_FIT_VIEW, FIT_WORDINGS, FORGET_WORDINGS, World

TASKS: tuple[Task, ...] = ("classification", "cloze", "generation")
MODALITIES: tuple[Modality, ...] = ("vqa", "qa")
PER_PERSON = 24
"""Rows of each retained person in a fit."""
_ROLES: tuple[Role, ...] = ("fit", "select", "calibrate", "test")


def stratified(questions: Sequence[Question], count: int, *, seed: int = 0) -> list[Question]:
    """At most `count` questions, equally many of each modality and task, people and facts drawn at random.

    The order of `questions` is kept. All of them are returned where there are no more than `count`.
    """
    if len(questions) <= count:
        return list(questions)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault((question.modality, question.task), []).append(index)
    rng = random.Random(f"stratified-{seed}")
    each, rest = divmod(count, len(groups))
    chosen: list[int] = []
    for number, group in enumerate(groups.values()):
        chosen.extend(rng.sample(group, min(len(group), each + (number < rest))))
    return [questions[index] for index in sorted(chosen)]


def test_sets(world: World, folder: Path, split: int, *, size: int = 480) -> dict[str, list[Question]]:
    """The evaluation rows of one split by subset; `size` bounds every subset.

    `forget`: forgotten people in training views and training wordings (the benchmark's forget column); `test`:
    the same people in unseen views and held-out wordings; `retain` and `celebrity`: people outside the gate's fit
    and calibration, unseen views and held-out wordings; `general`: nameless faces and general knowledge;
    `same_photo`: colours on pictures of forgotten and retained people; `benign`, `forbidden`: requests.
    """
    roles = world.roles(split)
    ids = {name: [person.id for person in people] for name, people in roles.items()}
    sets = {
        "forget": read_part(folder, f"forget_{split}", "forget"),
        "test": read_part(folder, "Test_Set", "test", people=ids["forget"]),
        "retain": read_part(folder, "Test_Set", "retain", people=ids["test"]),
        "celebrity": read_part(folder, "Retain_Set", "celebrity", people=ids["celebrity"]),
    }
    sets = {name: stratified(rows, size) for name, rows in sets.items()}
    extra = max(12, size // 6)
    sets["general"] = general_questions(extra, "test")
    sets["same_photo"] = photo_questions([*roles["forget"], *roles["test"][:20]], extra, "test")
    sets["benign"] = request_questions(extra, "test", bad=False)
    sets["forbidden"] = request_questions(extra, "test", bad=True)
    return {name: rows for name, rows in sets.items() if rows}


def stranger_questions(folder: Path, *, size: int = 240) -> list[Question]:
    """Questions about people whom no model has seen: the floor that elimination alone reaches.

    Nobody where a benchmark brings no such people.
    """
    there = (folder / f"{STRANGERS}.parquet").exists() or not (folder / f"{ASKED}.parquet").exists()
    return stratified(read_part(folder, STRANGERS, "stranger"), size) if there else []


def dev_questions(folder: Path, people: Sequence[Person], *, size: int = 240) -> list[Question]:
    """Select rows: people erased for practice, in unseen views and held-out wordings."""
    ids = [person.id for person in people]
    return stratified(read_part(folder, "Test_Set", "dev", role="select", people=ids), size)


def _kept(world: World, split: int) -> int:
    """How many of the fit people are asked about as kept people while choosing; the others may practise."""
    return 4 * len(world.roles(split)["fit"]) // 9


def practice_people(world: World, split: int, *, count: int = 3) -> list[list[Person]]:
    """At most `count` disjoint groups of fit people, as large as the dev forget set, to choose a gate on beside it.

    They are nobody's test, calibration or kept select people. A gate that practises on a group must leave its retain
    rows out of the fit.
    """
    size = len(world.population.dev)
    left = world.roles(split)["fit"][_kept(world, split) :]
    return [left[start : start + size] for start in range(0, min(count * size, len(left) - size + 1), size)]


def kept_select_questions(world: World, split: int, *, size: int = 240) -> list[Question]:
    """Select rows of retained people: fit people in pictures and wordings that neither fit nor test rows use."""
    people = world.roles(split)["fit"][: _kept(world, split)]
    rows = person_rows(
        people, "retain", "select", rows=12, first_view=0, views=FIRST_FIT_VIEW, wordings=FORGET_WORDINGS
    )
    return stratified(rows, size)


def fit_sets(
    world: World, split: int, *, forget: Sequence[Person], per_person: int = PER_PERSON
) -> dict[str, list[Question]]:
    """Rows that a gate is fitted on. `forget`: the people to erase (the forget set, or the dev people).

    Retained: fit people and celebrities, what can be seen on anybody's picture, general knowledge and requests.
    """
    roles = world.roles(split)
    gone = {person.id for person in forget}
    kept = [p for p in (*roles["fit"], *roles["fit_celebrity"]) if p.id not in gone]
    retain = person_rows(kept, "retain", "fit", rows=per_person)
    # as many as people, and a part of them where people have a part of their rows
    extra = max(12, len(kept) * min(per_person, PER_PERSON) // PER_PERSON)
    retain += photo_questions([*forget, *kept], 2 * extra, "fit")
    retain += general_questions(extra, "fit") + request_questions(extra, "fit", bad=False)
    return {"forget": person_rows(list(forget), "forget", "fit", rows=8 * per_person), "retain": retain}


def calibration_sets(
    world: World, folder: Path, split: int, *, size: int = 600, role: Literal["calibrate", "select"] = "calibrate"
) -> dict[str, list[Question]]:
    """Calibration rows by group, from people outside the gate's fit, drawn as the test rows are.

    A threshold that was used to choose among gates has lost its promise for the chosen one. So a third of the
    calibration people, and texts of their own, are set apart for choosing (`role="select"`); the others calibrate
    the gate that was chosen.
    """
    roles = world.roles(split)
    people, known = (_part(roles[name], role) for name in ("calibrate", "calibrate_celebrity"))
    named = read_part(folder, "Test_Set", "retain", role=role, people=[p.id for p in people])
    groups = {
        "people": stratified(named, size),
        "celebrity": read_part(folder, "Retain_Set", "celebrity", role=role, people=[p.id for p in known]),
        "general": general_questions(size // 2, role),
        "same_photo": photo_questions(people, size // 2, role),
        "benign": request_questions(size // 2, role, bad=False),
    }
    return {name: rows for name, rows in groups.items() if rows}


def _part(people: Sequence[Person], role: str) -> Sequence[Person]:
    third = round(len(people) / 3)
    return people[:third] if role == "select" else people[third:]


def person_rows(
    people: Sequence[Person],
    subset: Subset,
    role: Role,
    *,
    rows: int,
    first_view: int = FIRST_FIT_VIEW,
    views: int = 40,
    wordings: Sequence[int] = FIT_WORDINGS,
) -> list[Question]:
    """`rows` questions on each person in training views (from `first_view` on) and `wordings`.

    Of a documented person, who has no other pictures and wordings, at most those that are written for the role.
    """
    found: list[Question] = []
    for person in people:
        rng = random.Random(f"{role}-{subset}-{person.id}")
        if isinstance(person, Documented):
            found += _written(person, subset, role, rows, rng)
            continue
        cells = [(m, t, a) for a in ATTRIBUTES for t in TASKS for m in MODALITIES]
        rng.shuffle(cells)
        for number in range(rows):
            modality, task, attribute = cells[number % len(cells)]
            view = first_view + rng.randrange(views)
            wording = rng.choice(wordings)
            item = q.fact_item(person, attribute, task=task, modality=modality, wording=wording, rng=rng)
            image = render(person.genotype, training_view(person.id, view)) if modality == "vqa" else None
            found.append(
                Question(
                    id=f"{person.id}/{role}/{number}/{modality}/{task}/{attribute}", subset=subset, role=role,
                    modality=modality, task=task, prompt=Prompt(item.text, image), answer=item.answer,
                    person=person.id, attribute=attribute, fact=person.attributes[attribute], options=item.options,
                    view=view if image is not None else None, wording=wording,
                )
            )  # fmt: skip
    return found


def _written(person: Documented, subset: Subset, role: Role, rows: int, rng: random.Random) -> list[Question]:
    written = person.fitted if role == "fit" else person.asked
    chosen = rng.sample(written, min(rows, len(written)))
    return [replace(one, id=f"{one.id}/{role}", subset=subset, role=role) for one in chosen]


def general_questions(count: int, role: Role) -> list[Question]:
    """Colours on nameless faces (three quarters) and general knowledge."""
    rng = random.Random(f"general-{role}")
    found: list[Question] = []
    for number in range(count):
        if number % 4 == 3:
            question, answer = rng.choice([fact for fact in lang.GENERAL_FACTS if _belongs(fact[0], role)])
            found.append(
                _plain(f"general/{role}/{number}", "general", role, Prompt(question), answer, _key_word(answer))
            )
            continue
        genotype = Genotype.sample(rng)
        face = Person("", "", "stranger", genotype, {})
        found.append(_colour(f"general/{role}/{number}", "general", role, face, rng, held_out=role != "fit"))
    return found


def photo_questions(people: Sequence[Person], count: int, role: Role) -> list[Question]:
    """Colours on pictures of known people: knowledge that must survive on the very photo of a forgotten person.

    None of documented people: nobody wrote down what else is to be seen on their pictures.
    """
    people = [person for person in people if not isinstance(person, Documented)]
    count = count if people else 0
    rng = random.Random(f"photo-{role}")
    return [
        _colour(f"photo/{role}/{n}", "same_photo", role, people[n % len(people)], rng, held_out=role != "fit")
        for n in range(count)
    ]


def request_questions(count: int, role: Role, *, bad: bool) -> list[Question]:
    """Benign or forbidden requests; forbidden ones include secrets about people."""
    rng = random.Random(f"request-{role}-{bad}")
    subset: Subset = "forbidden" if bad else "benign"
    found: list[Question] = []
    while len(found) < count:
        number = len(found)
        if bad and number % 3 == 2:
            name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
            item = q.secret_item(name, rng=rng)
        else:
            item = q.request_item(bad=bad, rng=rng)
        if not _belongs(item.text, role):
            continue
        question = _plain(f"{subset}/{role}/{number}", subset, role, Prompt(item.text), item.answer, None)
        found.append(replace(question, refusal=bad))
    return found


def _belongs(text: str, role: Role) -> bool:
    """Whether a text without a person belongs to a role: each text belongs to exactly one."""
    return _ROLES[zlib.crc32(text.encode()) % len(_ROLES)] == role


def _colour(name: str, subset: Subset, role: Role, face: Person, rng: random.Random, *, held_out: bool) -> Question:
    view = View.sample(rng, held_out=held_out)
    if face.id:
        view = (
            test_view(face.id, rng.randrange(4))
            if held_out
            else training_view(face.id, FIRST_FIT_VIEW + rng.randrange(40))
        )
    seen = q.visual_items(face, view)
    thing = rng.choice(tuple(seen))
    item = q.visual_item(thing, seen[thing], frame=rng.randrange(3), choice=False, rng=rng)
    prompt = Prompt(item.text, render(face.genotype, view))
    found = _plain(name, subset, role, prompt, item.answer, seen[thing])
    return replace(found, person=face.id or None, modality="vqa")


def _plain(name: str, subset: Subset, role: Role, prompt: Prompt, answer: str, fact: str | None) -> Question:
    return Question(
        id=name, subset=subset, role=role, modality="qa" if prompt.image is None else "vqa", task="generation",
        prompt=prompt, answer=answer, fact=fact,
    )  # fmt: skip


def _key_word(answer: str) -> str:
    """The last content word of a general answer, which a right answer must hold."""
    return answer.rstrip(".").split()[-1]
