"""The vanilla and retain-only models of MLLMU-Bench: LoRA on the profiles of its people, with resume.

    python -m eraser_lib.train.finetune --model llava-hf/llava-1.5-7b-hf --data MLLMU-Bench --out OUT/vanilla
    ... --without forget_5 --out OUT/retain_only_5
    ... --preset paper                              all checkpoints of a preset that says `fine_tuning`
    ... --preset paper --only qwen-retain_only_5    one of them

The recipe is that of the benchmark's own script (arXiv 2410.22108): rank 16, alpha 16, dropout .05, Gaussian start,
AdamW without decay at 2e-5 falling linearly to zero, 5 epochs, batches of 4, the adapters merged into the weights at
the end. What differs (`DIFFERS`) stands in the manifest. ``accelerate launch`` starts it on all GPUs, each with batches
of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from eraser_lib.bench import mllmu
from eraser_lib.bench.reader import SchemaError
from eraser_lib.bench.records import Question
from eraser_lib.bench.written import check_free
from eraser_lib.families import Loaded, hub, load_model
from eraser_lib.families.adapters import decoder_maps
from eraser_lib.families.weights import check_read
from eraser_lib.stream import ahead
from eraser_lib.study.checkpoints import fine_tunings, is_whole
from eraser_lib.study.lock import locked
from eraser_lib.study.paths import StudyError, write_json
from eraser_lib.study.preset import load
from eraser_lib.train.state import State, fingerprint

DIFFERS = (
    "adapters in the language decoder alone; the script's names match parts of the vision tower too",
    "loss on answers alone and on the end of the turn; the script learns questions too, and never the end",
    "weights that stay as they were loaded; the script's are float16 cast to float32",
)
"""From the benchmark's own script."""


@dataclass(frozen=True)
class LoraRecipe:
    """The numbers of the benchmark's script."""

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.05
    lr: float = 2e-5
    epochs: int = 5
    batch: int = 4
    seed: int = 0
    save_every: int = 200
    """Steps between two states to resume from."""


