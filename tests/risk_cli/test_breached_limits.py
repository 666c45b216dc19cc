"""A breached limit says what to do, at the terminal and in the report; a kept one does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from desk_files import SCENARIOS, stress, write


@pytest.mark.parametrize(("limit", "status"), [("1_000.0", 3), ("10_000_000.0", 0)])
def test_a_breached_limit_says_what_to_do(tmp_path: Path, limit: str, status: int) -> None:
    assert "stress_loss = 10_000_000.0" in SCENARIOS
    files = write(
        tmp_path, scenarios=SCENARIOS.replace("stress_loss = 10_000_000.0", f"stress_loss = {limit}")
    )
    out = tmp_path / "report.html"
    result = stress(files, "--report", str(out))
    assert result.exit_code == status, result.stderr
    for said in (result.stdout, out.read_text()):
        assert ("risk hedge" in said) == (status == 3)
