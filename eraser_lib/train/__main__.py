"""`python -m eraser_lib.train --family llava --branch vanilla`: rebuild the small models from nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from eraser_lib.families import FAMILIES
from eraser_lib.train.models import BRANCHES, train_branch
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
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for family in arguments.family:
        for branch in arguments.branch:
            folder = arguments.folder / arguments.recipe
            done = train_branch(
                family, branch, RECIPES[arguments.recipe], folder, seed=arguments.seed, device=arguments.device,
                workers=arguments.workers,
            )  # fmt: skip
            print(f"{family} {branch}: {done}")


if __name__ == "__main__":
    main()
