"""Whether the shipped checkpoints still belong to the code, told from their manifests before a run.

A manifest names the recipe (version and hash of its numbers), the content hash of the world, and a hash of every
file, tokenizer and configuration included. An edited comment makes nothing stale; a changed recipe, a changed world
or a changed file does. Nothing here needs torch.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from eraser_lib.study.manifest import provenance
from eraser_lib.study.matrix import Job
from eraser_lib.study.paths import RunFolder, StudyError, canonical, read_json, root, sha256, write_json
from eraser_lib.study.preset import Preset
from eraser_lib.study.sources import module_hashes

WORLD_CODE = "from eraser_lib.bench.world import write_world"
"""What decides the world's content; only if this code changed is the world drawn again to compare its hash."""

RAN = ("device", "machine", "torch", "threads")
"""What a manifest repeats of ``training.json``: where the model was trained, and with what."""

SHIPPED = ("checkpoints/tiny", "checkpoints/tiny-64", "checkpoints/tiny-128")
"""Checkpoints that are committed; all others are made by whoever runs their preset."""


def shipped(folder: Path, models: tuple[str, ...]) -> list[Path]:
    """Folders of checkpoints that are committed, with weights.

    ``<model>/vanilla``, ``<model>/retain_only_*``, and ``<model>/few_refusals``, which was taught to refuse little.
    """
    found = []
    for model in models:
        own = folder / model
        names = [own / "vanilla", *sorted(own.glob("retain_only_*")), own / "few_refusals"]
        found += [path for path in names if (path / "model.safetensors").is_file() and not path.suffix]
    return found


def problems(preset: Preset, *, to_run: bool = True) -> list[str]:
    """What is wrong with the checkpoints of a preset, one line each; empty if nothing is.

    `to_run`: whether the weights are needed; else the record of those that the reference was made from will do.
    """
    if not preset.checkpoints:
        return []
    base = root() / preset.checkpoints
    drawn: dict[str, str] = {}
    if not to_run and not shipped(base, preset.models):
        made = sorted(path for model in preset.models for path in (preset.records / model).glob("*/manifest.json"))
        if made and {path.parent.parent.name for path in made} == set(preset.models):
            return [
                f"{_short(path.parent)}: {reason}" for path in made for reason in stale(path.parent, drawn, files=False)
            ]
    if fine_tuned(preset):
        wanted = [base / model / "vanilla" for model in preset.models]
        return [f"{_short(folder)} holds no weights" for folder in wanted if not any(folder.glob("*.safetensors"))]
    found = [
        f"{_short(base / model / 'vanilla')} holds no model.safetensors"
        for model in preset.models
        if not (base / model / "vanilla" / "model.safetensors").is_file()
    ]
    for folder in shipped(base, preset.models):
        found += [f"{_short(folder)}: {reason}" for reason in stale(folder, drawn)]
    return found


def stale(folder: Path, world: dict[str, str] | None = None, *, files: bool = True) -> list[str]:
    """Why a checkpoint does not belong to the code, in words; empty if it does.

    Args:
        folder: with ``model.safetensors`` and ``manifest.json``.
        world: content hashes already computed, by recipe.
        files: whether to compare the files too, which are not there where the manifest alone is shipped.
    """
    from eraser_lib.train.recipe import RECIPES

    path = folder / "manifest.json"
    if not path.is_file():
        return ["no manifest.json"]
    manifest = read_json(path)
    found = []
    for name, digest in manifest["files"].items() if files else ():
        if not (folder / name).is_file():
            found.append(f"{name} is missing")
        elif sha256(folder / name) != digest:
            found.append(f"{name} is not the file that the manifest names")
    name = manifest["recipe"]["name"]
    if name not in RECIPES:
        return [*found, f"recipe {name!r} no longer exists"]
    now = _recipe(name)
    if manifest["recipe"] != now:
        found.append(f"trained by version {manifest['recipe']['version']} of recipe {name}, which has changed since")
    elif manifest["world_code"] != _world_code():
        known = {} if world is None else world
        if name not in known:
            known[name] = world_hash(name)
        if known[name] != manifest["world"]:
            found.append("trained on another world")
    return found


def require(preset: Preset) -> None:
    """Stop unless the checkpoints are there and belong to the code.

    Raises:
        StudyError: one line per problem, and the command that mends it.
    """
    found = problems(preset)
    if not found:
        return
    again = "make models" if preset.study == "tiny" else f"make models PRESET={preset.name}"
    if preset.device == "cuda":
        again += " REQUIREMENTS=requirements-gpu.txt"
    if preset.checkpoints in SHIPPED:
        begin = f"The checkpoints of preset {preset.name!r} do not belong to this code"
        mend = f"Rebuild them with '{again}', or restore the committed ones with git."
    else:
        begin = f"Preset {preset.name!r} has no models that it could run"
        mend = f"Make them with '{again}'"
        mend += ", or put fine-tuned checkpoints of your own there." if fine_tuned(preset) else "."
    raise StudyError("\n  ".join([f"{begin}:", *found]) + f"\n{mend}")


def record(preset: Preset) -> list[str]:
    """Write the manifests of freshly trained checkpoints, where there is none; returns their folders."""
    if fine_tuned(preset):
        return []
    made = []
    name = recipe_name(preset)
    for folder in shipped(root() / preset.checkpoints, preset.models):
        if (folder / "manifest.json").is_file():
            continue
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "training.json")
        # a model may come from another machine than the one that records it
        path = folder / "training.json"
        training = read_json(path) if path.is_file() else {}
        ran = {name: value for name, value in training.items() if name in RAN}
        content: dict[str, Any] = {
            "schema": 1,
            "model": folder.parent.name,
            "name": folder.name,
            "recipe": _recipe(name),
            "world": world_hash(name),
            "world_code": _world_code(),
            "files": {p.relative_to(folder).as_posix(): sha256(p) for p in files},
            **provenance(preset.device),
            "device": ran.get("device", preset.device),
            "trained": ran,
        }
        write_json(folder / "manifest.json", content)
        made.append(_short(folder))
    return made


