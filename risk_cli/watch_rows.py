"""Live risk as rows: for each update one of the whole portfolio, then one for each of its underlyings."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from protos.risk.v1.risk_pb2 import RiskMetrics
from risk_cli.answers import cell
from risk_cli.extras import extra_needed

PARTS = ("delta", "gamma", "vega", "theta", "rho")
TEXTS = ("portfolio", "underlying", "market_snapshot_id", "engine")
WHOLE_NUMBERS = ("published_time_ns", "portfolio_version", "left_out", "degraded")
COLUMNS = (
    *("published_time_ns", "portfolio", "portfolio_version", "underlying"),
    *("value", "pnl_unrealised", "pnl_realised", "value_at_risk", "expected_shortfall", "worst_stress"),
    *("spot", *PARTS, "age_s", "left_out", "degraded", "engine", "market_snapshot_id"),
)
GROUP_ROWS = 10_000  # rows that are gathered before a part of the Parquet file is written


def rows_of(metrics: RiskMetrics) -> list[dict[str, Any]]:
    """The portfolio, then its underlyings; what does not belong to a row is None."""
    blank = dict.fromkeys(COLUMNS)
    common = blank | {
        "published_time_ns": metrics.timing.published_time_ns,
        "portfolio": metrics.portfolio,
        "portfolio_version": metrics.portfolio_version,
        "degraded": int(metrics.provenance.degraded),
        "engine": metrics.provenance.engine,
        "market_snapshot_id": metrics.provenance.market_snapshot_id,
    }
    tail = metrics.historical[0] if metrics.historical else None
    whole = common | {
        "value": metrics.value,
        "pnl_unrealised": metrics.pnl_unrealised,
        "pnl_realised": metrics.pnl_realised,
        "value_at_risk": None if tail is None else tail.value_at_risk,
        "expected_shortfall": None if tail is None else tail.expected_shortfall,
        "worst_stress": min(metrics.stress_pnl, default=None),
        "left_out": len(metrics.faults),
    }
    greeks = metrics.greeks
    return [
        whole,
        *(
            common
            | {"underlying": name, "spot": greeks.spot[row], "age_s": greeks.age_ns[row] / 1e9}
            | {part: getattr(greeks, part)[row] for part in PARTS}
            for row, name in enumerate(greeks.underlying)
        ),
    ]


class CsvRows:
    """Rows as they come."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._writer = csv.writer(out, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes one."""
        self._writer.writerow([cell(row[name]) for name in COLUMNS])
        self._out.flush()


class ParquetRows:
    """Rows into a file that is there, whole, once the `with` ends, however it ends; until then beside it."""

    def __init__(self, path: Path) -> None:
        with extra_needed("watch"):
            import pyarrow as pa
            import pyarrow.parquet as pq
        self._pa = pa
        kinds = {**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(WHOLE_NUMBERS, pa.int64())}
        self._schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS])
        self._path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}")
        self._writer = pq.ParquetWriter(self._beside, self._schema)
        self._rows: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes one."""
        self._rows.append(row)
        if len(self._rows) >= GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._writer.write_table(self._pa.Table.from_pylist(rows, schema=self._schema))

    def __enter__(self) -> ParquetRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self._writer.close()
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._beside, self._path)
