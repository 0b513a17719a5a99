"""Post batches of events to the ingress until each event is accepted or refused."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import aiohttp
import msgspec

from eventpush.backfill.sources import Item
from runtime.platform.backoff import Backoff
from runtime.platform.errors import OperatorError

_BACKOFF_MIN_S, _BACKOFF_MAX_S = 0.2, 10.0
_TIMEOUT_S = 30.0
_REFUSES_EVENTS = {400, 413, 422}  # of a request with several events, perhaps only one of them
_RETRYABLE = {408, 429}
_UNAUTHORIZED = 401

Sign = Callable[[bytes], dict[str, str]]  # a request's body → the headers that sign it


class Refused(NamedTuple):
    """An event that the ingress refuses for good."""

    item: Item
    status: int
    message: str


class _Answer(NamedTuple):
    status: int
    message: str


class IngressClient:
    """Posts to one ingress; a request that gets no answer is repeated, which is harmless."""

    def __init__(self, session: aiohttp.ClientSession, url: str, patience_s: float, sign: Sign | None) -> None:
        self._session = session
        self._url = url
        self._patience_s = patience_s
        self._sign = sign

    async def send(self, items: Sequence[Item]) -> list[Refused]:
        """Return once every event is accepted or refused; raise `OperatorError` if the ingress refuses the sender."""
        answer = await self._answer(b"[%b]" % b",".join(i.event for i in items) if len(items) > 1 else items[0].event)
        if answer.status == 200:
            return []
        if answer.status not in _REFUSES_EVENTS:
            raise OperatorError(
                f"{self._url} answers {answer.status} ({answer.message})",
                f"{self._remedy(answer.status)}, and run the command again: it goes on where it stopped",
            )
        if len(items) == 1:
            return [Refused(items[0], answer.status, answer.message)]
        middle = len(items) // 2
        return [*await self.send(items[:middle]), *await self.send(items[middle:])]

    def _remedy(self, status: int) -> str:
        if status != _UNAUTHORIZED or self._sign:
            return "correct --url, --token-file or the signature secret"
        return (
            "name the sender's token with --token-file or, if the ingress asks for a signature, set"
            " EVENTPUSH_INGRESS_VERIFIER as there, and EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE"
        )

    async def _answer(self, body: bytes) -> _Answer:
        backoff = Backoff(_BACKOFF_MIN_S, _BACKOFF_MAX_S, 0.2)
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                headers = self._sign(body) if self._sign else {}  # again for each attempt: some name the time
            except UnicodeDecodeError:
                return _Answer(400, "not UTF-8, so it cannot be signed")
            try:
                async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                    answer = _Answer(response.status, _message(await response.read()))
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                answer = _Answer(503, str(error) or type(error).__name__)
            if answer.status < 500 and answer.status not in _RETRYABLE:
                return answer
            if time.monotonic() > deadline_s:
                raise OperatorError(
                    f"{self._url} has not accepted an event for {self._patience_s:g} s ({answer.message})",
                    "see that the ingress is ready, and run the command again: it goes on where it stopped",
                )
            await asyncio.sleep(backoff.next_s())


def session(headers: dict[str, str]) -> aiohttp.ClientSession:
    """Open an HTTP session with these headers."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    return aiohttp.ClientSession(timeout=timeout, headers={"Content-Type": "application/json", **headers})


def batches(items: Iterator[Item], most_events: int, most_bytes: int) -> Iterator[list[Item]]:
    """Group events into requests of at most so many events and bytes; an event above that goes alone."""
    batch: list[Item] = []
    size_bytes = 0
    for item in items:
        if batch and (len(batch) == most_events or size_bytes + len(item.event) > most_bytes):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += len(item.event) + 1
    if batch:
        yield batch


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, object])["message"])
    except (msgspec.MsgspecError, KeyError):
        return body[:200].decode("utf-8", "replace") or "no message"
