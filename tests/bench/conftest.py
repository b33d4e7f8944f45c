"""A world that is small enough to write for every test session."""

from __future__ import annotations

from pathlib import Path

import pytest

from eraser_lib.bench import world as worlds


@pytest.fixture(scope="session")
def world() -> worlds.World:
    """The world of the micro recipe: 20 fictitious people, 4 celebrities, 6 strangers."""
    return worlds.make_world(fictitious=20, celebrities=4, strangers=6)


@pytest.fixture(scope="session")
def default_world() -> worlds.World:
    """The world of the study: 200 fictitious people, 40 celebrities, 100 strangers."""
    return worlds.make_world()


@pytest.fixture(scope="session")
def written(world: worlds.World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Its files and its content hash."""
    folder = tmp_path_factory.mktemp("world")
    return folder, worlds.write_world(world, folder)
