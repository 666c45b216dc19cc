"""A fresh seed for each run, shown when a test fails."""

from __future__ import annotations

import os
import secrets

import pytest

_SEED = int(os.environ.get("GPU_RISK_TEST_SEED") or secrets.randbits(32))


@pytest.fixture
def seed() -> int:
    """GPU_RISK_TEST_SEED, or a new one; pytest shows the line below for a test that fails."""
    print(f"GPU_RISK_TEST_SEED={_SEED}")
    return _SEED
