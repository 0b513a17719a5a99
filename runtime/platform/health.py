"""The port that operators look at: `/metrics`, `/healthz`, `/readyz`, apart from any port that strangers reach."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from runtime.platform.errors import OperatorError

#: A check gives None when all is well, or one line that says what is not.
Check = Callable[[], Awaitable[str | None]]

_CHECK_TIMEOUT_S = 2.0


async def start(
    port: int, checks: Mapping[str, Check], *, host: str = "127.0.0.1", routes: Iterable[web.RouteDef] = ()
) -> web.AppRunner:
    """Serve `/metrics`, `/healthz` and `/readyz`, and these further routes; pass the result to `stop`.

    `/healthz` says that the process runs its loop; `/readyz` is 200 when every check gives None within 2 s, else 503
    with what each said. Raise `OperatorError` when the port cannot be used.
    """
    app = web.Application()
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz(checks))
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise OperatorError(
            f"the metrics port {host}:{port} cannot be used ({error.strerror or error})",
            "stop what uses it or choose another (docs/settings.md lists the ports)",
        ) from None
    return runner


async def stop(runner: web.AppRunner) -> None:
    """Close the port."""
    await runner.cleanup()


async def failures(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run all checks concurrently; return the message of each failing one, by its name."""
    said = await asyncio.gather(*(_run(check) for check in checks.values()))
    return {name: what for name, what in zip(checks, said, strict=True) if what is not None}


async def _run(check: Check) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return f"no answer within {_CHECK_TIMEOUT_S:g} s"
    except Exception as error:  # a check that fails in any way is a failed check
        return f"{type(error).__name__}: {error}"


async def _healthz(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _readyz(checks: Mapping[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def readyz(_request: web.Request) -> web.Response:
        failed = await failures(checks)
        status = 503 if failed else 200
        return web.json_response({"status": "unavailable" if failed else "ready", "failed": failed}, status=status)

    return readyz


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=generate_latest(_registry()), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _registry() -> CollectorRegistry:
    """Return the process's metrics, or those of all its children if they write to a shared directory."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
