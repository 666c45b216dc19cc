"""Slices that a thread asks for are those that the system says it has."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

import pytest

from service_kit.scheduling import SHORT_NS, answer_soon, compute_long

GET = {"x86_64": 315, "aarch64": 275}.get(platform.machine())


def told() -> tuple[int, int]:
    """Niceness and slice of this thread, as Linux tells them."""
    answer = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(GET, 0, answer, 48, 0) == 0
    _, _, _, nice, _, slice_ns, _, _ = struct.unpack("=IIQiIQQQ", answer.raw)
    return nice, slice_ns


def in_thread(work):
    """What the work returns in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(platform.system() != "Linux" or GET is None, reason="another system, or processor")
def test_a_thread_and_those_it_starts_take_short_slices_until_one_says_otherwise():
    def computes():
        assert compute_long()
        return told()

    # A server that an earlier test has started in this thread left short slices to those that it starts.
    usual = in_thread(computes)

    def answers():
        assert answer_soon()
        return told(), in_thread(told), in_thread(computes)

    own, inherited, back = in_thread(answers)
    assert (own[0], back) == (os.getpriority(os.PRIO_PROCESS, 0), usual)
    if own[1] in (0, usual[1]):
        pytest.skip("this Linux has no slices that threads ask for")
    assert own == inherited == (usual[0], SHORT_NS)
