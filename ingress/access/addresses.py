"""The sender's address, and whether it is on the allowlist.

Anyone can write `X-Forwarded-For` and `Forwarded` (RFC 7239), so they count only as far as trusted proxies vouch for
them: read from the right, hop by hop, the first address that is not a trusted proxy is the sender's.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from multidict import CIMultiDictProxy

from ingress.errors import Rejection, RequestError
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Addresses:
    """The allowlist and the trusted proxies."""

    def __init__(self, settings: Settings) -> None:
        self._allowed = networks(settings.ingress_allow, "EVENTPUSH_INGRESS_ALLOW")
        self._proxies = networks(settings.ingress_trusted_proxies, "EVENTPUSH_INGRESS_TRUSTED_PROXIES")
        self._header = settings.ingress_forwarded_header

    @property
    def restricted(self) -> bool:
        """Whether there is an allowlist."""
        return bool(self._allowed)

    def sender(self, peer: str | None, headers: "CIMultiDictProxy[str]") -> Address | None:
        """Determine the sender's address; None when a trusted proxy names none that can be parsed."""
        hop = parsed(peer or "")
        if hop is None or not _within(hop, self._proxies):
            return hop
        for named in reversed(_hops(headers.getall(self._header, []), self._header)):
            hop = parsed(named)
            if hop is None or not _within(hop, self._proxies):
                return hop
        return hop

    def check(self, address: Address | None) -> None:
        """Raise `RequestError` (403) when the address is not on the allowlist."""
        if self._allowed and (address is None or not _within(address, self._allowed)):
            raise RequestError(Rejection.FORBIDDEN_ADDRESS, f"address {address or '(unknown)'} not allowed")


def networks(text: str, variable: str) -> tuple[Network, ...]:
    """Parse CIDRs separated by commas. Raise `OperatorError`."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise OperatorError(
            f"{variable}={text} ({error})", "write CIDRs such as 203.0.113.0/24 or 2001:db8::/32"
        ) from None


@lru_cache(maxsize=4_096)
def parsed(text: str) -> Address | None:
    """Parse an address as headers contain it, with or without port and brackets; IPv4 mapped to IPv6 becomes IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _hops(values: list[str], header: str) -> list[str]:
    elements = [element for value in values for element in value.split(",")]
    if header == "x-forwarded-for":
        return elements
    return [_for(element) for element in elements]


def _for(element: str) -> str:
    """Return the `for` of one element of Forwarded; "" when there is none."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value
    return ""


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)
