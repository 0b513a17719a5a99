"""Erase a subject from every store, with a certificate; or search every store for it.

    deny list → batches begun without it have passed → compacted topics → ClickHouse → certificate

Each step may run twice, so an erasure that was ended is run again.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from eventpush.clickhouse_client import connected
from eventpush.erasure import topics as kafka
from eventpush.erasure.rows import Rows, declared_tables, names_in
from eventpush.erasure.subject import Subject, read_deny_list
from runtime.kafka.deny_list import pseudonyms
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import times
from schemas.erasure import Erased, Erasure, Kind

#: A mutation rewrites parts of the size of a month, and a search reads whole tables.
_ANSWER_TIMEOUT_S = 6 * 3_600
#: ClickHouse keeps the files of replaced parts for `old_parts_lifetime`, 8 minutes by default.
_REPLACED_PARTS_S = 600


class Store(msgspec.Struct, frozen=True):
    """What an erasure or a search found in one store."""

    store: str
    found: int  # rows or records about the subject; in a certificate: deleted
    gone_by: str | None = None  # when the store itself has removed what it holds; None: nothing is left to it


class Certificate(msgspec.Struct, frozen=True):
    """What was erased, and when retention has removed the rest. It names the subject by digest."""

    certificate: str
    subject: dict[Kind, str]  # digest by kind
    key_id: str
    erased_at: str
    finished_at: str
    stores: list[Store]
    gone_by: str | None  # when nothing is left anywhere, unless the device sends again; None: a topic keeps all
    complete: bool
    problems: list[str]


async def erase(settings: Settings, subject: Subject) -> Certificate:
    """Erase; raise `OperatorError` if Kafka or ClickHouse is unavailable, or the erasure key is not the list's."""
    names, listed = pseudonyms(settings), await read_deny_list(settings)
    erased_at = _erased_at(listed, subject) or times.rfc3339(time.time_ns() // 1000)
    # Connected before the first change, so that a missing ClickHouse is an error at once.
    async with connected(settings, answer_timeout_s=_ANSWER_TIMEOUT_S) as client:
        await kafka.deny(settings, names, subject, erased_at)
        await asyncio.sleep(kafka.SETTLE_S)
        behind = await kafka.passed(settings)
        written = await kafka.forget(settings, subject)
        rows = Rows(client, settings.clickhouse_cluster, subject)
        deleted = await rows.erase()
        left = {table.name: await rows.count(table) for table in declared_tables()}
    now_ms = time.time_ns() // 1_000_000
    parts_gone = _text(now_ms + _REPLACED_PARTS_S * 1000)
    stores = [Store(f"ClickHouse {name}", count, parts_gone) for name, count in deleted.items()]
    gone = {name: kept.gone_ms(now_ms) for name, kept in (await kafka.retentions(settings)).items()}
    stores += [Store(f"Kafka {name}", written.get(name, 0), _text(at)) for name, at in gone.items()]
    problems = [f"{name} has {count} rows that came meanwhile" for name, count in left.items() if count]
    problems += [f"{name} is in a batch that was begun before the erasure" for name in behind]
    if None in gone.values():
        problems.append("a topic has no retention: see the stores without gone_by")
    return Certificate(
        "eventpush erasure",
        {kind: names.of(kind, name) for kind, name in subject.names.items()},
        names.key_id,
        erased_at,
        _text(now_ms) or "",
        stores,
        None if None in gone.values() else _text(max((at for at in gone.values() if at is not None), default=now_ms)),
        not problems,
        problems,
    )


class Restored(msgspec.Struct, frozen=True):
    """What was erased again after a restore."""

    entries: int  # on the deny list now
    put_back: int  # of these, from certificates
    stores: list[Store]


async def erase_restored(settings: Settings, certificates: Sequence[Certificate]) -> Restored:
    """Put the certificates' entries on the deny list where they are missing; erase from ClickHouse who is on it.

    A restored ClickHouse has the rows of whoever was erased after its backup, and a new Kafka has no deny list.
    """
    listed, made_with = await read_deny_list(settings), pseudonyms(settings).key_id
    entries = {
        digest: Erasure(kind, certificate.key_id, certificate.erased_at)
        for certificate in certificates
        for kind, digest in certificate.subject.items()
    }
    missing = {digest: entry for digest, entry in entries.items() if digest not in listed}
    if others := {entry.key_id for entry in missing.values()} - {made_with}:
        raise OperatorError(
            f"a certificate was made with the erasure key {min(others)}, and this one is {made_with}",
            "set EVENTPUSH_ERASURE_KEY, or EVENTPUSH_ERASURE_KEY_FILE, to the key of the certificates",
        )
    await kafka.put(settings, missing)
    listed = await read_deny_list(settings)
    deleted = Counter[str]()
    async with connected(settings, answer_timeout_s=_ANSWER_TIMEOUT_S) as client:
        names = await names_in(client)
        devices = [Subject(imei, None) for imei in names["device"] if listed.has_device(imei)]
        drivers = [Subject(None, driver) for driver in names["driver"] if listed.has_driver(driver)]
        for subject in (*devices, *drivers):
            deleted.update(await Rows(client, settings.clickhouse_cluster, subject).erase())
    stores = [Store(f"ClickHouse {name}", count) for name, count in sorted(deleted.items())]
    return Restored(len(listed), len(missing), stores)


class Verification(msgspec.Struct, frozen=True):
    """What a search of every store found. `found` is what no retention removes, or what came after the erasure."""

    verified_at: str
    erased_at: str | None  # None: not on the deny list
    stores: list[Store]
    waiting: list[Store]  # what retention has yet to remove
    found: int


async def verify(settings: Settings, subject: Subject) -> Verification:
    """Search every table, declared or not, and every topic from its beginning; raise `OperatorError` as `erase`."""
    erased_at = _erased_at(await read_deny_list(settings), subject)
    since_ms = times.parse(erased_at) // 1000 + int(kafka.SETTLE_S * 1000) if erased_at else None
    async with connected(settings, answer_timeout_s=_ANSWER_TIMEOUT_S) as client:
        rows = Rows(client, settings.clickhouse_cluster, subject)
        counts = {table.name: await rows.count(table) for table in declared_tables()}
        for name, count in (await rows.mentions()).items():
            counts[name] = max(count, counts.get(name, 0))
    stores = [Store(f"ClickHouse {name}", count) for name, count in sorted(counts.items())]
    waiting, now_ms = list[Store](), time.time_ns() // 1_000_000
    for name, retention in (await kafka.retentions(settings)).items():
        traces = await kafka.search(settings, name, retention, subject, since_ms)
        old = traces.records - traces.current
        gone_ms = retention.gone_ms(traces.last_ms)
        overdue = old if gone_ms is None or gone_ms < now_ms else 0
        stores.append(Store(f"Kafka {name}", traces.current + overdue))
        if old > overdue:
            waiting.append(Store(f"Kafka {name}", old, _text(gone_ms)))
    return Verification(_text(now_ms) or "", erased_at, stores, waiting, sum(store.found for store in stores))


def _erased_at(listed: Erased, subject: Subject) -> str | None:
    """Return since when all of the subject is on the deny list; None if it is not."""
    entries = [listed.entry(kind, name) for kind, name in subject.names.items()]
    moments = [entry.erased_at for entry in entries if entry is not None]
    return max(moments) if len(moments) == len(entries) else None


def _text(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else times.rfc3339(moment_ms * 1000)
