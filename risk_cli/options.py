"""Options that several commands share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

Settings = Annotated[
    Path | None, typer.Option("--settings", help="TOML file; the environment (GPU_RISK_…) wins over it.")
]
InFile = partial(typer.Option, exists=True, dir_okay=False)
Number = Annotated[float | None, typer.Option()]
Engine = Annotated[str, typer.Option(help="auto, cuda, cpu, xla or reference.")]
Dividend = Annotated[
    list[str] | None,
    typer.Option(
        metavar="YEARS:AMOUNT", help="A cash dividend; may be repeated. 0.25:0.6: 0.6 in a quarter."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Csv = Annotated[bool, typer.Option("--csv", help="CSV on stdout.")]
Parquet = Annotated[Path | None, typer.Option("--parquet", help="Also a Parquet file.", metavar="PATH")]
