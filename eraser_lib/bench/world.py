"""The tiny world on disk: people, splits and questions as MLLMU-Bench parquet, with one content hash."""

from __future__ import annotations

import hashlib
import io
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from eraser_lib.bench import language as lang
from eraser_lib.bench import questions as q
from eraser_lib.bench.people import ATTRIBUTES, Person, Population, sample_population
from eraser_lib.bench.portraits import render, test_view, training_view
from eraser_lib.bench.records import Modality, Task

VIEWS = 4
"""Held-out pictures of a person in the test files."""
FORGET_WORDINGS = lang.training_wordings()[:4]
"""Training wordings that the forget and retain files ask in; a gate is fitted on the others."""
FIT_WORDINGS = lang.training_wordings()[4:]
FIRST_FIT_VIEW = 8
"""Training pictures from this number on may be used to fit a gate; the files show number 0."""
SHARES = {5: 95, 10: 90, 15: 85}


@dataclass(frozen=True)
class World:
    """The population and who among the retained people plays which role."""

    population: Population
    seed: int

    def roles(self, share: int) -> dict[str, list[Person]]:
        """People by role for one forget share: `forget`, `dev`, `fit`, `calibrate`, `test`, and the same three of
        the celebrities as `fit_celebrity`, `calibrate_celebrity`, `celebrity`; `stranger`.

        Retained people outside the dev set are split 5 : 2 : 3 into fit, calibrate and test, celebrities alike.
        """
        population = self.population
        dev = set(population.dev)
        roles: dict[str, list[Person]] = {
            "forget": population.by_id(population.forget[share]),
            "dev": population.by_id(population.dev),
            "stranger": population.of_kind("stranger"),
        }
        retained = [person for person in population.retained(share) if person.id not in dev]
        for people, names in (
            (retained, ("fit", "calibrate", "test")),
            (population.of_kind("celebrity"), ("fit_celebrity", "calibrate_celebrity", "celebrity")),
        ):
            shuffled = list(people)
            random.Random(f"roles-{self.seed}").shuffle(shuffled)
            first, second = round(0.5 * len(shuffled)), round(0.7 * len(shuffled))
            for name, part in zip(names, (shuffled[:first], shuffled[first:second], shuffled[second:]), strict=True):
                roles[name] = part
        return roles


def make_world(*, seed: int = 0, fictitious: int = 200, celebrities: int = 40, strangers: int = 100) -> World:
    """The world of these sizes; see `sample_population` for errors."""
    people = sample_population(seed, fictitious=fictitious, celebrities=celebrities, strangers=strangers)
    return World(people, seed)


def person_questions(person: Person, wordings: list[int], *, purpose: str) -> dict[str, Any]:
    """The three task columns of one person: every attribute once for each task and modality.

    `purpose` seeds the choice of wordings, options and phrases, so that files do not repeat one another.
    """
    rng = random.Random(f"{purpose}-{person.id}")
    classification: dict[str, list[dict[str, Any]]] = {"Image_Textual_Questions": [], "Pure_Text_Questions": []}
    cloze: list[dict[str, Any]] = []
    generation: list[dict[str, Any]] = []
    pairs: list[tuple[Modality, str]] = [("vqa", "Image_Textual"), ("qa", "Pure_Text")]
    for modality, kind in pairs:
        for attribute in ATTRIBUTES:
            value = person.attributes[attribute]

            def draw(task: Task, attribute: str = attribute, modality: Modality = modality) -> tuple[int, str, str]:
                wording = rng.choice(wordings)
                who = person.name if modality == "qa" else rng.choice(lang.VQA_WHO)
                return wording, who, lang.ask(attribute, wording, who, cloze=task == "cloze")

            wording, who, text = draw("classification")
            options = [value, *rng.sample([v for v in ATTRIBUTES[attribute] if v != value], 3)]
            rng.shuffle(options)
            classification[f"{kind}_Questions"].append({
                "Question": text, "Options": dict(zip(q.LETTERS, options, strict=True)),
                "Correct_Answer": q.LETTERS[options.index(value)], "Attribute": attribute, "Wording": wording,
            })  # fmt: skip
            wording, who, text = draw("cloze")
            cloze.append({
                "Question": text, "Ground_Truth": value, "Type": kind, "Attribute": attribute, "Wording": wording,
            })  # fmt: skip
            wording, who, text = draw("generation")
            paraphrase, wrong = q.truth_ratio_answers(person, attribute, who, rng)
            generation.append({
                "Question": text, "Ground_Truth": lang.state(attribute, value, who), "Type": kind, "Fact": value,
                "Attribute": attribute, "Wording": wording, "Paraphrase": paraphrase, "Wrong": list(wrong),
            })  # fmt: skip
    return {"Classification_Task": classification, "Mask_Task": cloze, "Generation_Task": generation}


