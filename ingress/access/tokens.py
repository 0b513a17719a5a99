"""Bearer tokens (RFC 6750): several at once, each with a name and optional dates.

One entry: `name token [from=DATE] [until=DATE]`, the token in clear text or as `sha256:` and 64 hex digits; dates are
`2026-06-30` (midnight UTC) or `2026-06-30T12:00:00+00:00`. Entries are separated by commas or line ends; `#` starts a
comment. Only digests are kept in memory. Every digest is compared, in constant time.
"""

import hashlib
import hmac
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from ingress.access.file_watcher import FileWatcher
from ingress.errors import Rejection, RequestError
from runtime.platform.errors import OperatorError
from runtime.platform.secret_files import read_secret_file
from runtime.platform.settings import Settings, variable

_HASHED = "sha256:"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1: b64token


class Token(NamedTuple):
    """A token: its name, its SHA-256 digest, and when it is valid (seconds since the epoch)."""

    name: str
    digest: bytes
    not_before_s: float
    until_s: float


class Tokens:
    """The tokens in force, from a setting and from the file that its `…_FILE` names; empty when none is required."""

    def __init__(self, settings: Settings, field: str = "ingress_tokens") -> None:
        self._variable = variable(field)
        self._given: SecretStr | None = getattr(settings, field)
        self._file: Path | None = getattr(settings, f"{field}_file")
        self._tokens: tuple[Token, ...] = ()
        self.watcher = FileWatcher([self._file] if self._file else [], self._load)

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def _load(self) -> None:
        given, file = self._given, self._file
        tokens = parse(given.get_secret_value(), self._variable) if given else []
        if file is not None:
            name = f"{self._variable}_FILE"
            tokens += parse(read_secret_file(file, name), f"{name}={file}")
        if (given is not None or file is not None) and not tokens:
            where = self._variable if file is None else f"{self._variable}_FILE={file}"
            raise OperatorError(f"{where} holds no bearer token", "add a line made by `eventpush token new NAME`")
        self._tokens = tuple(tokens)

    def check(self, authorization: list[str]) -> str:
        """Return the name of the token in the Authorization headers. Raise `RequestError` (401)."""
        if not authorization:
            raise _unauthorized("Authorization header missing; send `Authorization: Bearer <token>`")
        scheme, _, presented = authorization[0].partition(" ")
        if len(authorization) > 1 or scheme.lower() != "bearer":
            raise _unauthorized("send exactly one header `Authorization: Bearer <token>`")
        digest = hashlib.sha256(presented.strip().encode("utf-8", "surrogateescape")).digest()
        now_s = time.time()
        found = None
        for token in self._tokens:  # all of them, so that the time does not reveal which one matched
            if hmac.compare_digest(token.digest, digest) and token.not_before_s <= now_s < token.until_s:
                found = token
        if found is None:
            raise _unauthorized("unknown or expired bearer token", ', error="invalid_token"')
        return found.name


def parse(text: str, source: str) -> list[Token]:
    """Parse the entries in `text`. Raise `OperatorError` with the source and the entry's number, never its content."""
    entries = [line.partition("#")[0].strip() for line in re.split(r"[\n,]", text)]
    return [_entry(entry, f"{source}, entry {number}") for number, entry in enumerate(filter(None, entries), 1)]


def _entry(entry: str, where: str) -> Token:
    name, *rest = entry.split()
    if not rest or not NAME.fullmatch(name):
        raise OperatorError(f"{where} is not `name token`", "make one with `eventpush token new NAME`")
    token, *dates = rest
    if not _TOKEN.fullmatch(token.removeprefix(_HASHED)):
        raise OperatorError(
            f"{where} ({name}): a token consists of letters, digits and -._~+/",
            "make one with `eventpush token new NAME`",
        )
    if token.startswith(_HASHED):
        if not _DIGEST.fullmatch(token.removeprefix(_HASHED)):
            raise OperatorError(
                f"{where} ({name}): sha256: must be followed by 64 hex digits",
                "make one with `eventpush token new NAME`",
            )
        digest = bytes.fromhex(token.removeprefix(_HASHED))
    else:
        digest = hashlib.sha256(token.encode()).digest()
    given = dict(date.partition("=")[::2] for date in dates)
    if not set(given) <= {"from", "until"}:
        raise OperatorError(
            f"{where} ({name}): only from=DATE and until=DATE may follow the token", "correct the entry"
        )
    return Token(name, digest, _date(given.get("from"), 0, where), _date(given.get("until"), float("inf"), where))


def _date(text: str | None, default_s: float, where: str) -> float:
    if text is None:
        return default_s
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise OperatorError(
            f"{where}: {text!r} is not a date", "write 2026-06-30 or 2026-06-30T12:00:00+00:00"
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def new(name: str) -> tuple[str, str]:
    """Make a token, and the line for the ingress (only its hash). Raise `OperatorError` for an invalid name."""
    if not NAME.fullmatch(name):
        raise OperatorError(
            f"{name!r} is not a valid token name", "use 1 to 64 letters, digits, dots, dashes and underscores"
        )
    token = "ep_" + secrets.token_urlsafe(32)
    return token, f"{name} {_HASHED}{hashlib.sha256(token.encode()).hexdigest()}"


def _unauthorized(message: str, detail: str = "") -> RequestError:
    return RequestError(Rejection.UNAUTHORIZED, message, {"WWW-Authenticate": f'Bearer realm="eventpush"{detail}'})
