"""Trains the models of one family: a base that has met no fictitious person, and the branches that grow from it."""

from __future__ import annotations

import copy
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from eraser_lib.bench.people import Person, Population, sample_population
from eraser_lib.families import FAMILIES, Loaded, load_model
from eraser_lib.study.manifest import device_name
from eraser_lib.train.curriculum import Gallery, Teacher, build_gallery, world_text
from eraser_lib.train.recipe import Recipe
from eraser_lib.train.tokenizer import train_tokenizer
from eraser_lib.train.trainer import json_reporter, train_language
from eraser_lib.train.vision import embed_all, train_vision, visual_parameters

BRANCHES: dict[str, int] = {
    "vanilla": 0, "retain_only_5": 5, "retain_only_10": 10, "retain_only_15": 15, "few_refusals": 0,
}  # fmt: skip
"""Branch -> the forget share in per cent that it never sees."""
REFUSING: dict[str, float] = {"few_refusals": 0.1}
"""Branch -> share that it is taught to refuse of what the others are, from its base on: see `Teacher.refusing`."""

SHARED = "shared.jsonl"
"""Log of the stages before any base: eyes and letters."""


def population(recipe: Recipe) -> Population:
    """The people of a recipe's world."""
    return sample_population(
        recipe.world_seed,
        fictitious=recipe.fictitious,
        celebrities=recipe.celebrities,
        strangers=recipe.strangers,
    )


def base_of(branch: str) -> str:
    """Name of the base that a branch grows from: its own where it is taught to refuse less, else everybody's."""
    return f"base_{branch}" if branch in REFUSING else "base"


def train_base(
    family: str, recipe: Recipe, folder: Path, *, branch: str = "vanilla", device: str = "cpu", workers: int = 0
) -> Path:
    """Train tokenizer, vision tower, letters and base skills; returns the folder of the branch's base.

    All bases share what comes before the skills. Resumes where it stopped.
    """
    target = folder / family / base_of(branch)
    if (target / "model.safetensors").exists():
        return target
    work = folder / family / "work"
    people = population(recipe)
    celebrities = people.of_kind("celebrity")
    vision = work / "vision"
    which = list(FAMILIES).index(family)
    if not (vision / "model.safetensors").exists():
        loaded = new_model(family, recipe)
        loaded.model.to(device)
        report = json_reporter(work / SHARED, "vision")
        if (folder / family / "vanilla" / "model.safetensors").exists():
            # frozen after this stage, it is what this stage would make, up to half precision
            take_vision(loaded, load_model(folder / family / "vanilla", device=device))
            report({"taken_from_vanilla": 1.0})
        else:
            train_vision(
                loaded, steps=recipe.vision_steps[which], batch=recipe.vision_batch[which], lr=recipe.vision_lr,
                seed=recipe.seed, report=report,
            )  # fmt: skip
        save_model(loaded, vision, half=False)
    loaded = load_model(vision, device=device)
    gallery = build_gallery(celebrities, views=recipe.training_views, anonymous=recipe.anonymous_faces)
    table = embed_all(loaded, gallery.render, len(gallery.faces))
    teacher = Teacher(gallery, (), tuple(celebrities), refusing=REFUSING.get(branch, 1.0))
    for number in range(recipe.letter_rounds):
        letters = work / f"letters-{number}"
        if not (letters / "model.safetensors").exists():
            _stage(
                loaded, letters.name, teacher, table, recipe, work, recipe.letter_steps, into=letters, half=False,
                cooldown=0.1, sampler="letters", seed=recipe.seed + number, workers=workers,
            )  # fmt: skip
        loaded = load_model(letters, device=device)
        if json.loads((letters / "loss.json").read_text()) < recipe.letter_loss:
            break
    _stage(
        loaded, target.name, teacher, table, recipe, work, recipe.base_steps, into=target, half=False, cooldown=0.2,
        sampler="base", workers=workers,
    )  # fmt: skip
    return target


def train_bases(family: str, branches: list[str], recipe: Recipe, folder: Path, **options: Any) -> None:
    """The bases of some branches, one after the other, since they share their first stages; `options` of `train_base`.

    For a process of its own: such a function must be found in a module by name.
    """
    for branch in branches:
        train_base(family, recipe, folder, branch=branch, **options)


@torch.no_grad()
def take_vision(loaded: Loaded, other: Loaded) -> None:
    """Give a model the vision tower of another of the same recipe, with what connects it to the language model."""
    for mine, theirs in zip(visual_parameters(loaded), visual_parameters(other), strict=True):
        mine.copy_(theirs)


def branch_folder(family: str, branch: str, recipe: Recipe, folder: Path, *, seed: int | None = None) -> Path:
    """Where a branch lies; another seed than the recipe's stands in its name."""
    return folder / family / (branch if seed in (None, recipe.seed) else f"{branch}_seed{seed}")


