"""Signatures of requests, over the body's bytes as sent (before decompression).

`standard-webhooks`: the scheme of standardwebhooks.com, through its own package: `webhook-id`, `webhook-timestamp`
(within five minutes) and `webhook-signature`. `hmac-sha256`: HMAC-SHA256 of the body alone, in a header of choice, hex
or base64; it has no timestamp, so a replay of the same bytes verifies too, and the stream stage drops it as a
duplicate.

One entry: `secret [name=NAME]`. Entries are separated by commas or line ends. Without a name, an entry is `secret-` and
its number, from 1, so names keep their meaning only where secrets are added at the end.

`signer` signs as a sender does, for commands that send.
"""

import base64
import hashlib
import hmac
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
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

    def sign(self, secret: str, body: bytes) -> dict[str, str]:
        """Return the headers of a request with this body; raise UnicodeDecodeError if it cannot be signed."""

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

    def sign(self, secret: str, body: bytes) -> dict[str, str]:
        """See `Scheme`: only text in UTF-8 can be signed."""
        now, message_id = datetime.now(UTC), f"msg_{uuid.uuid4().hex}"
        signature = Webhook(secret).sign(message_id, now, body.decode())
        return dict(zip(self.headers, (message_id, str(int(now.timestamp())), signature), strict=True))

    def check_secret(self, secret: str) -> None:
        """See `Scheme`: base64, with or without `whsec_`."""
        Webhook(secret)


class HmacSha256:
    """HMAC-SHA256 of the body (RFC 2104) in one header."""

    mismatch = "signature does not match the body (hmac-sha256)"

    def __init__(self, header: str, encoding: str) -> None:
        self.headers: tuple[str, ...] = (header,)
        is_hex = encoding == "hex"
        self._decode: Callable[[str], bytes] = bytes.fromhex if is_hex else _from_base64
        self._encode: Callable[[bytes], str] = bytes.hex if is_hex else _to_base64

    def verify(self, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        """See `Scheme`."""
        try:
            presented = self._decode(headers[self.headers[0]].strip().removeprefix("sha256="))
        except ValueError:
            return False
        return hmac.compare_digest(presented, _digest(secret, body))

    def sign(self, secret: str, body: bytes) -> dict[str, str]:
        """See `Scheme`."""
        return {self.headers[0]: self._encode(_digest(secret, body))}

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
        if self._scheme is not None:
            self._secrets = _secrets(self._settings, self._scheme)

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


def signer(settings: Settings, name: str | None) -> Callable[[bytes], dict[str, str]] | None:
    """Return what makes the headers that sign a body with the secret called `name`, by default the first.

    None if the settings ask for no signature. Raise `OperatorError` without such a secret.
    """
    scheme = _scheme(settings)
    if scheme is None:
        return None
    secrets = _secrets(settings, scheme)
    chosen = [secret for secret in secrets if name in (None, secret.name)]
    if not chosen:
        names = ", ".join(secret.name for secret in secrets)
        raise OperatorError(f"no signature secret is called {name}", f"name one of {names}")
    return partial(scheme.sign, chosen[0].secret)


def _secrets(settings: Settings, scheme: Scheme) -> tuple[Secret, ...]:
    given, file = settings.ingress_signature_secrets, settings.ingress_signature_secrets_file
    text = given.get_secret_value() if given else ""
    if file is not None:
        text += "\n" + read_secret_file(file, "EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE")
    secrets = parse(text)
    if not secrets:
        raise OperatorError(
            f"EVENTPUSH_INGRESS_VERIFIER={settings.ingress_verifier} has no secret",
            "set EVENTPUSH_INGRESS_SIGNATURE_SECRETS or EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE",
        )
    for number, secret in enumerate(secrets, 1):
        try:
            scheme.check_secret(secret.secret)
        except Exception:
            raise OperatorError(
                f"signature secret {number} is not a valid {settings.ingress_verifier} secret",
                "use base64, with or without the prefix whsec_",
            ) from None
    return tuple(secrets)


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


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _digest(secret: str, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), body, hashlib.sha256)
