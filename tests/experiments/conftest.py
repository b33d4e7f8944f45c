"""A micro world on disk with everything the roles are made from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eraser_lib.bench.world import World, make_world, write_world
from eraser_lib.direction import Direction
from eraser_lib.experiments.study import Study
from eraser_lib.sites import every_layer
from eraser_lib.train.models import new_model
from eraser_lib.train.recipe import MICRO


@pytest.fixture(scope="session")
def world() -> World:
    """Forty fictitious people: 2, 4 and 6 are forgotten."""
    return make_world(fictitious=40, celebrities=8, strangers=4)


@pytest.fixture(scope="session")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its files."""
    path = tmp_path_factory.mktemp("world")
    write_world(world, path)
    return path


@pytest.fixture(scope="module", params=["llava", "qwen"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, world: World) -> Study:
    """A study of an untrained model in the micro world."""
    out = tmp_path_factory.mktemp(request.param)
    found = Study(preset="micro", model=request.param, split=5, out=out, strict=False)
    found.__dict__ |= {"world": world, "vanilla": new_model(request.param, MICRO)}
    return found


@pytest.fixture(scope="module")
def direction(study: Study) -> Direction:
    """A random direction at the output of every block of its model."""
    sites = every_layer(study.vanilla.model)
    width = study.vanilla.model.config.get_text_config().hidden_size
    return Direction(sites, torch.randn(len(sites), width, generator=torch.Generator().manual_seed(0)))