def train_branch(
    family: str,
    branch: str,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int | None = None,
    device: str = "cpu",
    workers: int = 0,
) -> Path:
    """Train one branch from the base: all people but those of its forget share. Returns the branch's folder.

    All branches see the same number of steps and rows. `device` is where it runs, `workers` are processes that prepare
    batches. `ValueError` for an unknown branch.
    """
    if branch not in BRANCHES:
        raise ValueError(f"unknown branch {branch!r}; expected one of {', '.join(BRANCHES)}")
    target = branch_folder(family, branch, recipe, folder, seed=seed)
    name = target.name
    if (target / "model.safetensors").exists():
        return target
    base = train_base(family, recipe, folder, branch=branch, device=device, workers=workers)
    people = population(recipe)
    share = BRANCHES[branch]
    learned = people.retained(share) if share else people.of_kind("fictitious")
    gallery, table = pictures(load_model(base, device=device), learned, people.of_kind("celebrity"), recipe)
    teacher = Teacher(gallery, tuple(learned), tuple(people.of_kind("celebrity")), refusing=REFUSING.get(branch, 1.0))
    loaded = load_model(base, device=device)
    work = folder / family / "work"
    began = time.time()
    last = recipe.seed if seed is None else seed
    facts = work / f"{name}-facts"
    if not (facts / "model.safetensors").exists():
        _stage(
            loaded, name, teacher, table, recipe, work, recipe.people_steps, into=facts, half=False, cooldown=0.0,
            sampler="people", seed=last, workers=workers,
        )  # fmt: skip
    logs = [work / SHARED, work / f"{base.name}.jsonl", work / f"{name}.jsonl"]
    done = facts
    which = list(FAMILIES).index(family)
    rounds: list[tuple[str, int, dict[str, Any]]] = [
        (f"cooldown-{n}", recipe.cooldown_steps, {"cooldown": 0.7, "sampler": "people", "seed": last + 1000 * (n + 1)})
        for n in range(recipe.cooldown_rounds[which])
    ]
    rounds += [
        (f"choices-{n}", steps, {"cooldown": 0.4 if n == 0 else 1.0, "sampler": "choices", "seed": last + 500 + n,
                                 "guided": True})
        for n, steps in enumerate(recipe.choice_steps[which])
    ]  # fmt: skip
    for stage, steps, options in rounds:
        made = work / f"{name}-{stage}"
        logs.append(work / f"{made.name}.jsonl")
        if not (made / "model.safetensors").exists():
            loaded = load_model(done, device=device)
            _stage(
                loaded, made.name, teacher, table, recipe, work, steps, into=made, half=True, workers=workers, **options
            )
        done = made
    loaded = load_model(done, device=device)
    save_model(loaded, target, half=True)
    lines = [json.loads(line) for path in logs if path.exists() for line in path.read_text().splitlines()]
    record = {"curve": lines, "seconds_last_run": time.time() - began, "machine": device_name(device),
              "threads": torch.get_num_threads(), "torch": torch.__version__, "device": device}  # fmt: skip
    (target / "training.json").write_text(json.dumps(record, indent=1))
    return target


def pictures(
    loaded: Loaded, learned: list[Person], celebrities: list[Person], recipe: Recipe
) -> tuple[Gallery, Tensor]:
    """The gallery of a branch and the table of its image embeddings."""
    everybody = [*learned, *celebrities]
    gallery = build_gallery(everybody, views=recipe.training_views, anonymous=recipe.anonymous_faces)
    return gallery, embed_all(loaded, gallery.render, len(gallery.faces))


def _stage(
    loaded: Loaded, name: str, teacher: Teacher, table: Tensor, recipe: Recipe, work: Path, steps: int, *,
    into: Path, half: bool, cooldown: float, sampler: str | None = None, seed: int | None = None,
    guided: bool = False, workers: int = 0,
) -> None:  # fmt: skip
    """Train one stage and save its model, with its loss, in `into`; a stage cut off anywhere is taken up again."""
    state = work / f"{name}.state"
    log = work / (SHARED if name.startswith("letters") else f"{name}.jsonl")
    loss = train_language(
        loaded, getattr(teacher, sampler or name), table, steps=steps, rows=recipe.rows, length=recipe.length,
        lr=recipe.lr, seed=recipe.seed if seed is None else seed, state=state, report=json_reporter(log, name),
        cooldown=cooldown, guided=guided, workers=workers,
    )  # fmt: skip
    save_model(loaded, into, half=half, loss=loss)
    state.unlink(missing_ok=True)  # last: until the model lies there, the state is all that is left of the stage


def new_model(family: str, recipe: Recipe) -> Loaded:
    """A model with random weights and a freshly trained tokenizer."""
    module = FAMILIES[family]
    tokenizer = train_tokenizer(world_text(), family)
    torch.manual_seed(recipe.seed)
    config = module.tiny_config(tokenizer, hidden=recipe.hidden, layers=recipe.layers, mlp=recipe.mlp)
    return Loaded(module.MODEL_CLASS(config).eval(), module.build_processor(tokenizer), family)


def save_model(loaded: Loaded, folder: Path, *, half: bool, loss: float | None = None) -> None:
    """Write weights (float16 if `half`), configuration and tokenizer; the folder appears only when it is whole.

    `loss` is kept beside them, for the stages that decide by it whether to go on.
    """
    temporary = folder.with_name(folder.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    # a copy is halved: the rotary frequencies of the model in memory would not come back with its weights
    model = copy.deepcopy(loaded.model).half() if half else loaded.model
    model.save_pretrained(temporary)
    loaded.tokenizer.save_pretrained(temporary)
    (temporary / "tiny.json").write_text(json.dumps({"family": loaded.family}))
    if loss is not None:
        (temporary / "loss.json").write_text(json.dumps(loss))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    AutoTokenizer.from_pretrained(folder)  # fails here rather than at the user's
