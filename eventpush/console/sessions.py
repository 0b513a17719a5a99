"""Who has signed in with the operator's token."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

COOKIE = "eventpush-console"
_LIFETIME_S = 12 * 3600
_SESSIONS_MAX = 100
_ID_BYTES = 32


class Sessions:
    """Sessions of browsers, by an unguessable id. They end after twelve hours and with the process."""

    def __init__(self, token: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = token
        self._clock = clock
        self._expiry_s: OrderedDict[str, float] = OrderedDict()

    @property
    def has_token(self) -> bool:
        """Whether the operator has a token."""
        return self._token is not None

    def is_token(self, offered: str) -> bool:
        """Compare with the operator's token, in constant time; False if there is none."""
        return self._token is not None and secrets.compare_digest(offered.encode(), self._token.encode())

    def sign_in(self, offered: str) -> str | None:
        """Return the id of a new session; None for a wrong token."""
        if not self.is_token(offered):
            return None
        while len(self._expiry_s) >= _SESSIONS_MAX:
            self._expiry_s.popitem(last=False)
        session = secrets.token_urlsafe(_ID_BYTES)
        self._expiry_s[session] = self._clock() + _LIFETIME_S
        return session

    def is_signed_in(self, session: str) -> bool:
        """Return whether the id is that of a session which has not ended."""
        return self._expiry_s.get(session, 0.0) > self._clock()
