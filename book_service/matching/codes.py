"""The codes of layout.py and reasons.py as plain numbers, which is what compiled code takes."""

from __future__ import annotations

from typing import Final

from book_service.matching.layout import Action, Kind, ReportKind, SelfTrade, TimeInForce
from book_service.matching.reasons import CancelReason, RejectReason

NEW, CANCEL, REPLACE, MASS_CANCEL, CONTROL = (int(code) for code in Action)
LIMIT, MARKET, STOP, STOP_LIMIT = (int(code) for code in Kind)
DAY, IOC, FOK, POST_ONLY, GTD = (int(code) for code in TimeInForce)
NO_STP, STP_NEWEST, STP_OLDEST, STP_BOTH, STP_DECREMENT = (int(code) for code in SelfTrade)
(ACCEPTED, TRADE, CANCELLED, REPLACED, CANCEL_REJECTED, REPLACE_REJECTED, REJECTED, TRIGGERED_REPORT, EXPIRED,
 DECREMENTED) = (int(code) for code in ReportKind)  # fmt: skip

BAD_ACTION: Final = int(RejectReason.BAD_ACTION)
BAD_SIDE: Final = int(RejectReason.BAD_SIDE)
BAD_KIND: Final = int(RejectReason.BAD_KIND)
BAD_TIF: Final = int(RejectReason.BAD_TIME_IN_FORCE)
BAD_FLAGS: Final = int(RejectReason.BAD_FLAGS)
BAD_STP: Final = int(RejectReason.BAD_SELF_TRADE_PREVENTION)
UNKNOWN_SYMBOL: Final = int(RejectReason.UNKNOWN_SYMBOL)
ZERO_QUANTITY: Final = int(RejectReason.ZERO_QUANTITY)
QUANTITY_OVERFLOW: Final = int(RejectReason.QUANTITY_OVERFLOW)
MISSING_STOP: Final = int(RejectReason.MISSING_STOP_PRICE)
EXPIRY_PAST: Final = int(RejectReason.EXPIRY_IN_THE_PAST)
DUPLICATE_ID: Final = int(RejectReason.DUPLICATE_ORDER_ID)
UNKNOWN_ORDER: Final = int(RejectReason.UNKNOWN_ORDER)
NOT_OWNER: Final = int(RejectReason.NOT_THE_OWNER)
WOULD_MATCH: Final = int(RejectReason.POST_ONLY_WOULD_MATCH)
BAD_COMMAND: Final = int(RejectReason.BAD_CONTROL_COMMAND)
CONTROLS_ARE_OFF: Final = int(RejectReason.CONTROLS_ARE_OFF)

BY_IOC: Final = int(CancelReason.IMMEDIATE_OR_CANCEL)
BY_MARKET: Final = int(CancelReason.MARKET_REMAINDER)
BY_FOK: Final = int(CancelReason.CANNOT_FILL_WHOLLY)
BY_SELF_TRADE: Final = int(CancelReason.SELF_TRADE)
BY_POST_ONLY: Final = int(CancelReason.POST_ONLY_WOULD_MATCH)
BY_MASS: Final = int(CancelReason.MASS_CANCEL)
BY_KILL: Final = int(CancelReason.KILLED)
BY_BREAKER: Final = int(CancelReason.CIRCUIT_BREAKER)
BY_HALT: Final = int(CancelReason.SYMBOL_HALTED)
BY_CONTROL: Final = int(CancelReason.PRE_TRADE_CONTROL)