def keep_records(preset: Preset, target: Path) -> None:
    """Write what is known of checkpoints that are not committed below `target`, the `Preset.records` of a reference.

    Of checkpoints that are not there the present reference says it, so that a run of some of them loses nothing.
    """
    if not preset.checkpoints or preset.checkpoints in SHIPPED:
        return
    for folder in (preset.records, root() / preset.checkpoints):
        for name in ("manifest.json", "training.json"):
            for path in sorted(folder.glob(f"*/*/{name}")):
                if not path.parent.suffix:
                    copy = target / path.relative_to(folder)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy)


def retire(preset: Preset) -> list[str]:
    """Move models with a stale checkpoint out of the way, so that training starts from nothing; returns where to."""
    if fine_tuned(preset):
        return []
    moved = []
    base = root() / preset.checkpoints
    for model in preset.models:
        made = [folder for folder in shipped(base, (model,)) if (folder / "manifest.json").is_file()]
        if any(stale(folder) for folder in made):
            old = base / ".stale" / model
            shutil.rmtree(old, ignore_errors=True)
            old.parent.mkdir(exist_ok=True)
            (base / model).rename(old)
            moved.append(_short(old))
    return moved


def fine_tuned(preset: Preset) -> bool:
    """Whether the checkpoints are fine-tuned ones of large models: their size, and that others may have made them,
    leaves nothing to compare with a recipe of ours."""
    return bool(preset.settings.get("data"))


def is_whole(folder: Path) -> bool:
    """Whether a fine-tuned checkpoint is there, made by us or put there by somebody: what is written comes whole."""
    return (folder / "config.json").is_file()


@dataclass(frozen=True)
class FineTuning:
    """One checkpoint to fine-tune."""

    model: str
    branch: str
    """``vanilla``, ``retain_only_<split>``, or the latter with ``_seed1`` and so on behind it"""
    base: str
    """Folder or hub id of the model before."""
    without: str
    """Part of the benchmark whose people it does not meet, such as ``forget_5``; empty where it meets everybody."""
    seed: int
    """Added to that of the recipe."""
    folder: Path

    @property
    def there(self) -> bool:
        """Whether there is nothing to make."""
        return is_whole(self.folder)


def fine_tunings(preset: Preset) -> dict[str, FineTuning]:
    """The checkpoints that a preset says are fine-tuned, by ``<model>-<branch>``: ``vanilla``, then one for each split,
    of the smallest as many as ``fine_tuning.seeds`` says.

    Branches that its ``settings.elsewhere`` has are not made. Empty where the preset has no ``fine_tuning``.
    """
    if not preset.fine_tuning:
        return {}
    branches = {"vanilla": ("", 0)}
    for split in preset.splits:
        for seed in range(preset.fine_tuning.get("seeds", 1) if split == min(preset.splits) else 1):
            branches[f"retain_only_{split}" + f"_seed{seed}" * bool(seed)] = (f"forget_{split}", seed)
    elsewhere = preset.settings["elsewhere"]
    return {
        f"{model}-{branch}": FineTuning(
            model, branch, elsewhere[model]["base"], without, seed, root() / preset.checkpoints / model / branch
        )
        for model in preset.models
        for branch, (without, seed) in branches.items()
        if branch not in elsewhere[model]
    }


def read_by(job: Job, made: Mapping[str, FineTuning]) -> list[str]:
    """Names of those among the fine-tuned checkpoints that a job of the matrix reads."""
    return [
        name
        for name, one in made.items()
        if job.model in (None, one.model) and any(fnmatchcase(one.branch, pattern) for pattern in job.branches)
    ]


def mark(made: Mapping[str, FineTuning], folder: RunFolder, *, given: bool = False) -> None:
    """Bring the files that stand for fine-tuned checkpoints (`RunFolder.made`) in line with what is there.

    Snakemake removes what a job is about to make, and what a job made that did not end well; so weights that took hours
    are none of its files.

    Args:
        made: by `fine_tunings`.
        folder: of the run.
        given: whether the study is to do with the checkpoints that are there, so that no other is made.
    """
    for name, one in made.items():
        path = folder.made(name)
        if not (one.there or given):
            path.unlink(missing_ok=True)
        elif not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def recipe_name(preset: Preset) -> str:
    """The recipe of a preset's checkpoints: setting ``recipe``, else ``tiny``."""
    return str(preset.settings.get("recipe", "tiny"))


def world_hash(recipe: str) -> str:
    """Content hash of a recipe's world; draws every portrait, which takes a while."""
    from eraser_lib.bench.world import make_world, write_world
    from eraser_lib.train.recipe import RECIPES

    numbers = RECIPES[recipe]
    world = make_world(
        seed=numbers.world_seed,
        fictitious=numbers.fictitious,
        celebrities=numbers.celebrities,
        strangers=numbers.strangers,
    )
    with tempfile.TemporaryDirectory() as folder:
        return write_world(world, Path(folder))


def _recipe(name: str) -> dict[str, Any]:
    from eraser_lib.train.recipe import RECIPES

    return {"name": name, "version": RECIPES[name].version, "digest": RECIPES[name].digest()}


def _world_code() -> str:
    return sha256(canonical(module_hashes([WORLD_CODE], root=root())))


def _short(path: Path) -> str:
    return path.relative_to(root()).as_posix()
