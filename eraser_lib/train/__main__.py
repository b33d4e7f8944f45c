"""`python -m eraser_lib.train --family llava --branch vanilla`: rebuild the small models from nothing."""

from __future__ import annotations

import argparse
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import torch

from eraser_lib.families import FAMILIES
from eraser_lib.train.models import BRANCHES, branch_folder, train_bases, train_branch
from eraser_lib.train.pool import training_pool
from eraser_lib.train.recipe import RECIPES


def main() -> None:
    """Parse the command line and train what is missing."""
    parser = argparse.ArgumentParser(
        description="Train the small models; finished stages are kept, stopped ones resume."
    )
    parser.add_argument("--family", choices=tuple(FAMILIES), nargs="+", default=tuple(FAMILIES))
    parser.add_argument("--branch", choices=tuple(BRANCHES), nargs="+", default=("vanilla", "retain_only_5"))
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="tiny")
    parser.add_argument("--seed", type=int, default=None, help="another seed of the last stage (retain-only spread)")
    parser.add_argument("--folder", type=Path, default=Path("checkpoints"))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches, for a GPU")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time: small ones leave a GPU waiting")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error("--jobs: at least one model at a time")
    recipe, folder = RECIPES[arguments.recipe], arguments.folder / arguments.recipe
    options: dict[str, Any] = {"device": arguments.device, "workers": arguments.workers}
    wanted = [(family, branch) for family in arguments.family for branch in arguments.branch]
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.jobs == 1:
        for family, branch in wanted:
            _say(family, branch, train_branch(family, branch, recipe, folder, seed=arguments.seed, **options))
        return
    # processes of their own, since what such a training waits for is Python
    with training_pool(arguments.jobs) as pool:
        made = [branch_folder(*one, recipe, folder, seed=arguments.seed) for one in wanted]
        missing = [one for one, path in zip(wanted, made, strict=True) if not (path / "model.safetensors").exists()]
        # once per family, before its branches all ask for them
        families = dict.fromkeys(family for family, _ in missing)
        for bases in [
            pool.submit(
                train_bases, one, [branch for family, branch in missing if family == one], recipe, folder, **options
            )
            for one in families
        ]:
            bases.result()
        running = {
            pool.submit(train_branch, *one, recipe, folder, seed=arguments.seed, **options): one for one in wanted
        }
        for done in as_completed(running):
            _say(*running[done], done.result())


def _say(family: str, branch: str, done: Path) -> None:
    print(f"{family} {branch}: {done}", flush=True)


if __name__ == "__main__":
    main()
