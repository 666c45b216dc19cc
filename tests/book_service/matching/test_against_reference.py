"""The compiled core against the slow obvious book: identical reports, depth and best prices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from book_service.matching import REPORT_DTYPE, Controls, Instrument, Limit, MatchingEngine
from tests.book_service.matching.flows import MIXES, controlled_flow, random_flow
from tests.book_service.matching.reference_book import ReferenceBook
from tests.book_service.matching.reference_controls import ReferenceWithControls

MESSAGES = 5_000
SEEDS_PER_MIX = 20
MULTIPLIERS = [1, 3]


def same_answers(engine: MatchingEngine, reference: ReferenceBook, flow: Any, batch: int) -> MatchingEngine:
    """Feeds both, batch by batch; each batch ends with a look at the books and a restart from a snapshot."""
    for start in range(0, len(flow), batch):
        messages = flow[start : start + batch]
        wanted = np.array(reference.process(messages), REPORT_DTYPE)
        got = engine.process(messages)
        for place in np.flatnonzero(wanted[: len(got)] != got[: len(wanted)])[:1]:
            pytest.fail(
                f"report {place}: {got[place]} instead of {wanted[place]}\nfields {REPORT_DTYPE.names}"
            )
        assert len(got) == len(wanted)
        for symbol in range(reference.symbols):
            assert engine.best(symbol) == reference.best(symbol)
            for ours, theirs in zip(engine.depth(symbol, 10**6), reference.depth(symbol, 10**6)):
                assert ours.tolist() == theirs
        engine = MatchingEngine.restore(engine.snapshot())
    return engine


@pytest.mark.parametrize("mix", MIXES)
def test_same_reports_and_books_without_controls(mix: str, seed: int) -> None:
    for one in range(seed, seed + SEEDS_PER_MIX):
        flow = random_flow(np.random.default_rng(one), MESSAGES, mix)
        with seeded(one):
            same_answers(MatchingEngine(2), ReferenceBook(2), flow, 2_500)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("strict", [True, False])
def test_same_reports_and_books_with_controls(mix: str, strict: bool, seed: int) -> None:
    for one in range(seed, seed + SEEDS_PER_MIX // 2):
        flow = controlled_flow(np.random.default_rng(one), MESSAGES, mix)
        references = [1000, None if one % 2 else 1000]
        most_accounts = 4 if one % 5 == 0 else 65_536
        controls = Controls(strict_reference=strict, most_accounts=most_accounts)
        listed = [
            Instrument(multiplier=multiplier, reference=reference)
            for multiplier, reference in zip(MULTIPLIERS, references)
        ]
        limits = {int(limit): value for limit, value in controls.limits().items()}
        reference = ReferenceWithControls(
            MULTIPLIERS, references, limits, strict=strict, most_accounts=most_accounts
        )
        with seeded(one):
            same_answers(MatchingEngine(listed, controls), reference, flow, 2_500)


def test_flows_reach_every_report_and_reason() -> None:
    """A comparison proves nothing about what never happens in it."""
    seen: set[tuple[int, int]] = set()
    for seed in range(8):
        for mix in MIXES:
            flow = controlled_flow(np.random.default_rng(seed), MESSAGES, mix)
            controls = Controls(strict_reference=bool(seed % 2), most_accounts=4 if seed == 0 else 65_536)
            reports = MatchingEngine([Instrument(reference=1000)] * 2, controls).process(flow)
            seen |= set(zip(reports["kind"].tolist(), reports["reason"].tolist()))
    rejected = {reason for kind, reason in seen if kind == 6}
    cancelled = {reason for kind, reason in seen if kind == 2}
    assert set(range(10)) == {kind for kind, _ in seen}
    assert set(range(1, 12)) | {20, 23} | set(range(40, 59)) | {60, 61} <= rejected
    assert {0, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109} <= cancelled


def test_every_limit_is_compared() -> None:
    assert {limit.name for limit in Limit} == {limit.name for limit in Controls().limits()}


class seeded:
    """Names the seed of the flow when what is inside fails."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"random seed {self.seed} (GPU_RISK_TEST_SEED={self.seed} repeats it)")
