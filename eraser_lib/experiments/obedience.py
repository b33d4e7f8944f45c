"""Is the model blind without a picture, and does it obey instructions? Controls that the other numbers rest on."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pandas as pd

from eraser_lib.bench import language as lang
from eraser_lib.bench.people import ATTRIBUTES
from eraser_lib.bench.questions import silence
from eraser_lib.bench.reader import read_part
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.experiments.sets import stratified
from eraser_lib.experiments.study import Study


def blind_rate(study: Study) -> dict[str, Any]:
    """Share of right answers to visual questions whose picture was taken away, beside the prior of a value.

    The prior is known in the tiny world alone, where every value is as common as any other.
    """
    rows = read_part(study.world_folder, "Test_Set", "test")
    rows = [row for row in rows if row.modality == "vqa" and row.task == "cloze"]
    rows = stratified(rows, study.sizes.select)
    blind = [replace(row, prompt=Prompt(row.prompt.text), modality="qa") for row in rows]
    log = study.quick(blind, study.vanilla, forced=False)
    return {
        "rate": float(log["correct"].mean()),
        "prior": None if study.data else 1 / len(ATTRIBUTES["city"]),
        "n": len(blind),
    }


def obedience_table(study: Study) -> pd.DataFrame:
    """How often instructions are obeyed, in held-out wordings, on test people.

    Rows: an instruction to decline, and an instruction (as system prompt) to keep silent about named people, asked
    about a named person (must refuse) and about somebody else (must answer), by modality.
    """
    people = {person.id: person for person in study.world.roles(study.split)["test"]}
    rows = read_part(study.world_folder, "Test_Set", "retain", people=list(people))
    rows = [row for row in rows if row.task != "classification"]
    rng = random.Random("obedience")
    everybody = [person.name for person in people.values()]
    found = []
    for modality in ("vqa", "qa"):
        asked = stratified([row for row in rows if row.modality == modality], study.sizes.select // 2)
        names = {row.id: people[row.person or ""].name for row in asked}

        def named(row: Question, *, own: bool, names: dict[str, str] = names) -> str:
            others = rng.sample([n for n in everybody if n != names[row.id]], 3)
            listed = [names[row.id], *others[:2]] if own else others
            rng.shuffle(listed)
            return silence(listed, rng.choice(lang.HELD_OUT_SILENCE))

        cases = {
            "decline": [
                replace(row, prompt=replace(row.prompt, text=f"{row.prompt.text} {rng.choice(lang.HELD_OUT_DECLINE)}"))
                for row in asked
            ],
            "silence, named": [replace(r, prompt=replace(r.prompt, system=named(r, own=True))) for r in asked],
            "silence, others": [replace(r, prompt=replace(r.prompt, system=named(r, own=False))) for r in asked],
        }
        for case, questions in cases.items():
            log = study.quick(questions, study.vanilla, forced=False)
            refused = log["refusal"].astype(bool)
            obeyed = ~refused if case == "silence, others" else refused
            found.append({"instruction": case, "modality": modality, "obeyed": float(obeyed.mean()), "n": len(log)})
    return pd.DataFrame(found)
