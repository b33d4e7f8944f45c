"""The command of the fine-tuning, watched within every process that `accelerate launch` starts.

    -m tests.train.launched FOLDER STOP ARGUMENTS [-- ARGUMENTS]...

Runs it once for each group of arguments. In the folder each process leaves the weights that it trains after every step,
with their rate (`after`), and what it renamed (`renamed`). After step STOP, counted over all groups, the last process
dies; 0 means never.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook


def after(folder: Path, process: int, step: int) -> tuple[float, list[Tensor]]:
    """The rate of a process's step, and what it trains as it was after that step."""
    rate, trained = torch.load(folder / f"{process}-{step}.pt")
    return rate, trained


def renamed(folder: Path) -> list[tuple[int, str]]:
    """Process and new name of every file or folder that was given its final name, in the order of the processes."""
    lines = [(path.stem, line) for path in sorted(folder.glob("*.renamed")) for line in path.read_text().splitlines()]
    return [(int(process), line) for process, line in lines]


def _watch(folder: Path, stop: int) -> None:
    process, last = os.environ["RANK"], int(os.environ["WORLD_SIZE"]) - 1
    steps = 0

    def stepped(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal steps
        steps += 1
        trained = [parameter.detach() for group in optimiser.param_groups for parameter in group["params"]]
        torch.save((optimiser.param_groups[0]["lr"], trained), folder / f"{process}-{steps}.pt")
        if steps == stop and int(process) == last:
            os._exit(3)  # as a process that is killed: nothing is tidied up

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename":
            with (folder / f"{process}.renamed").open("a") as record:
                record.write(f"{arguments[1]}\n")

    register_optimizer_step_post_hook(stepped)
    sys.addaudithook(heard)


def _main(words: list[str]) -> None:
    _watch(Path(words[0]), int(words[1]))
    groups: list[list[str]] = [[]]
    for word in words[2:]:
        if word == "--":
            groups.append([])
        else:
            groups[-1].append(word)
    for group in groups:
        sys.argv = ["finetune", *group]
        runpy.run_module("eraser_lib.train.finetune", run_name="__main__")


if __name__ == "__main__":
    _main(sys.argv[1:])
