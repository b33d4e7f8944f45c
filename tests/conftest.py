"""The longest tests first, so that the short ones run beside them."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The micro study leaves a core idle between its jobs; at the end nothing would be left to use it."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
