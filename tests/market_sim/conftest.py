"""A fresh seed for each test, shown when it fails."""

from __future__ import annotations

import os
import secrets

import pytest


@pytest.fixture
def seed() -> int:
    """GPU_RISK_TEST_SEED, or a new one; pytest shows the line below for a test that fails."""
    value = int(os.environ.get("GPU_RISK_TEST_SEED") or secrets.randbits(32))
    print(f"GPU_RISK_TEST_SEED={value}")
    return value
