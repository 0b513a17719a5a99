"""Whether a request comes from a program or an address bar, or from a foreign web page that a browser has open.

A page can send requests to loopback addresses, and with DNS rebinding under a host name of its own. Pure.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

_OWN_SITE = {"same-origin", "none"}


def foreign_host(headers: Mapping[str, str], configured_host: str) -> str | None:
    """Return the request's `Host` if it is neither a loopback name or address nor the configured host; else None."""
    host = headers.get("Host", "")
    return host if host and not _is_own(_hostname(f"//{host}"), configured_host.lower()) else None


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Return whether `Origin` differs from `Host`, or a browser marks the request as another site's."""
    origin = headers.get("Origin")
    foreign = origin is not None and _netloc(origin) != headers.get("Host", "").lower()
    return foreign or headers.get("Sec-Fetch-Site", "none").lower() not in _OWN_SITE


def is_loopback(host: str) -> bool:
    """Return whether a host to listen on is reached from this machine only."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower() or "null"
    except ValueError:
        return "null"


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_own(name: str, configured: str) -> bool:
    if name in {"localhost", configured}:
        return True
    address = _address(name)
    if address is None:
        return False
    # A name can be rebound to this address; a literal address cannot.
    listens_everywhere = _address(configured)
    return address.is_loopback or (listens_everywhere is not None and listens_everywhere.is_unspecified)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
