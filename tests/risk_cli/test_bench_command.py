"""`risk bench`: every case has a rate, and an engine that answers wrongly has none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from desk_files import run

import gpu_kernels as gk
from risk_cli import bench
from risk_cli.refusals import CannotDo


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SECONDS_OF_A_CASE", 0.0)


def test_every_case_has_a_rate() -> None:
    done = run("bench", "--engine", "reference", "--options", "300", "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["engine"] == "reference"
    assert [(one["unit"], one["count"]) for one in answer["results"]] == [
        ("options", 300), ("options", 300), ("options", 300), ("options", 3), ("revaluations", 1500),
    ]  # fmt: skip
    for one in answer["results"]:
        assert one["per_second"] == pytest.approx(one["count"] / one["median_seconds"])
        assert one["rounds"] == bench.ROUNDS_MIN


def test_a_reader_sees_engine_and_device() -> None:
    shown = run("bench", "--engine", "reference", "--options", "50").stdout
    assert "engine reference" in shown
    assert "price and eight Greeks" in shown


def test_a_wrong_answer_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = gk.engine("reference")
    cases = bench._cases(engine, 100)
    with pytest.raises(CannotDo, match="price is wrong"):
        cases[0].check(np.asarray(cases[0].run()) * 1.0001)
    cases[0].check(cases[0].run())


def test_bad_words_are_refused() -> None:
    assert run("bench", "--options", "0").exit_code == 2
    assert run("bench", "--engine", "abacus").exit_code == 2
