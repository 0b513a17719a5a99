"""Refusals in the log: one line each, with the receipt id, so that a sender who asks can be helped.

Only what the sender has to mend: a 503 has a cause of ours, which is logged once, where it arises. A flood of bad
requests must not become a flood of lines, so there is a bound, and the rest is counted.
"""

import time
from collections.abc import Callable
from http import HTTPStatus

import structlog

from ingress.errors import STATUS, RequestError

log = structlog.get_logger(__name__)

_LINES_PER_S = 10


class RejectionLog:
    """Writes the lines; the clock gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._lines = 0

    def refused(self, refused: RequestError, receipt_id: str, address: str | None) -> None:
        """Log why and for whom; never what was sent, and not the message, which may quote it."""
        if STATUS[refused.reason][0] is HTTPStatus.SERVICE_UNAVAILABLE:
            return
        second = int(self._clock())
        if second != self._second:
            if self._lines > _LINES_PER_S:
                log.info("more requests were refused", count=self._lines - _LINES_PER_S)
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= _LINES_PER_S:
            log.info("a request was refused", receipt_id=receipt_id, reason=str(refused.reason), address=address)
