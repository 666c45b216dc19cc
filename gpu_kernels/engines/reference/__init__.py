"""The reference engine: the shared formulas over NumPy and SciPy, one array operation after another."""


def probe() -> str:
    """This engine runs wherever NumPy and SciPy do."""
    return "numpy"
