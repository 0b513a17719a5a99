"""A proxy in front of the event stream, as docs/subscribers.md has it, that can break its connections."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.sse_reader import TOKEN

_FORWARDED = ("Host", "Accept", "Origin", "Sec-Fetch-Site", "Last-Event-ID")
_CHUNK_BYTES = 65_536


class StreamProxy(ThreadingHTTPServer):
    """Serves a page, and adds the token to what the page asks of the event stream."""

    def __init__(self, stream_port: int, page: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stream_port, self.page = stream_port, page.encode()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self.resumed_at: list[str] = []  # the Last-Event-ID of each request that has one
        self.unanswered = 0  # requests while the event stream was away
        self._sockets = set[socket.socket]()
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Break the connections that stand, on both sides."""
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def cuttable(self, *connections: socket.socket) -> Iterator[None]:
        """Let `cut` break these, until the end of the block."""
        with self._lock:
            self._sockets.update(connections)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.difference_update(connections)


class _Handler(BaseHTTPRequestHandler):
    server: StreamProxy

    def do_GET(self) -> None:
        if self.path.startswith("/events/stream"):
            self._forward()
        elif self.path == "/":
            self._answer(200, "text/html; charset=utf-8")
            self.wfile.write(self.server.page)
        else:
            self._answer(204, "text/plain")

    def _forward(self) -> None:
        if last_id := self.headers.get("Last-Event-ID"):
            self.server.resumed_at.append(last_id)
        headers = {name: self.headers[name] for name in _FORWARDED if name in self.headers}
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.stream_port, timeout=60)
        try:
            upstream.request("GET", self.path, headers=headers | {"Authorization": f"Bearer {TOKEN}"})
            with self.server.cuttable(self.connection, upstream.sock), upstream.getresponse() as answer:
                if answer.status < 500:
                    self._answer(answer.status, answer.headers["Content-Type"])
                    while chunk := answer.read1(_CHUNK_BYTES):
                        self.wfile.write(chunk)
                else:
                    self.server.unanswered += 1
        except ConnectionRefusedError:
            self.server.unanswered += 1
        except (OSError, http.client.HTTPException):
            pass  # one of the two has gone, and the other is closed
        finally:
            upstream.close()

    def _answer(self, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing."""


@contextmanager
def proxy_of(stream_port: int, page: str) -> Iterator[StreamProxy]:
    """Run a proxy in threads of its own."""
    with StreamProxy(stream_port, page) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            proxy.cut()
            thread.join()
