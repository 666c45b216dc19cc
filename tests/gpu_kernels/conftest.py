"""Every engine that is present, and a generator; a test that takes `engine` runs once on each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_kernels as gk

HERE = Path(__file__).parent
ENGINES = ("reference", "cpu", "xla", pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on XLA run in one worker of pytest-xdist: what one has compiled serves the next."""
    for item in items:
        params = getattr(item, "callspec", None)
        if item.path.parent == HERE and params is not None and "xla" in params.params.values():
            item.add_marker(pytest.mark.xdist_group("xla"))


@pytest.fixture(params=ENGINES)
def engine(request: Any) -> gk.Engine:
    """One engine after another; one that is not there is a visible skip with its reason."""
    try:
        return gk.engine(request.param)
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def cpu() -> gk.Engine:
    """The CPU engine, for what only that has."""
    try:
        return gk.engine("cpu")
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A generator with the seed that pytest shows for a test that fails."""
    return np.random.default_rng(seed)
