"""Every engine against the committed tables of exact European values."""

from __future__ import annotations

from collections.abc import Callable

import european_tables
import pytest

import gpu_kernels as gk

TABLES: dict[str, Callable[[gk.Engine], dict[str, float]]] = {
    "price_and_greeks": european_tables.price_errors,
    "implied_vol": european_tables.vol_errors,
}


@pytest.mark.parametrize("name", TABLES)
def test_errors_are_within_what_is_allowed(engine: gk.Engine, name: str) -> None:
    allowed = european_tables.load(name)["allowed"]
    errors = TABLES[name](engine)
    assert errors.keys() == allowed.keys()
    too_large = {key: error for key, error in errors.items() if not error <= allowed[key]}
    assert not too_large


@pytest.mark.parametrize("name", TABLES)
def test_recorded_errors_are_within_what_is_allowed(name: str) -> None:
    table = european_tables.load(name)
    assert {"reference", "cpu"} <= table["recorded"].keys()
    for recorded in table["recorded"].values():
        assert all(error <= table["allowed"][key] for key, error in recorded.items())


def test_tables_span_the_range() -> None:
    """A table of easy rows proves nothing: tiny prices, tiny total vols and both rights are in it."""
    table = european_tables.load("price_and_greeks")
    columns = table["options"]
    relative = [float(p) / s for p, s in zip(table["exact"]["price"], columns["spot"], strict=True)]
    total = [v * t**0.5 for v, t in zip(columns["vol"], columns["expiry"], strict=True)]
    assert len(relative) >= 150
    assert min(relative) < 1e-20
    assert min(total) < 1e-3
    assert max(total) > 5.0
    assert 40 < sum(columns["is_call"]) < len(relative) - 40
