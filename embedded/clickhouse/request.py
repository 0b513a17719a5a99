"""What an HTTP request asks of ClickHouse: the URL's parameters and the headers, taken apart. Pure.

The rules are those of a server's HTTP interface: what is no parameter of the
interface itself is a setting of the query.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from embedded.clickhouse.errors import error

DEFAULT_FORMAT = "TabSeparated"
SESSION_TIMEOUT_S = 60
SESSION_TIMEOUT_MAX_S = 3600

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PARAMETER_NAME = re.compile(r"[\w$]+", re.ASCII)
# Parameters of the interface that are no settings and change nothing here.
_IGNORED = {
    "quota_key",
    "stacktrace",
    "close_session",
    "cancel_http_readonly_queries_on_client_close",
}
# An INSERT is answered when its rows are stored, which is what these can at most ask for.
_ASYNC_INSERT = {"async_insert", "wait_for_async_insert", "async_insert_busy_timeout_ms"}


@dataclass(frozen=True)
class Credentials:
    """User and password; `given` is false for a request without any."""

    user: str = "default"
    password: str = ""
    given: bool = False


@dataclass(frozen=True)
class Ask:
    """What a request asks for, beside its SQL text and its data."""

    query: str = ""
    query_id: str = ""
    database: str = ""
    default_format: str = ""
    session_id: str = ""
    session_timeout_s: int = SESSION_TIMEOUT_S
    session_check: bool = False
    close_session: bool = False
    packed_blocks_in: bool = False
    packed_blocks_out: bool = False
    http_compression: bool = True
    wait_end_of_query: bool = False
    response_buffer_bytes: int = 0
    progress_interval_ms: int | None = None
    client_protocol_version: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


def ask(fields: Iterable[tuple[str, str]], headers: Mapping[str, str]) -> Ask:
    """Parse the request's parameters (a later one wins) and headers; raise ClickHouseError for invalid ones."""
    fields = list(fields)
    named = dict(fields)
    if roles := [value for name, value in fields if name == "role"]:
        # The engine has no roles and lets none be created.
        raise error("UNKNOWN_ROLE", f"There is no role `{roles[0]}` in `user directories`.")
    settings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for name, value in named.items():
        if name.startswith("param_"):
            parameters[_parameter(name.removeprefix("param_"))] = value
        elif name not in _INTERFACE and name not in _IGNORED and name not in _ASYNC_INSERT:
            settings[_checked(name)] = value
    if not settings.get("max_query_size", "0").isdecimal():
        raise error("BAD_ARGUMENTS", "max_query_size is not a number")
    return Ask(
        query=named.get("query", ""),
        query_id=named.get("query_id", ""),
        database=named.get("database", "") or headers.get("X-ClickHouse-Database", ""),
        default_format=named.get("default_format", "") or headers.get("X-ClickHouse-Format", ""),
        session_id=named.get("session_id", ""),
        session_timeout_s=_session_timeout_s(named.get("session_timeout")),
        session_check=_flag(named, "session_check"),
        close_session=_flag(named, "close_session"),
        packed_blocks_in=_flag(named, "decompress"),
        packed_blocks_out=_flag(named, "compress"),
        http_compression=_flag(named, "enable_http_compression", default=True),
        wait_end_of_query=_flag(named, "wait_end_of_query") or _flag(named, "http_wait_end_of_query"),
        response_buffer_bytes=_number(named.get("http_response_buffer_size") or named.get("buffer_size", "0")),
        progress_interval_ms=(
            max(1, _number(named.get("http_headers_progress_interval_ms", "100")))
            if _flag(named, "send_progress_in_http_headers")
            else None
        ),
        client_protocol_version=_number(named.get("client_protocol_version", "0")),
        settings=settings,
        parameters=parameters,
    )


_INTERFACE = {
    "query",
    "query_id",
    "database",
    "default_format",
    "session_id",
    "session_timeout",
    "session_check",
    "decompress",
    "compress",
    "enable_http_compression",
    "wait_end_of_query",
    "http_wait_end_of_query",
    "http_response_buffer_size",
    "buffer_size",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "role",
    "client_protocol_version",
    "user",
    "password",
}


def credentials(fields: Mapping[str, str], headers: Mapping[str, str]) -> Credentials:
    """Return the credentials of `X-ClickHouse-User` and `-Key`, of basic authorization, or of the URL."""
    authorization = headers.get("Authorization", "")
    by_header = "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers
    by_url = "user" in fields or "password" in fields
    if by_header + bool(authorization) + by_url > 1:
        raise error(
            "AUTHENTICATION_FAILED",
            "Invalid authentication: it is not allowed to name the user in more than one way at once",
        )
    if by_header:
        return Credentials(headers.get("X-ClickHouse-User", "default"), headers.get("X-ClickHouse-Key", ""), given=True)
    if authorization:
        return _basic(authorization)
    if by_url:
        return Credentials(fields.get("user", "default"), fields.get("password", ""), given=True)
    return Credentials()


def _basic(authorization: str) -> Credentials:
    scheme, _, value = authorization.partition(" ")
    try:
        decoded = base64.b64decode(value, validate=True).decode() if scheme.lower() == "basic" else None
    except (binascii.Error, UnicodeDecodeError):
        decoded = None
    if decoded is None:
        raise error("AUTHENTICATION_FAILED", "Invalid authentication: 'Basic' HTTP Authorization scheme is expected")
    user, _, password = decoded.partition(":")
    return Credentials(user or "default", password, given=True)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise error("UNKNOWN_SETTING", f"Unknown setting '{name}'")
    return name


def _parameter(name: str) -> str:
    if not _PARAMETER_NAME.fullmatch(name):
        raise error("UNKNOWN_SETTING", f"Unknown setting 'param_{name}'")
    return name


def _flag(named: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    value = named.get(name)
    return default if value is None else value.lower() in {"1", "true", "on", "yes"}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _session_timeout_s(text: str | None) -> int:
    if text is None:
        return SESSION_TIMEOUT_S
    if not (text.isascii() and text.isdigit()):
        raise error("INVALID_SESSION_TIMEOUT", f"Invalid session timeout: '{text}'")
    if int(text) > SESSION_TIMEOUT_MAX_S:
        raise error(
            "INVALID_SESSION_TIMEOUT",
            f"Session timeout '{text}' is larger than max_session_timeout: {SESSION_TIMEOUT_MAX_S}",
        )
    return int(text)
