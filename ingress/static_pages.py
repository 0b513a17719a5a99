"""Pages that do not depend on the request, health and readiness."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any

from ingress.errors import Rejection, unavailable
from ingress.http.connection import Request
from ingress.http.responses import JSON, Response

_UNREACHABLE_AFTER_S = 1.0

Route = Callable[[Request], Coroutine[Any, Any, Response]]


def static_page(body: bytes, content_type: str = JSON) -> dict[str, Route]:
    """Make the methods of a page that is always the same."""
    response = Response(HTTPStatus.OK, body, content_type=content_type)

    async def show(_request: Request) -> Response:
        return response

    return {"GET": show, "HEAD": show}


def readiness_page(
    is_draining: Callable[[], bool], unreachable: Callable[[], Awaitable[str | None]]
) -> dict[str, Route]:
    """Make the methods of `/readyz`: 200 if an event sent now would be stored, otherwise 503.

    `unreachable` returns what keeps Kafka from storing an event, or None.
    """

    async def ask() -> str | None:
        try:
            async with asyncio.timeout(_UNREACHABLE_AFTER_S):
                return await unreachable()
        except TimeoutError:
            return f"Kafka did not answer within {_UNREACHABLE_AFTER_S:g} s"

    async def show(_request: Request) -> Response:
        if is_draining():
            raise unavailable(Rejection.SHUTTING_DOWN, "shutting down; retry")
        problem = await asyncio.create_task(ask())  # asyncio.timeout needs a task
        if problem is not None:
            raise unavailable(Rejection.KAFKA_AWAY, problem)
        return Response(HTTPStatus.OK, b'{"status":"ready"}')

    return {"GET": show, "HEAD": show}
