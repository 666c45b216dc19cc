"""ITCH 5.0: a vector of every message, written out by field from Nasdaq's specification (section 4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from book_service.adapters.errors import ItchError
from book_service.adapters.itch_messages import LAYOUTS, ItchDecoder, times_ns

# Stock locate 0x1234 = 4660, tracking number 0x0002, timestamp 0x1F1AD635B94B: bytes 1-2, 3-4 and 5-10.
HEAD = "1234 0002 1F1AD635B94B"
HEADER = {"locate": 4660, "tracking": 2}
TIME_NS = 34_200_123_455_819  # 09:30:00.123455819: 0x1F1A * 2^32 + 0xD635B94B, by hand
AAPL = "4141504C20202020"  # left justified, padded with spaces on the right

# Type: (bytes by field, what they say). Lengths as in the specification are checked below.
VECTORS = {
    "S": (f"53 {HEAD} 51", {"event": b"Q"}),
    "R": (
        f"52 {HEAD} {AAPL} 51 4E 00000064 4E 43 5A20 50 4E 20 31 4E 00000000 4E",
        {
            "stock": b"AAPL    ",
            "market_category": b"Q",
            "financial_status": b"N",
            "round_lot_size": 100,
            "round_lots_only": b"N",
            "issue_classification": b"C",
            "issue_sub_type": b"Z ",
            "authenticity": b"P",
            "short_sale_threshold": b"N",
            "ipo_flag": b" ",
            "luld_tier": b"1",
            "etp_flag": b"N",
            "etp_leverage": 0,
            "inverse": b"N",
        },
    ),
    "H": (
        f"48 {HEAD} {AAPL} 54 20 4C554450",
        {"stock": b"AAPL    ", "state": b"T", "reserved": b" ", "reason": b"LUDP"},
    ),
    "Y": (f"59 {HEAD} {AAPL} 31", {"stock": b"AAPL    ", "action": b"1"}),
    "L": (
        f"4C {HEAD} 4A504D53 {AAPL} 59 4E 41",
        {"mpid": b"JPMS", "stock": b"AAPL    ", "primary": b"Y", "mode": b"N", "state": b"A"},
    ),
    "V": (  # Price (8): eight decimals; 4000.5, 3500.25 and 3000
        f"56 {HEAD} 0000005D24D69080 000000517F1DA440 00000045D964B800",
        {"level_1": 400_050_000_000, "level_2": 350_025_000_000, "level_3": 300_000_000_000},
    ),
    "W": (f"57 {HEAD} 32", {"breached": b"2"}),
    "K": (  # release 09:45:00 = 35100 s = 0x891C; 25.0000 = 250000 = 0x0003D090
        f"4B {HEAD} {AAPL} 0000891C 41 0003D090",
        {"stock": b"AAPL    ", "release_time_s": 35_100, "qualifier": b"A", "price": 250_000},
    ),
    "J": (  # 100.0000, 105.0000, 95.0000 and one extension
        f"4A {HEAD} {AAPL} 000F4240 00100590 000E7EF0 00000001",
        {
            "reference_price": 1_000_000,
            "upper_price": 1_050_000,
            "lower_price": 950_000,
            "extension": 1,
        },
    ),
    "h": (f"68 {HEAD} {AAPL} 51 48", {"stock": b"AAPL    ", "market": b"Q", "action": b"H"}),
    "A": (  # 187.5000 = 1875000 = 0x001C9C38
        f"41 {HEAD} 00000000075BCD15 42 0000012C {AAPL} 001C9C38",
        {"ref": 123_456_789, "side": b"B", "shares": 300, "stock": b"AAPL    ", "price": 1_875_000},
    ),
    "F": (
        f"46 {HEAD} 00000000075BCD15 53 0000012C {AAPL} 001C9C38 4E495445",
        {"ref": 123_456_789, "side": b"S", "shares": 300, "price": 1_875_000, "attribution": b"NITE"},
    ),
    "E": (
        f"45 {HEAD} 00000000075BCD15 00000064 000000003ADE68B1",
        {"ref": 123_456_789, "shares": 100, "match": 987_654_321},
    ),
    "C": (
        f"43 {HEAD} 00000000075BCD15 00000064 000000003ADE68B1 59 001C9BD4",
        {"ref": 123_456_789, "shares": 100, "match": 987_654_321, "printable": b"Y", "price": 1_874_900},
    ),
    "X": (f"58 {HEAD} 00000000075BCD15 00000032", {"ref": 123_456_789, "shares": 50}),
    "D": (f"44 {HEAD} 00000000075BCD15", {"ref": 123_456_789}),
    "U": (
        f"55 {HEAD} 00000000075BCD15 000000003ADE68B1 000000C8 001C9C38",
        {"ref": 123_456_789, "new_ref": 987_654_321, "shares": 200, "price": 1_875_000},
    ),
    "P": (
        f"50 {HEAD} 0000000000000000 42 00000019 {AAPL} 001C9C38 000000003ADE68B1",
        {"ref": 0, "side": b"B", "shares": 25, "price": 1_875_000, "match": 987_654_321},
    ),
    "Q": (  # shares are eight bytes here: 2^32 + 1
        f"51 {HEAD} 0000000100000001 {AAPL} 001C9C38 000000003ADE68B1 4F",
        {"shares": 4_294_967_297, "price": 1_875_000, "match": 987_654_321, "cross_type": b"O"},
    ),
    "B": (f"42 {HEAD} 000000003ADE68B1", {"match": 987_654_321}),
    "I": (
        f"49 {HEAD} 00000000000003E8 00000000000001F4 42 {AAPL} 001C9C38 001C9BD4 001C9C9C 43 4C",
        {
            "paired_shares": 1_000,
            "imbalance_shares": 500,
            "direction": b"B",
            "stock": b"AAPL    ",
            "far_price": 1_875_000,
            "near_price": 1_874_900,
            "reference_price": 1_875_100,
            "cross_type": b"C",
            "variation": b"L",
        },
    ),
    "N": (f"4E {HEAD} {AAPL} 41", {"stock": b"AAPL    ", "interest": b"A"}),
    "O": (
        f"4F {HEAD} {AAPL} 59 000F4240 001C9C38 00100590 00001F1AD635B94B 000E7EF0 00100590",
        {
            "open_eligibility": b"Y",
            "minimum_price": 1_000_000,
            "maximum_price": 1_875_000,
            "near_price": 1_050_000,
            "near_time": TIME_NS,
            "lower_collar": 950_000,
            "upper_collar": 1_050_000,
        },
    ),
}
LENGTHS = {"S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21}
LENGTHS |= {"A": 36, "F": 40, "E": 31, "C": 36, "X": 23, "D": 19, "U": 35, "P": 44, "Q": 40, "B": 19}
LENGTHS |= {"I": 50, "N": 20, "O": 48}


def vector(kind):
    return bytes.fromhex(VECTORS[kind][0].replace(" ", ""))


def framed(*messages):
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def test_every_layout_has_a_vector_of_the_specified_length():
    assert {kind.decode() for kind in LAYOUTS} == set(VECTORS)
    assert {kind: len(vector(kind)) for kind in VECTORS} == LENGTHS


@pytest.mark.parametrize("kind", VECTORS)
def test_each_field_of_each_message(kind):
    messages = ItchDecoder().decode(framed(vector(kind)))
    row = messages.rows[kind.encode()][0]
    for name, expected in (HEADER | VECTORS[kind][1]).items():
        got = row[name]
        # NumPy takes trailing zero bytes off text, never spaces.
        assert (bytes(got) if isinstance(expected, bytes) else int(got)) == expected, name
    assert times_ns(messages.rows[kind.encode()]).tolist() == [TIME_NS]


def test_a_stream_keeps_its_order_over_types():
    messages = ItchDecoder().decode(framed(vector("A"), vector("D"), vector("A"), vector("X")))
    assert messages.count == 4
    assert {kind: places.tolist() for kind, places in messages.places.items()} == {
        b"A": [0, 2],
        b"D": [1],
        b"X": [3],
    }


def test_messages_cut_anywhere_are_put_together():
    stream = framed(*(vector(kind) for kind in VECTORS))
    for cut in range(len(stream) + 1):
        decoder = ItchDecoder()
        parts = [decoder.decode(stream[:cut]), decoder.decode(stream[cut:])]
        decoder.finish()
        assert sum(part.count for part in parts) == len(VECTORS)


def test_fields_that_look_like_frames_are_not_taken_for_one():
    # The shares and the price of an add read 00 13 'D', as a delete's frame would.
    add = bytearray(vector("A"))
    add[20:24] = b"\x00\x13D\x00"
    add[32:36] = b"\x00\x17X\x00"
    stream = framed(bytes(add), vector("D"), bytes(add), vector("X"), bytes(add))
    messages = ItchDecoder().decode(stream)
    assert messages.count == 5
    assert {kind: len(rows) for kind, rows in messages.rows.items()} == {b"A": 3, b"D": 1, b"X": 1}


def test_types_of_later_versions_are_skipped_by_their_length():
    messages = ItchDecoder().decode(framed(vector("A"), b"z" * 70, vector("D"), b"~" * 255, b"?" * 300))
    assert (messages.count, messages.unknown) == (5, 3)
    assert messages.places[b"D"].tolist() == [2]


def test_a_length_that_is_not_its_types_is_refused_with_its_byte():
    stream = framed(vector("A")) + b"\x00\x14" + vector("D") + b"\x00"
    with pytest.raises(ItchError, match=r"byte 38: a message b'D' has 19 bytes, its prefix says 20"):
        ItchDecoder().decode(stream)


def test_a_zero_length_ends_the_session():
    decoder = ItchDecoder()
    assert decoder.decode(framed(vector("A")) + b"\x00\x00").count == 1
    assert decoder.ended
    assert decoder.decode(b"").count == 0
    with pytest.raises(ItchError, match="after the end"):
        decoder.decode(b"\x00")
    with pytest.raises(ItchError, match="after the end"):
        ItchDecoder().decode(b"\x00\x00" + framed(vector("A")))


def test_a_stream_that_breaks_off_says_so():
    decoder = ItchDecoder()
    decoder.decode(framed(vector("A"))[:-1])
    with pytest.raises(ItchError, match="byte 0: the stream ends within a message"):
        decoder.finish()


def follow_lengths(stream):
    """The slow way to frame: length after length."""
    found, at = [], 0
    while at + 2 <= len(stream):
        length = int.from_bytes(stream[at : at + 2], "big")
        if length == 0 or at + 2 + length > len(stream):
            break
        found.append(stream[at + 2 : at + 2 + length])
        at += 2 + length
    return found, stream[at:]


@given(st.data())
def test_streams_of_random_fields_frame_as_the_slow_way_says(data):
    """Fields full of zeros, lengths and types, so that false frames abound."""
    byte = st.sampled_from(b"\x00\x00\x00\x13\x17\x24\x1fDXAEU\x0c\xff")
    messages = []
    for kind in data.draw(st.lists(st.sampled_from("SDXAEUP"), max_size=30)):
        size = LENGTHS[kind] - 1
        messages.append(kind.encode() + bytes(data.draw(st.lists(byte, min_size=size, max_size=size))))
    stream = framed(*messages)
    cut = data.draw(st.integers(0, len(stream)))
    decoder = ItchDecoder()
    got = []
    for piece in (stream[:cut], stream[cut:]):
        part = decoder.decode(piece)
        found = {
            place: row.tobytes()
            for kind, rows in part.rows.items()
            for place, row in zip(part.places[kind].tolist(), rows, strict=True)
        }
        got += [found[place] for place in sorted(found)]
    assert got == messages == follow_lengths(stream)[0]


@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_hostile_bytes_are_refused_or_read_and_memory_is_bounded(pieces, frames):
    decoder = ItchDecoder()
    try:
        for piece in pieces:
            count = decoder.decode(framed(piece) if frames else piece).count
            assert count <= len(piece)
            assert len(decoder._rest) <= 2 + 0xFFFF
        decoder.finish()
    except ItchError:
        pass


def test_pieces_that_never_finish_a_message_are_bounded():
    decoder = ItchDecoder()
    decoder.decode(b"\xff\xff?")
    for _ in range(70):
        decoder.decode(b"x" * 1_000)
    assert len(decoder._rest) < 0x10001 + 2


def test_times_by_place_are_those_of_the_messages(seed):
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 1 << 48, 20)
    messages = [
        bytes([kind]) + bytes(4) + int(time).to_bytes(6, "big") + bytes(LENGTHS[chr(kind)] - 11)
        for kind, time in zip(rng.choice(list(b"DXAE"), 20), times, strict=True)
    ]
    assert ItchDecoder().decode(framed(*messages)).times_ns().tolist() == times.tolist()
