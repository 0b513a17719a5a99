"""Profile the stream worker: `python -m bench.stages` prints µs per event by stage and writes docs/profile.md.

Each stage runs alone on batches of the benchmark's events, as the worker would receive them, measured in CPU time of
the process. The rest of the worker (Faust, fetching, the transaction's requests) is the difference to what `make bench`
measures for the whole process.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import tzfpy
from aiokafka.record.memory_records import MemoryRecords
from h3.api.basic_int import latlng_to_cell

from bench import results, workload
from bench.seeding import random_rows
from runtime.adapters.aiokafka import EncodedBatch, encoded_batch
from runtime.consumer.batch import Record
from runtime.consumer.worker import tune_garbage_collector
from runtime.kafka.record_format import Records, batches_of, encode_records
from runtime.platform.settings import load
from schemas import positions, time_columns, topics
from schemas.event import SENT_FIELDS
from schemas.validation import ClockLimits
from streams import batch_processor, decoding, enrichment
from streams.content import content_of, default_content_fields
from streams.event_headers import encode_event_headers
from streams.latest_states import LatestStates
from streams.memory_segment import MemorySegment
from streams.state_restore import encode as encode_rows
from streams.window import DeduplicationWindow, Rows, identity_rows

REPORT_FILE = Path("docs/profile.md")
_BATCH = 1_000  # events that the worker processes at once
_ROUNDS = 20
_CLOCK = ClockLimits.of_seconds(300, 86_400)
_SOURCE = enrichment.Source(topics.RAW, {}, _CLOCK.skew_us)
_CONTENT = content_of(default_content_fields())
_WINDOW = 1_000_000  # identities in the window
_OUTPUT_BYTES = 900_000
_SETTINGS = load({})


class Stage(NamedTuple):
    """A stage and its cost; a `part` is contained in the stage before it."""

    name: str
    us_per_event: float
    part: bool = False


class _Stopwatch:
    """A timer that keeps each stage's minimum cost over several rounds: the least disturbed one."""

    def __init__(self) -> None:
        self.costs: dict[tuple[str, bool], float] = {}

    def run(self, name: str, work: Callable[[], Any], events: int, *, part: bool = False) -> Any:
        began = time.process_time()
        result = work()
        us = (time.process_time() - began) / events * 1e6
        self.costs[name, part] = min(us, self.costs.get((name, part), us))
        return result

    def stages(self) -> list[Stage]:
        return [Stage(name, us, part) for (name, part), us in self.costs.items()]


def measure() -> list[Stage]:
    """Measure all stages on several batches of one partition."""
    watch = _Stopwatch()
    window = _full_window()
    tune_garbage_collector()
    for batch in _wire_batches(_ROUNDS):
        _round(watch, window, batch)
    return watch.stages()


def _round(watch: _Stopwatch, window: DeduplicationWindow, wire: list[bytes]) -> None:
    records: list[Record] = watch.run("records from the wire: checksum, zstd, parse", lambda: _parse(wire), _BATCH)
    count = len(records)

    def run(name: str, work: Callable[[], Any], *, part: bool = False) -> Any:
        return watch.run(name, work, count, part=part)

    values, partitions = [record.value or b"" for record in records], np.zeros(count, np.int64)
    valid, _ = run("decode: valid events as columns", lambda: decoding.decode(records, partitions, _CLOCK))
    run("headers of raw records", lambda: decoding.arrivals(records), part=True)
    sent = run("typed decode of the JSON", lambda: decoding._decoded(values), part=True).sent
    run("two times", lambda: [time_columns.parse(sent[name]) for name in ("device_time", "server_time")], part=True)
    run("coordinates", lambda: positions.parse_column(sent["coordinates"]), part=True)
    run("rules on texts", lambda: _suspects(sent), part=True)
    digests = run("identity: digest", lambda: batch_processor.digests_of(valid))
    numbers = list(map(int, valid.imei))
    rows: Rows = run(
        "identity: rows for the window", lambda: identity_rows(numbers, valid.device_us, digests, _CONTENT(valid))
    )
    run("window: look up", lambda: window.classify(rows))
    event_ids = batch_processor.event_ids_of(digests)
    enriched = run("enrich: cells, zone, local time, registry", lambda: enrichment.enrich(valid, event_ids, _SOURCE))
    latitudes, longitudes = valid.latitude.tolist(), valid.longitude.tolist()
    nines = [9] * len(latitudes)
    run("a cell", lambda: list(map(latlng_to_cell, latitudes, longitudes, nines)), part=True)
    run("the zone", lambda: list(map(tzfpy.get_tz, longitudes, latitudes)), part=True)
    encoded = run("encode", lambda: batch_processor._encoded(enriched))
    headers = run("headers of events", lambda: encode_event_headers(valid.event, enriched, valid.traceparents))
    outputs = run("outputs: records", lambda: _records(valid, encoded, headers))
    built = run("outputs: into batches, twice (all, by type)", lambda: [*_batches(outputs), *_batches(outputs)])
    run("outputs: compression and checksum, twice", lambda: [encoded_batch(batch) for batch in built])
    processor = batch_processor.BatchProcessor(_SOURCE, _CLOCK, _CONTENT)
    batch = batch_processor.RawBatch(batch_processor.PartitionState(0, window, LatestStates()), records)
    (result,) = run("decode to encode as the worker does it, in one", lambda: processor.process([batch]))
    run("changelog record", lambda: encode_rows(result.rows, result.latest_us))
    run("window: remember", lambda: window.add(result.rows, result.latest_us))


