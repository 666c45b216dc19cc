"""The matching core: books, orders and pre-trade controls, compiled; a pure function of its messages."""

from book_service.matching.controls import ControlCommand, Controls, Instrument, Limit
from book_service.matching.engine import MatchingEngine
from book_service.matching.layout import ORDER_DTYPE, REPORT_DTYPE
from book_service.matching.reasons import CancelReason, RejectReason
from book_service.matching.snapshot import SnapshotError

__all__ = [
    "ORDER_DTYPE",
    "REPORT_DTYPE",
    "CancelReason",
    "ControlCommand",
    "Controls",
    "Instrument",
    "Limit",
    "MatchingEngine",
    "RejectReason",
    "SnapshotError",
]
