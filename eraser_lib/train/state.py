"""States of a fine-tuning that a stopped one goes on from: whole, and of the same training, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eraser_lib.bench.records import Question
from eraser_lib.families import Loaded, hub
from eraser_lib.study.paths import canonical, sha256, write_json

MARK = "step.json"
"""Written last, so that a state without it is not whole."""


def fingerprint(
    loaded: Loaded, rows: Sequence[Question], recipe: Mapping[str, Any], data: Mapping[str, Any], processes: int
) -> dict[str, Any]:
    """What decides the weights that a training ends with, by names that a person reads.

    Args:
        loaded: the model before it is adapted.
        rows: what is learned; their pictures are known by `data` alone.
        recipe: its numbers, but for those that change nothing.
        data: where the rows come from.
        processes: how many share a step.
    """
    texts = [[row.id, row.person, row.prompt.system, row.prompt.text, row.answer] for row in rows]
    base = str(loaded.model.name_or_path)
    return {
        **recipe,
        "base": base,
        "base revision": hub.revision_of(base, None),
        "base weights": _digest(loaded.model),
        "dtype": str(loaded.model.dtype),
        **{f"data {name}": value for name, value in data.items()},
        "rows": sha256(canonical(texts)),
        "processes": processes,
    }


@dataclass(frozen=True)
class State:
    """The last state of a training, written beside the one before and then put in its place.

    What is frozen is not kept: it is the base model's, of tens of gigabytes.
    """

    accelerator: Any
    """With one model that has frozen parameters."""
    folder: Path
    """Beside it lie, at times, `<folder>.new` and `<folder>.old`."""
    training: Mapping[str, Any]
    """Its `fingerprint`."""

    def __post_init__(self) -> None:
        """Have accelerate save what is trained alone."""
        self.accelerator.register_save_state_pre_hook(_drop_frozen)

    @property
    def fresh(self) -> Path:
        """A state that is being written; whole, once it has its `MARK`."""
        return self.folder.with_name(f"{self.folder.name}.new")

    @property
    def former(self) -> Path:
        """A state that makes room for another."""
        return self.folder.with_name(f"{self.folder.name}.old")

    def resume(self) -> tuple[int, list[dict[str, Any]]]:
        """Load the state into what the accelerator prepared; returns how many steps are done, and their curve.

        Raises:
            ValueError: it is of another training, or not whole; names what differs, and the folder to remove.
        """
        if self.accelerator.is_main_process and not self.folder.exists():
            # a process that dies while states change places leaves both, and none in the place
            for whole in (path for path in (self.fresh, self.former) if (path / MARK).is_file()):
                whole.rename(self.folder)
                break
        self.accelerator.wait_for_everyone()
        if not self.folder.exists():
            return 0, []
        step, curve, training = self._read()
        missing = "not known"
        # as it comes back from a file, where a tuple is a list
        now: dict[str, Any] = json.loads(canonical(dict(self.training)))
        differs = [
            f"{name} was {_brief(training.get(name, missing))} and is {_brief(now.get(name, missing))}"
            for name in sorted({*training, *now})
            if training.get(name, missing) != now.get(name, missing)
        ]
        if differs:
            raise ValueError(
                f"{self.folder} was saved by another training: {'; '.join(differs)}. Start it as it was started then, "
                "or remove the folder to begin anew"
            )
        self.accelerator.load_state(str(self.folder), strict=False)  # what is frozen is there already
        self.accelerator.print(f"resumes after step {step}")
        return step, curve

    def save(self, step: int, curve: Sequence[Mapping[str, Any]]) -> None:
        """Write the state after `step` steps; whenever the process dies, a whole one is left."""
        if self.accelerator.is_main_process:
            shutil.rmtree(self.fresh, ignore_errors=True)  # what a killed process left of it
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(self.fresh), safe_serialization=False)
        self.accelerator.wait_for_everyone()  # each process writes its own part
        if self.accelerator.is_main_process:
            files = {path.name: sha256(path) for path in sorted(self.fresh.iterdir())}
            mark = {"step": step, "curve": list(curve), "training": dict(self.training), "files": files}
            write_json(self.fresh / MARK, mark)
            shutil.rmtree(self.former, ignore_errors=True)
            if self.folder.exists():
                self.folder.rename(self.former)
            self.fresh.rename(self.folder)
            shutil.rmtree(self.former, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def remove(self) -> None:
        """Remove it, and what killed processes left."""
        for path in (self.fresh, self.former, self.folder):
            shutil.rmtree(path, ignore_errors=True)

    def _read(self) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
        """Steps that are done, their curve, and of which training; `ValueError` where the state is damaged."""
        try:
            saved = json.loads((self.folder / MARK).read_text())
            found = int(saved["step"]), list(saved["curve"]), dict(saved["training"])
            files = dict(saved["files"])
        except (OSError, ValueError, KeyError, TypeError):  # none, cut, or of an earlier version
            broken = [MARK]
        else:
            paths = {self.folder / name: digest for name, digest in files.items()}
            broken = [path.name for path, digest in paths.items() if not path.is_file() or sha256(path) != digest]
        if broken:
            raise ValueError(
                f"{self.folder} is damaged, or an earlier version saved it: {', '.join(broken)} should be there as it "
                "was saved. Remove the folder to begin anew"
            )
        return found


def _drop_frozen(models: Sequence[nn.Module], weights: Sequence[dict[str, Any]], _: str) -> None:
    for model, state in zip(models, weights, strict=True):
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name in state.keys() - trained:
            del state[name]


def _digest(model: nn.Module) -> str:
    """Of the names and shapes of all parameters and the sums of their bits, which are the same on every device."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    found = []
    for name, parameter in model.named_parameters():
        bits = parameter.detach().reshape(-1).view(integers[parameter.element_size()])
        # in parts: sums are made of a copy in the wider type
        total = sum(int(part.sum(dtype=torch.int64)) for part in torch.split(bits, 1 << 24))
        found.append([name, list(parameter.shape), total])
    return sha256(canonical(found))


def _brief(value: Any) -> str:
    """As errors show it: of a digest its beginning."""
    return f"{value[:8]}..." if isinstance(value, str) and len(value) == 64 else repr(value)
