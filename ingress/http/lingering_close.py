"""The end of a connection whose client may still be sending: the answer must reach it.

Closing while bytes are on their way makes the kernel answer them with a reset, and a reset throws away what the client
has not read yet: our answer. So our side alone is closed (where there is no TLS; it knows no half-close), and what
still comes is discarded until the client closes too, for a bounded time and amount.
"""

import asyncio

TIME_S = 5.0
MAX_BYTES = 32 * 1024 * 1024
AT_ONCE_MAX = 512  # in one process; further ones are closed as they are


class Lingering:
    """Ends `transport` in that way; nothing of what comes is kept."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._left = MAX_BYTES
        self._timer = loop.call_later(TIME_S, self.cut)
        transport.resume_reading()  # it may have been paused while a body waited to be read
        if transport.can_write_eof():
            transport.write_eof()

    def discard(self, data: bytes) -> None:
        """What the client still sends."""
        self._left -= len(data)
        if self._left < 0:
            self.cut()

    def cut(self) -> None:
        """Ends it now, reset or not."""
        self._timer.cancel()
        self._transport.abort()
