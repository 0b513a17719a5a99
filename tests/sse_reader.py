"""A client of the event stream that shares no code with it."""

import http.client
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlencode

TOKEN = "ep_reader-of-tests"


class Message(NamedTuple):
    """A dispatched event: its type, the last event id then, and its data."""

    event: str
    last_id: str
    data: str


class SseReader:
    """A connection; iterating it yields what an EventSource dispatches (HTML standard, section 9.2.6)."""

    def __init__(
        self, port: int, last_id: str = "", *, token: str = TOKEN, receive_bytes: int = 0, **parameters: str
    ) -> None:
        self.last_id = last_id
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        if receive_bytes:  # before the connection is made, so that the window is as small
            self._connection.sock = socket.socket()
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            self._connection.sock.settimeout(60)
            self._connection.sock.connect(("127.0.0.1", port))
        headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": last_id} if last_id else {})
        self._connection.request("GET", f"/events/stream?{urlencode(parameters)}", headers=headers)
        self.response = self._connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.response.close()
        self._connection.close()

    def lines(self) -> Iterator[str]:
        """The lines, without their ends."""
        while line := self.response.readline():
            yield line.decode().rstrip("\r\n")

    def __iter__(self) -> Iterator[Message]:
        event, data = "", list[str]()
        for line in self.lines():
            name, _, text = line.partition(":")
            text = text.removeprefix(" ")
            if name == "id":
                self.last_id = text
            elif name == "data":
                data.append(text)
            elif name == "event":
                event = text
            elif not line and data:
                yield Message(event or "message", self.last_id, "\n".join(data))
            if not line:
                event, data = "", []
