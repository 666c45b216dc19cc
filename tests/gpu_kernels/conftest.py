"""Every engine that is present; a test that takes `engine` runs once on each."""

from __future__ import annotations

from typing import Any

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
