"""A micro world on disk with everything the roles are made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from eraser_lib.bench.world import World, make_world, write_world


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
