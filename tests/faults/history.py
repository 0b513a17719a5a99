"""What was sent, what was answered, and what was seen: the two histories that the checker compares.

A history is a directory of three files, one JSON object a line:

    sent.jsonl      each attempt to deliver an event: the bytes, when it was sent, when and how it was answered
    seen.jsonl      each record that a `read_committed` reader saw, on every topic
    stored.jsonl    each row of ClickHouse's tables, before any merging away of repeats
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson


class Sent(NamedTuple):
    """One attempt to deliver one event. Times in seconds of one monotonic clock."""

    payload: str
    sent_s: float
    answered_s: float | None  # None: no answer came
    status: int | None


class Seen(NamedTuple):
    """One record of a topic."""

    topic: str
    partition: int
    offset: int
    value: str


class Stored(NamedTuple):
    """One row of a table: its columns, with times in µs since the epoch."""

    table: str
    row: dict[str, Any]


class History(NamedTuple):
    """All that is compared."""

    sent: list[Sent]
    seen: list[Seen]
    stored: list[Stored]


def save(history: History, directory: Path) -> None:
    """Write the three files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, items in history._asdict().items():
        (directory / f"{name}.jsonl").write_bytes(b"".join(_lines(items)))


def load(directory: Path) -> History:
    """Read them back."""
    return History(
        [Sent(**fields) for fields in _objects(directory / "sent.jsonl")],
        [Seen(**fields) for fields in _objects(directory / "seen.jsonl")],
        [Stored(**fields) for fields in _objects(directory / "stored.jsonl")],
    )


def _lines(items: Iterable[Any]) -> Iterator[bytes]:
    for item in items:
        yield orjson.dumps(item._asdict(), option=orjson.OPT_APPEND_NEWLINE)


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as lines:
        yield from map(orjson.loads, lines)
