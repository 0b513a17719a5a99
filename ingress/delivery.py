"""How the outcome of a publish reaches the request handler that waits for it."""

from collections.abc import Callable, Generator

import msgspec

from ingress.errors import RequestError

#: Called once with the outcome of a publish: None once all records are acknowledged, otherwise the error.
DeliveryCallback = Callable[[RequestError | None], None]


class AllOf:
    """Delivery callback that joins several batches: the first failure is the outcome, otherwise the last success."""

    def __init__(self, batches: int, callback: DeliveryCallback) -> None:
        self._left = batches
        self._callback: DeliveryCallback | None = callback

    def __call__(self, failure: RequestError | None) -> None:
        """Receive the outcome of one batch."""
        self._left -= 1
        if self._callback is not None and (failure is not None or self._left == 0):
            callback, self._callback = self._callback, None
            callback(failure)


class Delivery(msgspec.Struct, eq=False):
    """Delivery callback of one publish, which its request's handler awaits.

    Like a future, but it runs the handler on by a plain call: through the event loop, that takes 5 % of a request. So
    it can be awaited by a handler that a connection runs, not in a task.
    """

    is_done: bool = False
    failure: RequestError | None = None
    on_done: Callable[[object], object] | None = None

    def __call__(self, failure: RequestError | None) -> None:
        """Set the outcome: None once all records are acknowledged, otherwise the error."""
        self.is_done, self.failure = True, failure
        if self.on_done is not None:
            self.on_done(self)

    def add_done_callback(self, callback: Callable[[object], object]) -> None:
        """Call `callback` once the outcome is set; there is one."""
        self.on_done = callback

    def __await__(self) -> Generator["Delivery", None, None]:
        if not self.is_done:
            yield self
        if self.failure is not None:
            raise self.failure
