"""Plain numbers from bytes: what `float` reads from the same text, or nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from book_service.adapters.plain_numbers import plain_numbers

whole = st.integers(-(10**16) + 1, 10**16 - 1)
tables = st.integers(1, 6).flatmap(
    lambda columns: st.lists(st.lists(whole, min_size=columns, max_size=columns), min_size=1, max_size=6)
)


def by_float(text: str) -> list[list[float]]:
    return [[float(cell) for cell in line.split(",")] for line in text.splitlines()]


@given(tables, st.booleans(), st.integers(0, 3))
def test_whole_numbers_are_what_float_reads(
    table: list[list[int]], ends_with_newline: bool, zeros: int
) -> None:
    lines = [",".join(("-" if one < 0 else "") + "0" * zeros + str(abs(one)) for one in row) for row in table]
    text = "\n".join(lines) + "\n" * ends_with_newline
    found = plain_numbers(text.encode(), len(table), len(table[0]))
    longest = max(len(cell.lstrip("-")) for line in lines for cell in line.split(","))
    if longest > 16:
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == by_float(text)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.text("0123456789", min_size=1, max_size=9), whole), min_size=1
    )
)
def test_a_first_number_with_a_fraction_is_the_double_that_float_makes(
    rows: list[tuple[int, str, int]],
) -> None:
    text = "".join(f"{first}.{fraction},{other}\n" for first, fraction, other in rows)
    found = plain_numbers(text.encode(), len(rows), 2, decimals_first=True)
    if max(len(f"{first}{fraction}") for first, fraction, _ in rows) > 15:
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == by_float(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1,\n",
            ",1\n",
            "1;2\n",
            "1, 2\n",
            "+1,2\n",
            "1e3,2\n",
            "1.5,2\n",
            "nan,2\n",
            "1-,2\n",
            "--1,2\n",
            "-,2\n",
        ),
        *("1,2\r\n", "1\n2\n", "1,2,3\n", "1,2\n\n", "1,12345678901234567\n", "\n", "1-2,3\n", "1,2\x00\n"),
    ],
)
def test_what_is_not_plain_is_left_to_another(text: str) -> None:
    assert plain_numbers(text.encode(), 1, 2) is None


@given(st.binary(min_size=1, max_size=60), st.booleans())
def test_any_bytes_are_numbers_or_none(junk: bytes, decimals_first: bool) -> None:
    lines = max(1, junk.count(b"\n") + (not junk.endswith(b"\n")))
    found = plain_numbers(junk, lines, 2, decimals_first=decimals_first)
    if found is not None:
        assert np.array_equal(found, np.array(by_float(junk.decode())))