def _png(image: Image.Image) -> dict[str, bytes]:
    out = io.BytesIO()
    image.save(out, "PNG")
    return {"bytes": out.getvalue()}


def _row(person: Person, *, held_out: bool) -> dict[str, Any]:
    purpose, wordings = ("test", lang.held_out_wordings()) if held_out else ("files", FORGET_WORDINGS)
    columns = person_questions(person, wordings, purpose=purpose)
    metadata = [
        {"Question": lang.ask(name, 0, person.name), "Answer": lang.state(name, value, person.name)}
        for name, value in person.attributes.items()
    ]
    row: dict[str, Any] = {"ID": person.id}
    if held_out:
        row["images"] = [_png(render(person.genotype, test_view(person.id, n))) for n in range(VIEWS)]
    else:
        row["image"] = _png(render(person.genotype, training_view(person.id, 0)))
    row["metadata"] = json.dumps(metadata)
    return row | {name: json.dumps(value) for name, value in columns.items()}


def world_files(world: World) -> dict[str, list[Person]]:
    """File name (without ending) -> the people in it, as in MLLMU-Bench, and `Stranger_Set` which is ours."""
    population = world.population
    files = {"Full_Set": population.of_kind("fictitious")}
    for share, rest in SHARES.items():
        files[f"forget_{share}"] = population.by_id(population.forget[share])
        files[f"retain_{rest}"] = population.retained(share)
    files["Test_Set"] = population.of_kind("fictitious")
    files["Retain_Set"] = population.of_kind("celebrity")
    files["Stranger_Set"] = population.of_kind("stranger")
    return files


HELD_OUT_FILES = ("Test_Set", "Retain_Set", "Stranger_Set")
"""Files with unseen views and held-out wordings; the others show training views in training wordings."""


def write_world(world: World, folder: Path) -> str:
    """Write all files and `world.json` below `folder`; returns the content hash.

    The hash covers decoded pixels and canonical JSON, not file bytes, so that it is equal on every platform.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name, people in world_files(world).items():
        rows = [_row(person, held_out=name in HELD_OUT_FILES) for person in people]
        for row in rows:
            _update(digest, row)
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet", index=False)
    population = world.population
    description = {
        "seed": world.seed,
        "people": [asdict(person) for person in population.people],
        "forget": {str(share): list(ids) for share, ids in population.forget.items()},
        "dev": list(population.dev),
    }
    text = json.dumps(description, sort_keys=True)
    digest.update(text.encode())
    content_hash = digest.hexdigest()
    (folder / "world.json").write_text(json.dumps({"content_hash": content_hash, **description}, indent=1))
    return content_hash


def _update(digest: Any, row: dict[str, Any]) -> None:
    pictures = row.get("images") or [row["image"]]
    for picture in pictures:
        image = Image.open(io.BytesIO(picture["bytes"])).convert("RGB")
        digest.update(f"{image.size}".encode() + image.tobytes())
    for name in ("ID", "metadata", "Classification_Task", "Mask_Task", "Generation_Task"):
        value = row[name]
        canonical = value if name == "ID" else json.dumps(json.loads(value), sort_keys=True)
        digest.update(canonical.encode())