def _suspects(sent: dict[str, list[Any]]) -> list[Sequence[int]]:
    return [rule.suspects(sent[field.attribute]) for field in SENT_FIELDS.values() if not field.nullable
            for rule in field.rules]  # fmt: skip


def _records(valid: decoding.ValidEvents, values: list[bytes], headers: tuple[list[bytes], ...]) -> Records:
    return encode_records([record.key for record in valid.records], values, valid.received_us // 1000, *headers)


def _batches(records: Records) -> list[EncodedBatch]:
    batches = [EncodedBatch(batch, _SETTINGS.streams_compression) for batch in batches_of([records], _OUTPUT_BYTES)[0]]
    for batch in batches:
        batch.set_producer(1, 0, 0)
    return batches


def _wire_batches(rounds: int) -> list[list[bytes]]:
    """Return, for each round, what a fetch returns for one partition."""
    encoded = workload.encode(workload.events(_BATCH * rounds), partitions=1)
    per_round = max(1, len(encoded) // rounds)
    return [[batch.value for batch in encoded[at * per_round : (at + 1) * per_round]] for at in range(rounds)]


def _parse(wire: list[bytes]) -> list[Record]:
    records: list[Record] = []
    for value in wire:
        memory = MemoryRecords(value)
        while memory.has_next():
            batch = memory.next_batch()
            batch.validate_crc()
            records.extend(batch)
    return records


def _full_window() -> DeduplicationWindow:
    window = DeduplicationWindow(86_400 * 1_000_000, lambda _span: MemorySegment())
    random = np.random.default_rng(1)
    now_us = time.time_ns() // 1_000
    for age_h in (20, 14, 8, 2):  # four segments, as a day leaves behind
        window.add(random_rows(random, _WINDOW // 4), now_us - age_h * 3_600_000_000)
    return window


def report(stages: list[Stage]) -> str:
    """Render the profile in Markdown."""
    lines = [_INTRODUCTION.format(machine=results.machine(), versions=results.versions(), window=_WINDOW, batch=_BATCH)]
    lines += ["| stage | µs per event |", "| --- | ---: |"]
    lines += [f"| {'— of it: ' if s.part else ''}{s.name} | {s.us_per_event:.2f} |" for s in stages]
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
# Where a stream worker's time goes

Written by `python -m bench.stages`; do not edit. {machine}; {versions}.

CPU time per event of each stage run alone, the best of several rounds, on batches of {batch:,} events of the benchmark
(10 % repeats, 1 % invalid), with {window:,} identities in the window. "In one" contains the stages from read to
encode, with less work for repeats; the rest of it is counting and bookkeeping.
"""


@click.command()
def main() -> None:
    """Measure the stages, print them, write docs/profile.md."""
    stages = measure()
    for stage in stages:
        click.echo(f"{'    ' if stage.part else ''}{stage.name:50s} {stage.us_per_event:6.2f}")
    REPORT_FILE.write_text(report(stages))


if __name__ == "__main__":
    main()
