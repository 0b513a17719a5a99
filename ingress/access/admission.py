"""Whether a request is admitted: every check on the sender, cheapest first."""

from typing import NamedTuple

from aiohttp import hdrs

from ingress.access.addresses import Addresses
from ingress.access.file_watcher import FileWatcher
from ingress.access.rate_limits import RateLimits
from ingress.access.signatures import Signatures
from ingress.access.tokens import Tokens
from ingress.http.connection import Request
from runtime.platform import metrics
from runtime.platform.settings import Settings


class Admission(NamedTuple):
    """Every check on the sender; those that are switched off cost nothing."""

    addresses: Addresses
    tokens: Tokens
    signatures: Signatures
    rates: RateLimits
    by_address: bool
    by_token: bool
    by_signature: bool

    def admit(self, request: Request) -> str | None:
        """Check all that can be known before the body is read; return the bearer token's name, if one is required.

        Raise `RequestError` (403, 401 or 429).
        """
        headers, name = request.message.headers, None
        if self.by_address:
            address = self.addresses.sender(request.peer, headers)
            self.addresses.check(address)
            self.rates.check_address(address)
        if self.by_token:
            name = self.tokens.check(headers.getall(hdrs.AUTHORIZATION, []))
            metrics.INGRESS_TOKEN_USES.metric.labels(name).inc()
            self.rates.check_token(name)
        if self.by_signature:
            self.signatures.check_headers(headers)
        return name

    def check_body(self, request: Request, body: bytes) -> str | None:
        """Check the body's signature; return its secret's name, if one is required. Raise `RequestError` (401)."""
        return self.signatures.check(request.message.headers, body) if self.by_signature else None

    def watchers(self) -> list[FileWatcher]:
        """Return the watchers of the files that may change."""
        return [self.tokens.watcher, self.signatures.watcher]


def make_admission(settings: Settings) -> Admission:
    """Make the checks that the settings ask for. Raise `OperatorError` for unusable tokens, secrets or addresses."""
    addresses, tokens, signatures = Addresses(settings), Tokens(settings), Signatures(settings)
    by_address = addresses.restricted or settings.ingress_rate_per_address > 0
    rates = RateLimits(settings)
    return Admission(addresses, tokens, signatures, rates, by_address, bool(tokens), bool(signatures))
