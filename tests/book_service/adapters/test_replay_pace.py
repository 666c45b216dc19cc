"""When the events of files are due, on a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from book_service.adapters.errors import PlanError
from book_service.adapters.raw_columns import RawColumns
from book_service.adapters.replay_pace import NS, WINDOW_S, Due, Pace, paced, wait_for

T0 = 1_700_000_000 * NS


def piece(source, *seconds):
    """Events at these seconds after T0; the price tells which."""
    return RawColumns(
        source,
        ("A",),
        {
            "symbol_index": np.zeros(len(seconds), np.int64),
            "kind": np.ones(len(seconds), np.int32),
            "source_time_ns": np.array([T0 + round(s * NS) for s in seconds], np.int64),
            "price": np.array(seconds, np.float64),
        },
    )


def told(due):
    return [(d.events.source, round(d.after_s, 6), d.events.columns["price"].tolist()) for d in due]


def test_events_are_due_by_their_own_times_at_the_speed_asked_for():
    file = [piece("a", 0, 0.001, 10), piece("a", 30)]
    assert told(paced([file], Pace(speed=1), 0)) == [
        ("a", 0, [0, 0.001]),
        ("a", 10, [10]),
        ("a", 30, [30]),
    ]
    assert [after for _, after, _ in told(paced([file], Pace(speed=10), 0))] == [0, 1, 3]


def test_without_a_pace_a_file_goes_out_piece_by_piece():
    file = [piece("a", 0, 5, 10), piece("a", 11)]
    assert told(paced([file], Pace(speed=0), 0)) == [("a", 0, [0, 5, 10]), ("a", 0, [11])]


def test_files_are_merged_by_time(seed):
    rng = np.random.default_rng(seed)
    times = {name: np.sort(rng.uniform(0, 100, 60)) for name in "abc"}
    for speed in (0.0, 1.0, 50.0):
        files = [[piece(name, *t[:30]), piece(name, *t[30:])] for name, t in times.items()]
        found = told(paced(files, Pace(speed=speed), 0))
        for name, t in times.items():
            assert [price for source, _, prices in found if source == name for price in prices] == t.tolist()
        # Two events are in order unless they are within one window of each other.
        first = [prices[0] for _, _, prices in found]
        window = WINDOW_S * speed if speed else 1.0
        assert all(later > earlier - window for earlier, later in pairwise(first))


def test_long_silences_are_cut_and_time_never_runs_back():
    file = [piece("a", 0, 50_000, 3, 50_001)]
    found = told(paced([file], Pace(speed=1, pause_s_max=20), 0))
    assert found == [("a", 0, [0]), ("a", 20, [50_000, 3]), ("a", 21, [50_001])]


def test_events_can_be_stamped_with_the_time_here():
    start = 2_000_000_000 * NS
    for speed in (1.0, 4.0):
        due = list(paced([[piece("a", 0, 0.004, 8)]], Pace(speed=speed, times="now"), start))
        stamped = np.concatenate([one.events.columns["source_time_ns"] for one in due])
        assert stamped.tolist() == [start, start + round(0.004 * NS / speed), start + round(8 * NS / speed)]
    [one] = paced([[piece("a", 0, 5)]], Pace(speed=0, times="now"), start)
    assert one.events.columns["source_time_ns"].tolist() == [start, start + 5 * NS]


def test_a_file_without_times_goes_out_at_once():
    events = RawColumns("a", ("A",), {"symbol_index": np.zeros(2, np.int64), "kind": np.ones(2, np.int32)})
    [one] = paced([[events]], Pace(speed=1), 0)
    assert (one.after_s, len(one.events)) == (0, 2)


def test_waiting_ends_when_told_to_stop_and_makes_up_for_what_was_slow():
    now, waited = [100.0], []

    def wait(seconds):
        waited.append(seconds)
        now[0] += seconds + 0.5  # whatever is done with each takes half a second
        return len(waited) == 4

    due = [Due(after, piece("a", after)) for after in (0.0, 2.0, 2.1, 9.0, 10.0)]
    assert len(list(wait_for(iter(due), wait, lambda: now[0]))) == 3
    assert waited == pytest.approx([0.0, 1.5, 0.0, 5.9], abs=0.2)


@pytest.mark.parametrize(
    ("wrong", "field"), [({"speed": -1}, "speed"), ({"times": "x"}, "times"), ({"pause_s_max": -1}, "pause")]
)
def test_bad_paces_are_refused(wrong, field):
    with pytest.raises(PlanError, match=field):
        Pace(**wrong)
