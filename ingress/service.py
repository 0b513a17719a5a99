"""The ingress as a service: bind the port, then serve with one process or several."""

import socket

from ingress.access.admission import make_admission
from ingress.http.processes import run_many
from ingress.http.server import serve
from ingress.http.tls import Tls
from ingress.publisher import KafkaPublisher
from runtime.adapters import aiokafka
from runtime.platform import health, logging
from runtime.platform.errors import OperatorError
from runtime.platform.event_loop import run_loop
from runtime.platform.settings import Settings


def run(settings: Settings) -> int:
    """Run the ingress until SIGTERM or SIGINT; return the exit status. Raise `OperatorError`."""
    logging.setup(settings, "ingress")
    check_access_settings(settings)
    with listen(settings) as listener:
        if settings.ingress_processes > 1:
            return run_many(settings, listener)
        return run_loop(serve_with_metrics(settings, listener))


def check_access_settings(settings: Settings) -> None:
    """Raise `OperatorError` for unusable tokens, secrets, addresses or TLS files, before any process is started."""
    make_admission(settings)
    Tls(settings)


def listen(settings: Settings) -> socket.socket:
    """Bind the listening socket. Raise `OperatorError` when the address is not available."""
    host, port = settings.ingress_host, settings.ingress_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1_024)
    except OSError as error:
        raise OperatorError(
            f"cannot listen on EVENTPUSH_INGRESS_HOST={host} EVENTPUSH_INGRESS_PORT={port} ({error.strerror})",
            "stop the process that uses the port, or choose another port",
        ) from None


async def serve_with_metrics(settings: Settings, listener: socket.socket) -> int:
    """Serve in this process, with `/metrics` and health on the operators' port; return the exit status."""
    aiokafka.install()
    publisher = KafkaPublisher(settings)
    checks = {"kafka": publisher.unreachable}
    operators = await health.start(settings.ingress_metrics_port, checks, host=settings.metrics_host)
    try:
        return await serve(settings, listener, publisher)
    finally:
        await health.stop(operators)
