"""Refuse requests of web pages that a browser here has open, as ClickHouse refuses an access. Pure."""

from collections.abc import Mapping

from embedded.clickhouse.errors import error
from runtime.platform.origin import foreign_host, is_cross_site


def check_origin(headers: Mapping[str, str], configured_host: str) -> None:
    """Raise ClickHouseError (497) for a foreign `Host` or `Origin`, and for requests that a browser marks as such."""
    host = foreign_host(headers, configured_host)
    if host is not None:
        raise error("ACCESS_DENIED", f"Requests for the host {host[:100]!r} are not answered")
    if is_cross_site(headers):
        raise error("ACCESS_DENIED", "Requests of web pages are not answered")
