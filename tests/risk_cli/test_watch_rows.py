"""`risk watch` as CSV and Parquet: every number of an update, where it belongs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from desk_files import run

from protos.risk.v1 import risk_pb2 as wire
from risk_cli.watch_rows import COLUMNS, CsvRows, ParquetRows, rows_of
from risk_client import RiskClient


def metrics() -> wire.RiskMetrics:
    return wire.RiskMetrics(
        portfolio="desk",
        portfolio_version=3,
        value=10.5,
        pnl_unrealised=1.0,
        pnl_realised=-2.0,
        greeks=wire.GreeksByUnderlying(
            underlying=["SPX", "NVDA"], spot=[5000.0, 125.0], delta=[1.0, 2.0], gamma=[3.0, 4.0],
            vega=[5.0, 6.0], theta=[7.0, 8.0], rho=[9.0, 10.0], age_ns=[2_000_000_000, 0],
        ),
        historical=[wire.TailRisk(level=0.975, value_at_risk=11.0, expected_shortfall=12.0)],
        stress_name=["a", "b"],
        stress_pnl=[-5.0, 3.0],
        faults=[wire.RowFault(row=1)],
        provenance=wire.Provenance(engine="cpu", market_snapshot_id="0:7", degraded=True),
        timing=wire.TickTiming(published_time_ns=42),
    )  # fmt: skip


def test_a_row_for_the_portfolio_and_one_for_each_underlying() -> None:
    whole, spx, nvda = rows_of(metrics())
    assert tuple(whole) == tuple(spx) == COLUMNS
    told = {name: value for name, value in whole.items() if value is not None}
    assert told == {
        "published_time_ns": 42, "portfolio": "desk", "portfolio_version": 3, "value": 10.5,
        "pnl_unrealised": 1.0, "pnl_realised": -2.0, "value_at_risk": 11.0, "expected_shortfall": 12.0,
        "worst_stress": -5.0, "left_out": 1, "degraded": 1, "engine": "cpu", "market_snapshot_id": "0:7",
    }  # fmt: skip
    assert (spx["underlying"], spx["spot"], spx["delta"], spx["age_s"]) == ("SPX", 5000.0, 1.0, 2.0)
    assert [nvda[name] for name in ("delta", "gamma", "vega", "theta", "rho")] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert nvda["value"] is None


def test_both_files_say_the_same(tmp_path: Path) -> None:
    out, path = io.StringIO(), tmp_path / "live.parquet"
    text = CsvRows(out)
    with ParquetRows(path) as rows:
        for row in rows_of(metrics()) + rows_of(wire.RiskMetrics(portfolio="empty")):
            text.add(row)
            rows.add(row)
        assert not path.exists()
    read = list(csv.DictReader(io.StringIO(out.getvalue())))
    kept = pq.read_table(path).to_pylist()
    assert len(read) == len(kept) == 4
    for one, other in zip(read, kept, strict=True):
        for name in COLUMNS:
            value = other[name]
            assert one[name] == (
                "" if value is None else repr(value) if isinstance(value, float) else str(value)
            )


def test_a_file_is_kept_also_where_the_watch_fails(tmp_path: Path) -> None:
    path = tmp_path / "live.parquet"

    def fail() -> None:
        with ParquetRows(path) as rows:
            rows.add(rows_of(metrics())[0])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert pq.read_table(path).num_rows == 1


def test_a_watch_of_a_server_in_every_form(address: str, tmp_path: Path) -> None:
    with RiskClient(address) as client:
        client.put_portfolio({"symbol": ["IDX"], "quantity": [3.0]}, name="watched")
    words = ("watch", "--server", address, "--portfolio", "watched", "--seconds", "2")
    path = tmp_path / "live.parquet"
    done = run(*words, "--csv", "--parquet", str(path))
    assert (done.exit_code, done.stderr) == (0, "")
    # The service in this process logs its calls to stdout, too.
    read = list(csv.DictReader(one for one in done.stdout.splitlines() if "call ended" not in one))
    assert {(one["portfolio"], one["underlying"]) for one in read} == {("watched", ""), ("watched", "IDX")}
    assert float(read[0]["value"]) == 3.0 * float(read[1]["spot"])
    assert pq.read_table(path).num_rows == len(read)
    told = next(json.loads(one) for one in run(*words, "--json").stdout.splitlines() if one[0] == "{")
    assert told["value"] == float(read[0]["value"])


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    assert run("watch", "--json", "--csv").exit_code == 2
    assert run("watch", "--parquet", str(tmp_path / "no" / "x.parquet")).exit_code == 1
