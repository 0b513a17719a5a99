"""Lingering close: end a connection so that the last response reaches a client that is still sending.

Closing a socket with unread bytes makes the kernel send a reset, and a reset discards what the client has not read
yet: our response. So only our side is closed (not over TLS, which has no half-close), and what the client still sends
is discarded until it closes too, within a time and an amount.
"""

import asyncio

TIME_S = 5.0
MAX_BYTES = 32 * 1024 * 1024
AT_ONCE_MAX = 512  # lingering connections in one process; further ones are closed at once


class LingeringClose:
    """The lingering close of one transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._left_bytes = MAX_BYTES
        self._timer = loop.call_later(TIME_S, self.abort)
        transport.resume_reading()  # reading may be paused while a body waits to be read
        if transport.can_write_eof():
            transport.write_eof()

    def discard(self, data: bytes) -> None:
        """Discard what the client still sends; abort when it is too much."""
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self.abort()

    def abort(self) -> None:
        """End the connection now, with a reset if need be."""
        self._timer.cancel()
        self._transport.abort()
