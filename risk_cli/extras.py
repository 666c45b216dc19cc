"""Commands that need an extra of the distribution say which one when it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(Exception):
    """A library of an optional extra is not installed."""

    def __init__(self, command: str, extra: str, library: str) -> None:
        super().__init__(f"`risk {command}` needs {library}: pip install 'gpu-risk[{extra}]'")


_EXTRA_OF = {
    "confluent_kafka": "service",
    "grpc_health": "service",
    "grpc_reflection": "service",
    "jax": "service",
    "jwt": "service",
    "numba": "service",
    "prometheus_client": "service",
    "pynvml": "service",
    "structlog": "service",
    "pandas": "dataframes",
    "polars": "dataframes",
    "pyarrow": "dataframes",
    "ray": "cluster",
    "matplotlib": "notebook",
}


@contextmanager
def extra_needed(command: str) -> Iterator[None]:
    """Around imports: a missing library of an extra becomes MissingExtra; any other error stays as it is."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library in _EXTRA_OF:
            raise MissingExtra(command, _EXTRA_OF[library], library) from None
        raise
