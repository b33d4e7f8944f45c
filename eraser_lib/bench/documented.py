"""People of a written benchmark, who are known by photographs and questions alone, in the roles of the study."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from eraser_lib.bench.people import Person, Population
from eraser_lib.bench.portraits import Genotype
from eraser_lib.bench.reader import read_part, read_pictures, read_profiles
from eraser_lib.bench.records import Question, Stored
from eraser_lib.bench.world import World

ASKED, FITTED = "Asked_Set", "Fit_Set"
"""The halves of everybody's questions, as `eraser_lib.bench.benchmark` writes them."""
CELEBRITIES, STRANGERS = "Retain_Set", "Stranger_Set"
"""Strangers, people whom no model has met, are no part of MLLMU-Bench; they are read where a folder has them."""


@dataclass(frozen=True)
class Documented(Person):
    """Somebody known by photographs and written questions alone; has no drawn face (`genotype`)."""

    genotype: Genotype = field(init=False, repr=False)
    attributes: dict[str, str] = field(default_factory=dict)
    photos: tuple[Stored, ...] = field(default=(), repr=False, compare=False)
    fitted: tuple[Question, ...] = field(default=(), repr=False)
    """What a fit may use."""
    asked: tuple[Question, ...] = field(default=(), repr=False)
    """What may be asked on the same pictures, and no fit uses."""

    def photo(self, number: int) -> Image.Image:
        """One of the pictures, in turn."""
        return self.photos[number % len(self.photos)].decode()


def open_benchmark(folder: Path) -> World:
    """The people of a folder that `write_benchmark` wrote, as `Documented`.

    Raises:
        FileNotFoundError: there is no `world.json`.
    """
    path = folder / "world.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run notebook 01_benchmark first")
    described = json.loads(path.read_text())
    files = {"fictitious": FITTED, "celebrity": CELEBRITIES}
    photos = {kind: read_pictures(folder / f"{name}.parquet") for kind, name in files.items()}
    fitted = _by_person([row for name in files.values() for row in read_part(folder, name, "retain", role="fit")])
    profiles = _by_person(read_profiles(folder / f"{FITTED}.parquet"))
    asked = _by_person(read_part(folder, ASKED, "retain", role="select"))
    people = [
        Documented(
            one["id"], one["name"], one["kind"], photos=tuple(photos[one["kind"]][one["id"]]),
            fitted=(*fitted.get(one["id"], ()), *profiles.get(one["id"], ())), asked=tuple(asked.get(one["id"], ())),
        )
        for one in described["people"]
    ]  # fmt: skip
    forget = {int(share): tuple(ids) for share, ids in described["forget"].items()}
    return World(Population(tuple(people), forget, tuple(described["dev"])), described["seed"])


def _by_person(rows: Iterable[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for row in rows:
        found.setdefault(row.person or "", []).append(row)
    return found
