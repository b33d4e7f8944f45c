"""Directions and activations on disk (safetensors), for the notebooks that come after the one that made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from eraser_lib.direction import Direction
from eraser_lib.experiments.activations import Activations
from eraser_lib.sites import HookSite, in_order


def save_directions(path: Path, directions: Mapping[str, Direction]) -> None:
    """Write named directions; the keys are `<name>/<site>`."""
    tensors = {f"{n}/{site}": d[site].contiguous().clone() for n, d in directions.items() for site in d.sites}
    save_file(tensors, path, metadata={name: direction.position for name, direction in directions.items()})


def load_directions(path: Path) -> dict[str, Direction]:
    """The inverse of `save_directions`."""
    tensors, positions = _read(path)
    found = {}
    for name in dict.fromkeys(key.split("/")[0] for key in tensors):
        sites = in_order(HookSite.parse(key.split("/")[1]) for key in tensors if key.startswith(f"{name}/"))
        found[name] = Direction(sites, torch.stack([tensors[f"{name}/{s}"] for s in sites]), positions[name])
    return found


def save_activations(path: Path, read: Mapping[str, Mapping[str, Activations]]) -> None:
    """Write activations by role and set; the keys are `<role>/<set>/<site>`."""
    tensors = {
        f"{role}/{name}/{site}": values.contiguous().clone()
        for role, sets in read.items()
        for name, activations in sets.items()
        for site, values in activations.items()
    }
    save_file(tensors, path)


def load_activations(path: Path) -> dict[str, dict[str, Activations]]:
    """The inverse of `save_activations`."""
    found: dict[str, dict[str, Activations]] = {}
    for key, values in _read(path)[0].items():
        role, name, site = key.split("/")
        found.setdefault(role, {}).setdefault(name, {})[HookSite.parse(site)] = values
    return found


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the notebook that writes it first (03_direction, 04_gate)")
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
