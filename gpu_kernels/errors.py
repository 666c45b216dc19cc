"""What can go wrong for a whole call. A bad value in one option row is not here: it is that row's status."""


class GpuKernelsError(Exception):
    """Root of everything that this package raises on purpose."""


class EngineUnavailable(GpuKernelsError):
    """The engine asked for by name is unknown, or its library or device is not there; the text says which."""


class InvalidInput(GpuKernelsError, ValueError):
    """The caller's mistake: wrong name, shape, type or value; `field` and `row`, if any, say where."""

    def __init__(self, field: str, reason: str, row: int | None = None) -> None:
        self.field = field
        self.reason = reason
        self.row = row
        place = field if row is None else f"{field}[{row}]"
        super().__init__(f"{place}: {reason}")
