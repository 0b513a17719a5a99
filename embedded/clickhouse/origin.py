"""Whether a request comes from a program on this machine, or from a web page that a browser here has open.

A page can send requests to loopback addresses, and with DNS rebinding under a host name of its own. Pure.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from embedded.clickhouse.errors import error

_OWN_SITE = {"same-origin", "none"}


def check_origin(headers: Mapping[str, str], configured_host: str) -> None:
    """Raise ClickHouseError (497) for a foreign `Host` or `Origin`, and for requests that a browser marks as such."""
    host = headers.get("Host", "")
    if host and not _is_own(_hostname(f"//{host}"), configured_host.lower()):
        raise error("ACCESS_DENIED", f"Requests for the host {host[:100]!r} are not answered")
    origin = headers.get("Origin")
    foreign = origin is not None and _netloc(origin) != host.lower()
    if foreign or headers.get("Sec-Fetch-Site", "none").lower() not in _OWN_SITE:
        raise error("ACCESS_DENIED", "Requests of web pages are not answered")


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
