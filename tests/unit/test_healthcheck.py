"""The image's health check: healthy means that one of the URLs answers with success."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from eventpush.healthcheck import any_ready

_NOWHERE = "http://127.0.0.1:1/readyz"


class _Probe(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """A service that is ready at /readyz and at no other path."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Probe) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_one_ready_service_suffices(service: str) -> None:
    """Ports where nothing listens do not count against the service that runs."""
    assert any_ready([_NOWHERE, f"{service}/readyz"])


def test_a_503_is_not_ready(service: str) -> None:
    """A service that answers and is not ready is unhealthy, as is silence."""
    assert not any_ready([_NOWHERE, f"{service}/other"])
    assert not any_ready([])


def test_the_exit_status_is_what_docker_reads(service: str) -> None:
    """0 for healthy, 1 for unhealthy."""
    for url, status in ((f"{service}/readyz", 0), (_NOWHERE, 1)):
        command = [sys.executable, "-m", "eventpush.healthcheck", url]
        assert subprocess.run(command, timeout=30, check=False).returncode == status
