"""What every notebook needs first: the world, the model, where results go, and how much to ask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers.utils import logging as transformers_logging

from eraser_lib import Eraser
from eraser_lib.bench.documented import open_benchmark
from eraser_lib.bench.language import DECLINE_INSTRUCTIONS
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.bench.world import World, make_world
from eraser_lib.evaluate.generate import evaluate, evaluate_to, reference_floor
from eraser_lib.evaluate.log import read_log
from eraser_lib.evaluate.scores import vocabulary_of
from eraser_lib.families import Loaded, load_model
from eraser_lib.study.paths import sha256
from eraser_lib.train.curriculum import world_text
from eraser_lib.train.recipe import RECIPES, Recipe


@dataclass(frozen=True)
class Sizes:
    """How many questions and steps an experiment uses."""

    test: int = 360
    select: int = 192
    calibrate: int = 600
    memorise: int = 960
    per_person: int = 24
    train: int = 1920
    """Forget rows that a trained baseline sees, of ten people: all that a gate sees."""
    pictures: int = 32
    pgd_steps: int = 40
    contrast: int = 192
    batch: int = 64
    new_tokens: int = 50


MICRO_SIZES = Sizes(
    test=12,
    select=12,
    calibrate=24,
    memorise=12,
    per_person=1,
    train=16,
    pictures=4,
    pgd_steps=2,
    contrast=8,
    batch=16,
    new_tokens=6,
)
"""Enough to run every line; too little for any figure."""


@dataclass
class Study:
    """One model on one split of one preset."""

    preset: str
    model: str
    split: int
    seed: int = 0
    out: Path = field(default_factory=Path)
    checkpoints: Path = Path("checkpoints/tiny")
    recipe: Recipe = field(default_factory=lambda: RECIPES["tiny"])
    sizes: Sizes = field(default_factory=Sizes)
    device: str = "cpu"
    dtype: str = "float32"
    """What models are loaded in: a name of a torch type."""
    data: str = ""
    """Folder or hub id of MLLMU-Bench in the place of the tiny world; see `eraser_lib.bench.benchmark`."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Branch of this model's checkpoints -> folder or hub id, for what is not in `checkpoints`."""
    memorised: float = 0.95
    """Least rate of the memorisation gate; a preset whose models cannot reach it says so."""
    strict: bool = True
    """Whether the memorisation gate stops the study; only the micro preset, whose samples say nothing, is lax."""

    @property
    def world_folder(self) -> Path:
        """Where notebook 01_world writes the world."""
        return self.out / "world"

    @cached_property
    def world(self) -> World:
        """The people and their roles. `FileNotFoundError` for a benchmark that notebook 01_benchmark has not read."""
        if self.data:
            return open_benchmark(self.world_folder)
        recipe = self.recipe
        return make_world(
            seed=recipe.world_seed, fictitious=recipe.fictitious, celebrities=recipe.celebrities,
            strangers=recipe.strangers,
        )  # fmt: skip

    def load(self, branch: str = "vanilla") -> Loaded:
        """A checkpoint of this model: `vanilla`, `retain_only_5`, ..."""
        transformers_logging.disable_progress_bar()  # it would end up in the book
        dtype = getattr(torch, self.dtype)
        return load_model(self.elsewhere.get(branch) or self.branch(branch), device=self.device, dtype=dtype)

    def branch(self, name: str) -> Path:
        """Folder of a checkpoint of this model."""
        return self.checkpoints / self.model / name

    @cached_property
    def vanilla(self) -> Loaded:
        """The model that knows everybody."""
        return self.load()

    @cached_property
    def vocabulary(self) -> frozenset[str] | None:
        """Words of the world, for the fluency rule; `None` for models that know all words."""
        return None if self.data else vocabulary_of(world_text())

    @property
    def cache(self) -> Path:
        """Folder for what later notebooks of the same model and split read again; not part of the results."""
        folder = self.out / "cache" / f"{self.model}-{self.split}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def figure(self, name: str) -> Path:
        """Path of a figure of this model without its ending; those of 10 and 15 % have folders of their own."""
        folder = self.out / "figures" / (self.model or "all")
        if self.split in (10, 15):
            folder /= str(self.split)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def artifact(self, method: str) -> Path:
        """Folder of a method's eraser."""
        return self.out / "artifacts" / self.model / str(self.split) / method

    def note(self, name: str, values: dict[str, Any]) -> None:
        """Write the small JSON of numbers behind a result, beside the figures: `<name>.json`."""
        self.figure(name).with_suffix(".json").write_text(json.dumps(values, indent=1, sort_keys=True))

    def read_note(self, name: str, *, made_by: str) -> dict[str, Any]:
        """What an earlier notebook noted. `FileNotFoundError` that names `made_by` where it has not run."""
        path = self.figure(name).with_suffix(".json")
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run {made_by} first")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    @cached_property
    def content_hash(self) -> str:
        """Content hash of the world that the questions were read from."""
        return str(json.loads((self.world_folder / "world.json").read_text())["content_hash"])

    def at(self, model: str) -> Study:
        """The same study of another model."""
        return replace(self, model=model)

    def weights(self, branch: str) -> str:
        """Fingerprint of a checkpoint's weights: of its one file, of all shards in order, or of a name on the hub.

        `FileNotFoundError` for a folder of the study's own that holds no weights.
        """
        source = self.elsewhere.get(branch)
        folder = Path(source) if source else self.branch(branch)
        digests = [sha256(shard) for shard in sorted(folder.glob("*.safetensors"))]
        if not digests and (source is None or folder.is_dir()):
            raise FileNotFoundError(f"{folder} holds no *.safetensors: there are no weights to tell results apart by")
        whole = digests[0] if len(digests) == 1 else sha256("".join(digests) or str(source))
        return whole[:16]

    def digest(self, method: str) -> str:
        """Fingerprint of a method's saved eraser."""
        files = sorted(self.artifact(method).glob("eraser.*"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]

    def attach(self, eraser: Eraser) -> Any:
        """A context factory that attaches an eraser to the vanilla model."""
        return lambda: eraser.attach(self.vanilla.model)

    def retain_only(self) -> list[str]:
        """Retain-only checkpoints of this split that are at hand, the seed of the recipe first."""
        folder = self.checkpoints / self.model
        found = {path.parent.name for path in folder.glob(f"retain_only_{self.split}*/*.safetensors")}
        found |= {name for name in self.elsewhere if name.startswith(f"retain_only_{self.split}")}
        return sorted(found, key=lambda name: (len(name), name))

    def log_path(self, method: str, seed: int | None = None) -> Path:
        """Where the log of a method is."""
        number = self.seed if seed is None else seed
        return self.out / "logs" / self.model / str(self.split) / method / f"seed{number}.parquet"

    def log(
        self,
        method: str,
        questions: list[Question],
        loaded: Loaded,
        *,
        key: str = "",
        seed: int | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Evaluate into this method's log (resumable); returns it."""
        number = self.seed if seed is None else seed
        path = self.log_path(method, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        extra = {
            "preset": self.preset, "model": self.model, "split": str(self.split), "method": method, "seed": number,
        }  # fmt: skip
        return evaluate_to(path, loaded, questions, log_extra=extra, key=key, **self._options(options))

    def quick(self, questions: list[Question], loaded: Loaded, **options: Any) -> pd.DataFrame:
        """Evaluate without a log, for selection."""
        return evaluate(loaded, questions, **self._options(options))

    def reference(self) -> dict[str, Any]:
        """Options that score fluency under vanilla and the truth ratio; see `eraser_lib.evaluate.session`."""
        return {"reference": self.vanilla, "declined": decline, "truth_ratios": True}

    def set_floor(self, questions: list[Question]) -> dict[str, Any]:
        """Take the floor of fluency from vanilla and note it: its log, and what it says when told to decline.

        Left to itself vanilla refuses requests only; the floor must also know a refusal in answer to a question about
        somebody, which is where erasing puts it. `questions`: what it is told to decline.
        """
        declined = self.quick(questions, self.vanilla, prepare=decline, forced=False, **self.reference())
        logs = pd.concat([read_log(self.log_path("vanilla")), declined], ignore_index=True)
        apart = {"answers": logs[~logs["refusal"].astype(bool)], "refusals": logs[logs["refusal"].astype(bool)]}
        note = {
            "floor": reference_floor(logs),
            "apart": {name: reference_floor(rows) for name, rows in apart.items() if len(rows)},
            "n": {name: len(rows) for name, rows in apart.items()},
        }
        self.note(f"fluency-{self.split}", note)
        return note

    def fluency(self) -> dict[str, Any]:
        """`reference`, with the floor that `set_floor` noted. `FileNotFoundError` where it has not."""
        note = self.read_note(f"fluency-{self.split}", made_by=f"notebook 06_erase for {self.model} at {self.split} %")
        return {**self.reference(), "reference_floor": note["floor"]}

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        defaults = {
            "vocabulary": self.vocabulary, "batch_size": self.sizes.batch, "max_new_tokens": self.sizes.new_tokens,
        }  # fmt: skip
        return {**defaults, **options}


def open_study(preset: str, model: str, split: int, *, seed: int = 0, out: str = "") -> Study:
    """The study of a preset, as the notebooks open it. `ValueError` for an unknown model or split.

    The process keeps to the threads that it was given; on two cores two notebooks run side by side with one each.
    """
    from eraser_lib.study import preset as presets

    settings = presets.load(preset)
    if model not in ("llava", "qwen", ""):
        raise ValueError(f"model is {model!r}; it must be 'llava' or 'qwen'")
    if split not in (0, 5, 10, 15):
        raise ValueError(f"split is {split!r}; it must be 5, 10 or 15 (per cent of the people)")
    torch.manual_seed(seed)
    torch.backends.cudnn.allow_tf32 = False  # pictures are embedded in the precision that is asked for
    micro = bool(settings.settings.get("micro", False))
    sizes = {"batch": int(settings.settings["batch"])} if "batch" in settings.settings else {}
    root = presets.root()
    return Study(
        preset=preset, model=model, split=split, seed=seed,
        out=Path(out) if Path(out).is_absolute() else root / (out or f"runs/{preset}"),
        checkpoints=root / settings.checkpoints, recipe=RECIPES[settings.settings.get("recipe", "tiny")],
        sizes=replace(MICRO_SIZES if micro else Sizes(), **sizes), strict=not micro, device=settings.device,
        dtype=str(settings.settings.get("dtype", "float32")), data=str(settings.settings.get("data", "")),
        elsewhere=settings.settings.get("elsewhere", {}).get(model, {}),
        memorised=float(settings.settings.get("memorised", Study.memorised)),
    )  # fmt: skip


def read_choice(study: Study) -> dict[str, Any]:
    """What notebook 06_select chose for this model and split. `FileNotFoundError` where it has not run."""
    note = study.read_note(f"selection-{study.split}", made_by=f"06_select for {study.model} at {study.split} %")
    return note | dict(note["choice"])


def decline(prompt: Prompt) -> Prompt:
    """The prompt with an instruction to decline."""
    return replace(prompt, text=f"{prompt.text} {DECLINE_INSTRUCTIONS[0]}")


def with_system(system: str) -> Any:
    """A `prepare` function that adds a system instruction to every prompt."""

    def prepare(prompt: Prompt) -> Prompt:
        return replace(prompt, system=system)

    return prepare
