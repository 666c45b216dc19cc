"""A progress bar on stderr, if that is a terminal; else nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

Advance = Callable[[float], None]


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int], Advance]]:
    """Gives a function that takes the size of the work and answers with what is told of more work done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda total: lambda done: None
        return
    with Progress(console=console, transient=True) as bar:

        def start(total: int) -> Advance:
            task = bar.add_task(what, total=total)
            return lambda done: bar.update(task, advance=done)

        yield start


def part(advance: Advance) -> Callable[[float], None]:
    """For one unit of the work: what is told of the fraction of it that is done, from 0 to 1."""
    told = 0.0

    def at(fraction: float) -> None:
        nonlocal told
        advance(fraction - told)
        told = fraction

    return at
