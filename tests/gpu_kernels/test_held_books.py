"""Books that stay on a device: found again by what does not change, and let go when there are too many."""

from __future__ import annotations

import numpy as np
import pytest
from scenario_books import random_book

import gpu_kernels as gk
from gpu_kernels.engines import held_books
from gpu_kernels.engines.held_books import HeldBook, HeldBooks


@pytest.fixture
def books(rng: np.random.Generator) -> list[gk.Portfolio]:
    return [random_book(rng, 40, 3, groups=2) for _ in range(4)]


def test_a_book_is_known_by_its_underlyings_and_groups(books: list[gk.Portfolio]) -> None:
    held = HeldBooks(HeldBook)
    first = held.of(books[0])
    assert held.of(books[0].with_spots(np.full(3, 50.0))) is first
    assert held.of(books[1]) is not first
    assert held.of(books[0], device=1) is not first
    assert held.of(books[0]) is first


def test_only_new_columns_are_sent(books: list[gk.Portfolio]) -> None:
    book, sent = HeldBooks(HeldBook).of(books[0]), []

    def send(name: str, host: object) -> object:
        sent.append(name)
        return name, host

    book.sent(books[0], ("spot", "vol"), send)
    moved = books[0].with_spots(np.full(3, 50.0))
    there = book.sent(moved, ("spot", "vol"), send)
    assert sent == ["spot", "vol", "spot"]
    assert there["spot"][1] is moved.spot


@pytest.mark.parametrize(("limit", "most"), [("BOOKS_MAX", 2), ("POSITIONS_MAX", 80)])
def test_the_longest_unused_goes_first(
    books: list[gk.Portfolio], monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(held_books, limit, most)
    held = HeldBooks(HeldBook)
    first, second = held.of(books[0]), held.of(books[1])
    assert held.of(books[0]) is first
    held.of(books[2])
    assert held.of(books[0]) is first
    assert held.of(books[1]) is not second
