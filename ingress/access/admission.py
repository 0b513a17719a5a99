"""Whether a request may come in: everything that can be known before its body is read, cheapest first."""

from typing import NamedTuple

from aiohttp import hdrs

from ingress.access.addresses import Addresses
from ingress.access.file_watcher import FileWatcher
from ingress.access.rate_limits import RateLimits
from ingress.access.signatures import Signatures
from ingress.access.tokens import Tokens
from ingress.http.connection import Request
from runtime.platform.settings import Settings


class Admission(NamedTuple):
    """Every check on who sends; those that are not asked for cost nothing."""

    addresses: Addresses
    tokens: Tokens
    signatures: Signatures
    rates: RateLimits
    by_address: bool
    by_token: bool
    by_signature: bool

    def admit(self, request: Request) -> None:
        """Raises `RequestError`: 403, 401 or 429."""
        headers = request.message.headers
        if self.by_address:
            sender = self.addresses.sender(request.peer, headers)
            self.addresses.check(sender)
            self.rates.check_address(sender)
        if self.by_token:
            self.rates.check_token(self.tokens.check(headers.getall(hdrs.AUTHORIZATION, [])))
        if self.by_signature:
            self.signatures.check_headers(headers)

    def check_body(self, request: Request, body: bytes) -> None:
        """Raises `RequestError` (401) when the body is not signed as it must be."""
        if self.by_signature:
            self.signatures.check(request.message.headers, body)

    def reloadings(self) -> list[FileWatcher]:
        """What to watch for changes."""
        return [self.tokens.reloading, self.signatures.reloading]


def admission(settings: Settings) -> Admission:
    """The checks that the settings ask for. Raises `OperatorError` when they ask for what cannot be had."""
    addresses, tokens, signatures = Addresses(settings), Tokens(settings), Signatures(settings)
    by_address = addresses.restricted or settings.ingress_rate_per_address > 0
    rates = RateLimits(settings)
    return Admission(addresses, tokens, signatures, rates, by_address, bool(tokens), bool(signatures))
