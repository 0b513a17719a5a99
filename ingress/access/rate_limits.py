"""Bounds on requests per second, counted by the `limits` library over a sliding window, in this process alone."""

from ipaddress import IPv6Address, ip_network

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from ingress.access.addresses import Address
from ingress.errors import Reason, RequestError
from runtime.platform.settings import Settings


class RateLimits:
    """The rates per token and per address; a rate of 0 is no bound."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._per_token = _item(settings.ingress_rate_per_token)
        self._per_address = _item(settings.ingress_rate_per_address)

    def check_address(self, sender: Address | None) -> None:
        """Counts a request; raises `RequestError` (429). A sender has a whole IPv6 /64, so that is what is counted."""
        if self._per_address is not None:
            whole = str(ip_network((sender, 64), strict=False)) if isinstance(sender, IPv6Address) else str(sender)
            self._hit(self._per_address, "address", whole)

    def check_token(self, name: str) -> None:
        """Counts a request; raises `RequestError` (429)."""
        if self._per_token is not None:
            self._hit(self._per_token, "token", name)

    def _hit(self, item: RateLimitItemPerSecond, what: str, who: str) -> None:
        if not self._limiter.hit(item, what, who):
            message = f"more than {item.amount} requests per second with this {what}: send it again later"
            raise RequestError(Reason.TOO_MANY_REQUESTS, message, {"Retry-After": "1"})


def _item(per_second: int) -> RateLimitItemPerSecond | None:
    return RateLimitItemPerSecond(per_second) if per_second else None
