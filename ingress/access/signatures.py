"""Signatures of requests, over the body's bytes as sent (before decompression).

`standard-webhooks`: the scheme of standardwebhooks.com, through its own package: `webhook-id`, `webhook-timestamp`
(within five minutes) and `webhook-signature`. `hmac-sha256`: HMAC-SHA256 of the body alone, in a header of choice, hex
or base64; it has no timestamp, so a replay of the same bytes verifies too, and the stream stage drops it as a
duplicate.

One entry: `secret [name=NAME]`. Entries are separated by commas or line ends. Without a name, an entry is `secret-` and
its number, from 1, so names keep their meaning only where secrets are added at the end.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from ingress.access.file_watcher import FileWatcher
from ingress.access.tokens import NAME
from ingress.errors import Rejection, RequestError
from runtime.platform.errors import OperatorError
from runtime.platform.secret_files import read_secret_file
from runtime.platform.settings import Settings

_ENTRY = re.compile(r"(?P<secret>.*?)(?:\s+name=(?P<name>\S*))?", re.DOTALL)


class Secret(NamedTuple):
    """A secret that requests may be signed with, and the name that their events are stored with."""

    name: str
    secret: str


class Scheme(Protocol):
    """A way of signing."""

    headers: tuple[str, ...]
    mismatch: str  # message for a signature that does not match

    def verify(self, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether the signature is that of `secret` over `body`."""

    def check_secret(self, secret: str) -> None:
        """Raise ValueError for a secret that the scheme cannot use."""


class StandardWebhooks:
    """https://www.standardwebhooks.com."""

    headers: tuple[str, ...] = ("webhook-id", "webhook-timestamp", "webhook-signature")
    mismatch = "signature does not match the body, or webhook-timestamp is more than 5 minutes off (standard-webhooks)"

    def verify(self, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        """See `Scheme`."""
        try:
            Webhook(secret).verify(body, {name: headers[name] for name in self.headers}, json_parse=False)
        except (WebhookVerificationError, ValueError):  # ValueError: malformed base64, UTF-8 or list
            return False
        return True

    def check_secret(self, secret: str) -> None:
        """See `Scheme`: base64, with or without `whsec_`."""
        Webhook(secret)


class HmacSha256:
    """HMAC-SHA256 of the body (RFC 2104) in one header."""

    mismatch = "signature does not match the body (hmac-sha256)"

    def __init__(self, header: str, encoding: str) -> None:
        self.headers: tuple[str, ...] = (header,)
        self._decode: Callable[[str], bytes] = bytes.fromhex if encoding == "hex" else _from_base64

    def verify(self, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        """See `Scheme`."""
        try:
            presented = self._decode(headers[self.headers[0]].strip().removeprefix("sha256="))
        except ValueError:
            return False
        return hmac.compare_digest(presented, hmac.digest(secret.encode(), body, hashlib.sha256))

    def check_secret(self, secret: str) -> None:
        """See `Scheme`: any text."""


class Signatures:
    """The scheme and the secrets in force."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._scheme = _scheme(settings)
        self._secrets: tuple[Secret, ...] = ()
        file = settings.ingress_signature_secrets_file
        self.watcher = FileWatcher([file] if file else [], self._load)

    def __bool__(self) -> bool:
        return self._scheme is not None

    def _load(self) -> None:
        if self._scheme is None:
            return
        given, file = self._settings.ingress_signature_secrets, self._settings.ingress_signature_secrets_file
        text = given.get_secret_value() if given else ""
        if file is not None:
            text += "\n" + read_secret_file(file, "EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE")
        secrets = parse(text)
        if not secrets:
            raise OperatorError(
                f"EVENTPUSH_INGRESS_VERIFIER={self._settings.ingress_verifier} has no secret",
                "set EVENTPUSH_INGRESS_SIGNATURE_SECRETS or EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE",
            )
        for number, secret in enumerate(secrets, 1):
            try:
                self._scheme.check_secret(secret.secret)
            except Exception:
                raise OperatorError(
                    f"signature secret {number} is not a valid {self._settings.ingress_verifier} secret",
                    "use base64, with or without the prefix whsec_",
                ) from None
        self._secrets = tuple(secrets)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check before the body is read that the request is signed. Raise `RequestError` (401)."""
        if self._scheme is not None:
            missing = [name for name in self._scheme.headers if not headers.get(name)]
            if missing:
                raise _bad_signature(f"request not signed; missing {', '.join(missing)}")

    def check(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """Return the name of the secret that signed these bytes; None without a scheme.

        Every secret is tried, so that the time does not reveal which one it was. Raise `RequestError` (401).
        """
        scheme = self._scheme
        if scheme is None:
            return None
        names = [secret.name for secret in self._secrets if scheme.verify(secret.secret, headers, body)]
        if not names:
            raise _bad_signature(scheme.mismatch)
        return names[0]


def parse(text: str) -> list[Secret]:
    """Parse the entries in `text`. Raise `OperatorError` with the entry's number, never its content."""
    entries = [entry.strip() for entry in re.split(r"[\n,]", text)]
    return [_entry(entry, number) for number, entry in enumerate(filter(None, entries), 1)]


def _entry(entry: str, number: int) -> Secret:
    match = _ENTRY.fullmatch(entry)
    secret, name = match.group("secret", "name") if match else (entry, None)
    if name is None:
        return Secret(f"secret-{number}", secret)
    if not NAME.fullmatch(name):
        raise OperatorError(
            f"signature secret {number} has an invalid name",
            "use 1 to 64 letters, digits, dots, dashes and underscores",
        )
    return Secret(name, secret)


def _scheme(settings: Settings) -> Scheme | None:
    match settings.ingress_verifier:
        case "standard-webhooks":
            return StandardWebhooks()
        case "hmac-sha256":
            return HmacSha256(settings.ingress_signature_header, settings.ingress_signature_encoding)
        case "none":
            return None


def _bad_signature(message: str) -> RequestError:
    return RequestError(Rejection.BAD_SIGNATURE, message, {"WWW-Authenticate": 'Signature realm="eventpush"'})


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
