"""Long campaigns run only when they are asked for: `make soak`, or `-m soak`."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves them out elsewhere."""
    if "soak" in (config.getoption("markexpr") or ""):
        return
    long = [one for one in items if one.get_closest_marker("soak") is not None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [one for one in items if one not in long]
