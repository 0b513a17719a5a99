"""The ingress as a service: takes the port, then serves with one process or with several."""

import socket

from ingress.access.admission import admission
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
    """Runs the ingress until SIGTERM or SIGINT; gives the exit status. Raises `OperatorError`."""
    logging.setup(settings, "ingress")
    admission(settings), Tls(settings)  # what a person must mend is said before anything starts
    with listen(settings) as listener:
        if settings.ingress_processes > 1:
            return run_many(settings, listener)
        return run_loop(serve_with_operators(settings, listener))


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises `OperatorError` when the address cannot be had."""
    host, port = settings.ingress_host, settings.ingress_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1_024)
    except OSError as error:
        raise OperatorError(
            f"EVENTPUSH_INGRESS_HOST={host} EVENTPUSH_INGRESS_PORT={port} cannot be listened on ({error.strerror})",
            "stop what uses the port, or choose another",
        ) from None


async def serve_with_operators(settings: Settings, listener: socket.socket) -> int:
    """Serves, and shows `/metrics` and health on the port for operators."""
    aiokafka.install()
    publisher = KafkaPublisher(settings)
    checks = {"kafka": publisher.unreachable}
    operators = await health.start(settings.ingress_metrics_port, checks, host=settings.metrics_host)
    try:
        return await serve(settings, listener, publisher)
    finally:
        await health.stop(operators)
