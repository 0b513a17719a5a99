"""Send files in order, at a bounded rate, from where each of them stands."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from eventpush.backfill.progress import ProgressFile
from eventpush.backfill.sending import IngressClient, Sign, batches, session
from eventpush.backfill.sources import CsvMapping, Source

_REQUEST_MAX_EVENTS = 100
_REQUEST_MAX_BYTES = 512 * 1024  # half of what an ingress accepts by default
_REQUESTS_PER_S = 5  # at most, where the rate is low


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send where; `rate` in events per second."""

    files: Sequence[Path]
    url: str
    headers: dict[str, str]
    sign: Sign | None = None
    rate: float
    mapping: CsvMapping
    directory: Path  # of the progress
    restart: bool
    patience_s: float


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a file's events, over all runs; `sent` are those of this run."""

    path: str
    accepted: int
    refused: int
    sent: int
    refused_file: str | None


OnProgress = Callable[[int], None]  # bytes read of the files


async def run(plan: Plan, on_progress: OnProgress) -> list[FileReport]:
    """Send all files; raise `OperatorError` for what has to be corrected first. It may be run again at any time."""
    pace = _Pace(plan.rate)
    reports, before_bytes = [], 0
    async with session(plan.headers) as http:
        client = IngressClient(http, plan.url, plan.patience_s, plan.sign)
        for path in plan.files:
            source = Source(path, plan.mapping)
            try:
                kept = ProgressFile(plan.directory, path, plan.url, plan.mapping)
                if plan.restart:
                    kept.forget()

                def of_all(source: Source = source, before: int = before_bytes) -> None:
                    on_progress(before + source.position)

                reports.append(await _send_file(client, source, kept, pace, plan, of_all))
            finally:
                source.close()
            before_bytes += source.size_bytes
            on_progress(before_bytes)
    return reports


async def _send_file(
    client: IngressClient,
    source: Source,
    kept: ProgressFile,
    pace: "_Pace",
    plan: Plan,
    on_sent: Callable[[], None],
) -> FileReport:
    progress = kept.read()
    sent = 0
    if not progress.is_complete:
        rest = itertools.islice(source, progress.done, None)
        most = max(1, min(_REQUEST_MAX_EVENTS, int(plan.rate / _REQUESTS_PER_S)))
        for batch in batches(rest, most, _REQUEST_MAX_BYTES):
            await pace.wait(len(batch))
            refused = await client.send(batch)
            for item, status, message in refused:
                kept.refuse(item.number, status, message, item.event)
            progress.done += len(batch)
            progress.accepted += len(batch) - len(refused)
            progress.refused += len(refused)
            kept.write(progress)
            sent += len(batch)
            on_sent()
        progress.is_complete = True
        kept.write(progress)
    return FileReport(
        path=progress.path,
        accepted=progress.accepted,
        refused=progress.refused,
        sent=sent,
        refused_file=str(kept.refused) if progress.refused else None,
    )


class _Pace:
    """Keeps to a rate: pauses before events that would be too early."""

    def __init__(self, rate: float) -> None:
        self._interval_s = 1 / rate
        self._next_s = time.monotonic()

    async def wait(self, events: int) -> None:
        """Wait until this many events may be sent."""
        now_s = time.monotonic()
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)
        self._next_s = max(self._next_s, now_s) + events * self._interval_s
