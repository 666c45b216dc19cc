"""A log line for a call that ended badly or took long: who, what, how long; at debug one for every call."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable

from service_kit.telemetry.logs import logger

REQUEST_ID = "x-request-id"
_FIT = re.compile(r"[\w.:-]{1,64}", re.ASCII)
# A flood of refusals must not become a flood of lines: so many a second, so many at once.
LINES_PER_S = 20.0
LINES_AT_ONCE = 100.0


def request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's own id of the request (`x-request-id`) where it is fit for a log line, else a new one."""
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and _FIT.fullmatch(value):
            return value
    return uuid.uuid4().hex[:12]


class CallLog:
    """Writes the lines; `clock` is in seconds."""

    def __init__(self, slow_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._slow_s, self._clock = slow_s, clock
        self._log = logger("grpc")
        self._every = bool(self._log.is_enabled_for(logging.DEBUG))
        self._room, self._at, self._left_out = LINES_AT_ONCE, clock(), 0

    def wants(self, code: str, seconds: float, endless: bool) -> bool:
        """Whether such a call is worth a line; asked at every call, so it is cheap."""
        return self._every or self._notable(code, seconds, endless)

    def ended(
        self, method: str, principal: str, code: str, seconds: float, request: str, *, endless: bool
    ) -> None:
        """Writes the line, unless too many came before it; those are counted in the next."""
        told = {"method": method, "principal": principal, "code": code, "request_id": request}
        told["latency_ms"] = f"{seconds * 1e3:.3f}"
        if not self._notable(code, seconds, endless):
            self._log.debug("call ended", **told)
            return
        now = self._clock()
        self._room = min(LINES_AT_ONCE, self._room + (now - self._at) * LINES_PER_S)
        self._at = now
        if self._room < 1.0:
            self._left_out += 1
            return
        self._room -= 1.0
        left_out, self._left_out = self._left_out, 0
        self._log.info("call ended", **told, **({"lines_left_out": left_out} if left_out else {}))

    def _notable(self, code: str, seconds: float, endless: bool) -> bool:
        if endless and code in ("OK", "CANCELLED"):
            return False  # a watch ends when its reader leaves, and lasts as long as that
        return code != "OK" or seconds >= self._slow_s
