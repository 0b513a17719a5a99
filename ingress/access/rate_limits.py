"""Limits on requests per second, counted in this process by the `limits` library over a sliding window."""

from ipaddress import IPv6Address, ip_network

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from ingress.access.addresses import Address
from ingress.errors import Rejection, RequestError
from runtime.platform.settings import Settings


class RateLimits:
    """The limits per token and per address; 0 means no limit."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._per_token = _item(settings.ingress_rate_per_token)
        self._per_address = _item(settings.ingress_rate_per_address)

    def check_address(self, address: Address | None) -> None:
        """Count a request; an IPv6 sender owns a /64, so that is one address. Raise `RequestError` (429)."""
        if self._per_address is not None:
            whole = str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else str(address)
            self._hit(self._per_address, "address", whole)

    def check_token(self, name: str) -> None:
        """Count a request. Raise `RequestError` (429)."""
        if self._per_token is not None:
            self._hit(self._per_token, "token", name)

    def _hit(self, item: RateLimitItemPerSecond, what: str, who: str) -> None:
        if not self._limiter.hit(item, what, who):
            message = f"more than {item.amount} requests per second for this {what}; retry"
            raise RequestError(Rejection.TOO_MANY_REQUESTS, message, {"Retry-After": "1"})


def _item(per_second: int) -> RateLimitItemPerSecond | None:
    return RateLimitItemPerSecond(per_second) if per_second else None
