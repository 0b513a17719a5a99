"""Signatures of requests, over the body's bytes as they were sent (before any decompression).

`standard-webhooks`: the scheme of standardwebhooks.com, through its own package: `webhook-id`, `webhook-timestamp`
(within five minutes) and `webhook-signature`. `hmac-sha256`: HMAC-SHA256 of the body alone, in a header of choice, hex
or base64; it has no time, so a repeat of the same bytes verifies too, and is dropped as a duplicate later.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Protocol

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from ingress.access.file_watcher import FileWatcher, read_secret_file
from ingress.errors import Reason, RequestError
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings


class Scheme(Protocol):
    """A way of signing."""

    headers: tuple[str, ...]

    def good(self, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether the signature is that of `secret` over `body`."""

    def check_secret(self, secret: str) -> None:
        """Raises ValueError when the secret cannot be one."""


class StandardWebhooks:
    """https://www.standardwebhooks.com."""

    headers: tuple[str, ...] = ("webhook-id", "webhook-timestamp", "webhook-signature")

    def good(self, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        """See `Scheme`."""
        try:
            Webhook(secret).verify(body, {name: headers[name] for name in self.headers}, json_parse=False)
        except (WebhookVerificationError, ValueError):  # ValueError: base64, UTF-8 or commas that are not
            return False
        return True

    def check_secret(self, secret: str) -> None:
        """See `Scheme`: base64, with or without `whsec_`."""
        Webhook(secret)


class HmacSha256:
    """HMAC-SHA256 of the body (RFC 2104) in one header."""

    def __init__(self, header: str, encoding: str) -> None:
        self.headers: tuple[str, ...] = (header,)
        self._decode: Callable[[str], bytes] = bytes.fromhex if encoding == "hex" else _from_base64

    def good(self, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
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
        self._secrets: tuple[str, ...] = ()
        file = settings.ingress_signature_secrets_file
        self.reloading = FileWatcher([file] if file else [], self._load)

    def __bool__(self) -> bool:
        return self._scheme is not None

    def _load(self) -> None:
        if self._scheme is None:
            return
        given, file = self._settings.ingress_signature_secrets, self._settings.ingress_signature_secrets_file
        text = given.get_secret_value() if given else ""
        if file is not None:
            text += "\n" + read_secret_file(file, "EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE")
        secrets = tuple(part.strip() for part in re.split(r"[\n,]", text) if part.strip())
        if not secrets:
            raise OperatorError(
                f"EVENTPUSH_INGRESS_VERIFIER={self._settings.ingress_verifier} has no secret",
                "set EVENTPUSH_INGRESS_SIGNATURE_SECRETS or EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE",
            )
        for number, secret in enumerate(secrets, 1):
            try:
                self._scheme.check_secret(secret)
            except Exception:
                raise OperatorError(
                    f"signature secret {number} is none for {self._settings.ingress_verifier}",
                    "a secret of Standard Webhooks is base64, with or without whsec_",
                ) from None
        self._secrets = secrets

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Before the body is read: raises `RequestError` (401) when a header is missing."""
        if self._scheme is not None:
            missing = [name for name in self._scheme.headers if not headers.get(name)]
            if missing:
                raise _bad_signature(f"the request is not signed: {', '.join(missing)} missing")

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raises `RequestError` (401) when the signature is not that of one of the secrets over these bytes."""
        if self._scheme is None:
            return
        if not any([self._scheme.good(secret, headers, body) for secret in self._secrets]):  # noqa: C419 - all of them
            scheme = self._settings.ingress_verifier
            raise _bad_signature(f"the signature ({scheme}) is not that of these bytes, or too old")


def _scheme(settings: Settings) -> Scheme | None:
    match settings.ingress_verifier:
        case "standard-webhooks":
            return StandardWebhooks()
        case "hmac-sha256":
            return HmacSha256(settings.ingress_signature_header, settings.ingress_signature_encoding)
        case "none":
            return None


def _bad_signature(message: str) -> RequestError:
    return RequestError(Reason.BAD_SIGNATURE, message, {"WWW-Authenticate": 'Signature realm="eventpush"'})


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
