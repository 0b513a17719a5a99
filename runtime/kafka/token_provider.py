"""Access tokens for SASL OAUTHBEARER (KIP-255), from a function that a setting names."""

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import SaslAuthenticationFailed

from runtime.platform.errors import OperatorError

_VARIABLE = "EVENTPUSH_KAFKA_SASL_TOKEN_PROVIDER"


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped to mypy
    """Call the function for each connection: it returns a token that is valid now, cached or new."""

    def __init__(self, name: str) -> None:
        """Find the function of `module:function`; raise `OperatorError` if there is none."""
        self._name = name
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise OperatorError(
                f"{_VARIABLE}={name} cannot be imported ({error})", "install the module, or add it to PYTHONPATH"
            ) from None
        if not callable(function):
            raise OperatorError(f"{_VARIABLE}={name} is not a function", "name a function without arguments")
        self._function: Callable[[], str | Awaitable[str]] = function

    async def token(self) -> str:
        """Return a token. What goes wrong is a failed authentication, which aiokafka retries like any other."""
        try:
            if inspect.iscoroutinefunction(self._function):
                token = await self._function()
            else:
                token = await asyncio.to_thread(self._function)
        except Exception as error:
            raise SaslAuthenticationFailed(
                f"{_VARIABLE}={self._name} failed ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(token, str) or not token:
            raise SaslAuthenticationFailed(f"{_VARIABLE}={self._name} returned no token")
        return token