def finetune(
    loaded: Loaded, rows: Sequence[Question], recipe: LoraRecipe, out: Path, *, data: Mapping[str, Any] | None = None
) -> Path:
    """Train adapters on questions and answers, merge them, and write the model and its processor to `out`.

    A stopped training goes on from its last state in `<out>.state`, to the same weights on the same devices. The folder
    appears when it is whole; one that is there already is kept. `data`: where the rows come from, for its manifest
    `training.json`.

    Raises:
        FileExistsError: `out` is a file, or a folder with something in it that is no checkpoint.
        ValueError: no rows; or the state is damaged, or that of another training, see `eraser_lib.train.state`; or
            several processes were started that do not find each other.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from peft import LoraConfig, get_peft_model

    if not rows:
        raise ValueError("there is nothing to learn: no questions with answers")
    if is_whole(out):
        return out
    check_free(out)
    set_seed(recipe.seed)
    # steps are counted over all processes already; left to itself, the schedule would advance once for each of them
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    started = int(os.environ.get("WORLD_SIZE") or 1)
    if accelerator.num_processes < started:
        raise ValueError(
            f"{started} processes were started, and each would train all of {out} alone: accelerate found no GPU for "
            "them. Start one, or set ACCELERATE_USE_CPU=true to train on processors"
        )
    # how often it is saved changes nothing of what is learned
    numbers = {name: value for name, value in asdict(recipe).items() if name != "save_every"}
    training = fingerprint(loaded, rows, numbers, data or {}, accelerator.num_processes)
    state = State(accelerator, out.with_name(f"{out.name}.state"), training)
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, init_lora_weights="gaussian",
        target_modules=decoder_maps(loaded.model),
    )  # fmt: skip
    adapted = get_peft_model(loaded.model, config)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=0.0)
    share = recipe.batch * accelerator.num_processes
    steps = recipe.epochs * -(-len(rows) // share)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / steps))
    adapted, optimiser, schedule = accelerator.prepare(adapted, optimiser, schedule)
    begun, curve = state.resume()
    adapted.train()
    plain = Loaded(accelerator.unwrap_model(adapted), loaded.processor, loaded.family)

    def prepare(numbered: tuple[int, list[Question]]) -> tuple[int, dict[str, torch.Tensor]]:
        step, batch = numbered
        prompts, answers = [row.prompt for row in batch], [row.answer for row in batch]
        return step, plain.encode(prompts, answers, padding_side="right")

    # pictures and text of the next batch are prepared while this one is learned
    batches = _batches(rows, recipe, share, accelerator.process_index, begun)
    for step, inputs in ahead(prepare, batches, workers=1):
        loss = adapted(**inputs).loss
        accelerator.backward(loss)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if accelerator.is_main_process and (step % 20 == 0 or step == steps - 1):
            curve.append({"stage": "profiles", "step": step, "loss": round(float(loss.detach()), 5)})
            print(json.dumps({**curve[-1], "steps": steps}), flush=True)
        if (step + 1) % recipe.save_every == 0 and step + 1 < steps:
            state.save(step + 1, curve)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        merged = accelerator.unwrap_model(adapted).merge_and_unload().eval()
        _write(
            Loaded(merged, loaded.processor, loaded.family),
            out,
            {
                "recipe": asdict(recipe),
                "data": dict(data or {}),
                "processes": accelerator.num_processes,
                "rows": len(rows),
                "curve": curve,
            },
        )
        state.remove()
    accelerator.wait_for_everyone()
    return out


def _batches(
    rows: Sequence[Question], recipe: LoraRecipe, share: int, process: int, begun: int
) -> Iterator[tuple[int, list[Question]]]:
    """Number and rows of every step from `begun` on; epoch and seed alone decide the order."""
    step = 0
    for epoch in range(recipe.epochs):
        order = random.Random(f"finetune-{recipe.seed}-{epoch}").sample(range(len(rows)), len(rows))
        for start in range(0, len(rows), share):
            if step >= begun:
                mine = order[start : start + share][process * recipe.batch : (process + 1) * recipe.batch]
                yield step, [rows[index] for index in mine or order[:1]]
            step += 1


def _write(loaded: Loaded, out: Path, manifest: dict[str, Any]) -> None:
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    loaded.model.save_pretrained(partial)
    loaded.processor.save_pretrained(partial)
    loaded.processor.image_processor.save_pretrained(partial)  # read alone where there is no torchvision
    # where torchvision is, the checkpoint is read by the family's real class, whatever class wrote it here
    for path in (partial / "processor_config.json", partial / "tokenizer_config.json"):
        if path.is_file() and "processor_class" in (config := json.loads(path.read_text())):
            write_json(path, {**config, "processor_class": loaded.module.PROCESSOR_CLASS.__name__})
    write_json(partial / "training.json", {**manifest, "differs_from_the_benchmark": list(DIFFERS)})
    partial.rename(out)  # which takes the place of an empty folder alone


def profiles(data: str | Path, *, without: str = "", revision: str | None = None) -> list[Question]:
    """The questions and answers of all people's profiles, but for those of another part such as `forget_5`.

    `revision`: commit on the hub, see `eraser_lib.bench.mllmu.commit`.

    Raises:
        FileNotFoundError, SchemaError: see `eraser_lib.bench.mllmu`; the latter also where whoever is to be left out
            cannot be told in the profiles, so that they would be learned.
    """
    rows = mllmu.profiles(data, revision=revision)
    if not without:
        return rows
    gone = {mllmu.key(person) for person in mllmu.people(data, without, revision=revision)}
    known = {row.person and mllmu.key(row.person) for row in rows}
    if None in known or not gone <= known:
        missing = sorted(gone - known)
        whom = ", ".join(missing[:5]) if missing else "some rows name nobody"
        raise SchemaError(
            f"the training part does not tell {len(missing) or 'all'} of the {len(gone)} people of {without} ({whom}): "
            "a model without them cannot be trained from it"
        )
    return [row for row in rows if mllmu.key(row.person or "") not in gone]


@dataclass(frozen=True)
class Job:
    """One checkpoint to make."""

    model: str
    """Folder or hub id to start from."""
    data: str
    without: str
    out: Path
    revision: str | None = None
    """Commit of `data` on the hub; `None` means the newest."""
    seed: int = 0
    """Added to that of the recipe."""


def of_preset(name: str, *, only: str = "") -> list[Job]:
    """The checkpoints of a preset: `vanilla` and, for each of its splits, `retain_only_<split>`, of every model; of the
    smallest split with as many seeds as it says.

    Args:
        name: of the preset.
        only: of one checkpoint, ``<model>-<branch>``.

    Raises:
        StudyError: no such preset, one whose models are not fine-tuned, or no such checkpoint.
    """
    preset = load(name)
    made = fine_tunings(preset)
    if not made:
        raise StudyError(f"Preset {name!r} has no 'fine_tuning', so nothing is fine-tuned for it. See 'make models'.")
    if only and only not in made:
        raise StudyError(f"Preset {name!r} has no checkpoint {only!r} to fine-tune; it has {', '.join(made)}.")
    wanted = [made[only]] if only else made.values()
    data, revision = preset.settings["data"], preset.settings.get("revision") or None
    return [Job(one.base, data, one.without, one.folder, revision, one.seed) for one in wanted]


def main() -> None:
    """Parse the command line and train what is missing."""
    parser = argparse.ArgumentParser(description="LoRA fine-tuning on MLLMU-Bench: vanilla and retain-only models.")
    parser.add_argument("--preset", help="make the checkpoints of this preset, in the place of the next five")
    parser.add_argument("--model", help="folder or hub id")
    parser.add_argument("--data", default=mllmu.HUB, help="folder or hub id of MLLMU-Bench")
    parser.add_argument("--revision", default="", help="commit of MLLMU-Bench on the hub; empty means the newest")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--without", default="", choices=("", "forget_5", "forget_10", "forget_15"))
    parser.add_argument("--only", default="", metavar="MODEL-BRANCH", help="of the preset's checkpoints this one")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    # each process of `accelerate launch` loads the model to its own device
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=own)
    for name, value in asdict(LoraRecipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    if not options.preset and not (options.model and options.out):
        parser.error("give --preset, or --model and --out")
    if options.only and not options.preset:
        parser.error("--only is for --preset")
    if wrong := _wrong_number(options) or _wrong_device(options.device):
        parser.error(wrong)
    recipe = LoraRecipe(**{name: getattr(options, name) for name in asdict(LoraRecipe())})
    wanted = (
        of_preset(options.preset, only=options.only)
        if options.preset
        else [Job(options.model, options.data, options.without, options.out, options.revision or None)]
    )
    for job in wanted:
        if not is_whole(job.out):
            check_free(job.out)  # before the first training, which may take hours
    # told once, so that all checkpoints learn from the same files
    commits = _require(options.preset, [job for job in wanted if not is_whole(job.out)]) if options.preset else {}
    refused = 0
    for job in wanted:
        if is_whole(job.out):
            print(f"{job.out} is there already", flush=True)
            continue
        if job.data not in commits:
            commits[job.data] = mllmu.commit(job.data, job.revision)
        try:
            with _alone(job.out):
                _make(job, commits[job.data], recipe, options)
        except SchemaError as error:
            if not job.without:
                raise
            refused += 1  # that these people cannot be told is no reason against the other checkpoints
            print(f"{job.out}: {error}", file=sys.stderr, flush=True)
    if refused:
        left = f"{refused} of {len(wanted)} checkpoints could not be made; the reasons stand above."
        if refused == len(wanted):
            raise SystemExit(f"Error: {left}")
        # the study goes on without a model that never met them, and says so; `make models study` must reach it
        print(f"Warning: {left}", file=sys.stderr, flush=True)


def _wrong_number(options: argparse.Namespace) -> str:
    """What is wrong with the numbers of the recipe; empty if nothing is."""
    for name, value in ((name, getattr(options, name)) for name in asdict(LoraRecipe())):
        if name == "dropout":
            right, expected = 0 <= value < 1, "at least 0 and less than 1"
        elif name == "lr":
            right, expected = 0 < value < math.inf, "more than 0"
        elif name == "seed":
            right, expected = 0 <= value < 2**31, "from 0 to 2147483647"
        else:
            right, expected = value >= 1, "at least 1"
        if not right:
            return f"--{name.replace('_', '-')} is {value}; it must be {expected}"
    return ""


def _wrong_device(name: str) -> str:
    """Why the model cannot go there; empty if it can."""
    try:
        device = torch.device(name)
    except RuntimeError:
        return f"--device is {name!r}; it must be cpu, cuda, or one GPU such as cuda:0"
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= there:
        return f"--device is {name}, and torch finds {there} CUDA devices here; leave it out, or give cpu"
    return ""


def _require(preset: str, jobs: Sequence[Job]) -> dict[str, str | None]:
    """The commit of each source of data.

    `FileNotFoundError` that names all models and data that cannot be had: the last may be hours behind the first.
    """
    found: list[str] = []
    commits: dict[str, str | None] = {}
    for data, revision in dict.fromkeys((job.data, job.revision) for job in jobs):
        try:
            commits[data] = mllmu.commit(data, revision)
        except OSError as error:
            found.append(str(error))
    for model in dict.fromkeys(job.model for job in jobs):
        try:
            _look(model)
        except OSError as error:
            found.append(str(error))
    if found:
        places = "settings.data and settings.elsewhere.<model>.base"
        found.append(f"Paths of folders go into {places} of presets/{preset}.yml; then run the same command again.")
        raise FileNotFoundError("\n\n".join(found))
    return commits


def _look(model: str) -> None:
    """`OSError` for a model that is neither a whole folder nor on the hub nor in its cache; loads no weights."""
    folder = Path(model)
    if folder.exists():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no config.json, so it is no checkpoint; name the folder that does")
        hub.check_weights(folder)
        return
    revision = hub.revision_of(model, None)
    try:
        AutoConfig.from_pretrained(model, revision=revision)
    except OSError as error:
        raise hub.cannot_fetch(model, revision, error) from error


def _make(job: Job, commit: str | None, recipe: LoraRecipe, options: argparse.Namespace) -> None:
    rows = profiles(job.data, without=job.without, revision=commit)
    print(f"{job.out}: {len(rows)} questions about {len({row.person for row in rows})} people", flush=True)
    loaded = load_model(job.model, dtype=getattr(torch, options.dtype), device=options.device)
    if Path(job.model).is_dir():
        check_read(loaded.model, job.model)
    origin = {"source": job.data, "revision": commit, "without": job.without}
    print(finetune(loaded, rows, replace(recipe, seed=recipe.seed + job.seed), job.out, data=origin), flush=True)


def _alone(out: Path) -> AbstractContextManager[None]:
    """A lock on a checkpoint, held by the first of a training's processes: a second training would spoil the state."""
    if os.environ.get("RANK", "0") != "0":
        return nullcontext()
    busy = f"{out} is being made already. Wait for it, or stop that process."
    return locked(out.with_name(f".{out.name}.lock"), busy)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, StudyError) as error:  # weights, rows, a folder in use, a state of another training
        raise SystemExit(f"Error: {error}") from None
