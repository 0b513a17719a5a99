"""Rejections in the log: one line each with the receipt id, so that operators can help a sender who asks.

Only what the sender must fix: a 503 has a cause on our side, which is logged once, where it arises. Lines are limited
per second, so that a flood of bad requests is not a flood of lines; the rest is counted.
"""

import time
from collections.abc import Callable
from http import HTTPStatus

import structlog

from ingress.errors import STATUS, RequestError

log = structlog.get_logger(__name__)

_LINES_PER_S = 10


class RejectionLog:
    """A writer of these lines; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._lines = 0

    def log(self, error: RequestError, receipt_id: str, address: str | None) -> None:
        """Log reason and address; never what was sent, and not the message, which may quote it."""
        if STATUS[error.reason][0] is HTTPStatus.SERVICE_UNAVAILABLE:
            return
        second = int(self._clock())
        if second != self._second:
            if self._lines > _LINES_PER_S:
                log.info("more requests rejected", count=self._lines - _LINES_PER_S)
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= _LINES_PER_S:
            log.info("request rejected", receipt_id=receipt_id, reason=str(error.reason), address=address)
