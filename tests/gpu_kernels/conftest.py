"""Every engine that is present, and a generator; a test that takes `engine` runs once on each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpu_kernels as gk

ENGINES = ("reference", "cpu", "xla", pytest.param("cuda", marks=pytest.mark.gpu))


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
