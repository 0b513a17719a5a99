"""The device registry's history from a CSV file to ClickHouse: reloaded, corrected, compacted, and late events."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from eventpush.device_loader import registry
from runtime.kafka.topic_admin import ensure_topics
from schemas.device import Device
from schemas.topics import DEVICES
from sinks.clickhouse_connection import connect
from sinks.migrator import migrate
from tests import stack
from tests.integration.pipeline_support import eventpush
from tests.integration.sink_support import SinkHarness, ask, execute, until

A, B, C, D, E = (f"35061207519000{number}" for number in range(1, 6))
HEADER = "imei,vehicle,fleet,driver,valid_from,valid_to,delete\n"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[stack.Kafka, stack.ClickHouse]]:
    """A broker and a ClickHouse of this module's own."""
    kafka = stack.Kafka.at(tmp_path_factory.mktemp("kafka"))
    clickhouse = stack.ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    try:
        kafka.start()
        clickhouse.start()
        yield kafka, clickhouse
    finally:
        clickhouse.end_if_running()
        kafka.end_if_running()


@pytest.fixture
async def harness(
    servers: tuple[stack.Kafka, stack.ClickHouse], tmp_path_factory: pytest.TempPathFactory
) -> SinkHarness:
    """Both, with topics and tables."""
    harness = SinkHarness(servers[0].bootstrap, servers[1].url, tmp_path_factory.mktemp("sink"))
    await ensure_topics(harness.settings)
    client = await connect(harness.settings)
    await migrate(client, harness.settings)
    await client.close()
    return harness


def load(harness: SinkHarness, lines: str, *options: str) -> dict[str, Any]:
    """Load lines of a CSV file; what the command says."""
    file = harness.work_dir / "fleet.csv"
    file.write_text(HEADER + lines)
    done = eventpush(harness.environ, "devices", "load", str(file), "--json", *options)
    assert done.returncode == 0, done
    said: dict[str, Any] = json.loads(done.stdout)
    return said


async def history(harness: SinkHarness, imei: str) -> list[tuple[str | None, str | None, str | None]]:
    """Driver, beginning and end of each interval in ClickHouse, by day."""
    rows = await ask(
        harness.clickhouse,
        "SELECT driver, toDate(valid_from) AS begin, toDate(valid_to) AS end FROM telematics.devices_history"
        f" WHERE imei = '{imei}' ORDER BY valid_from NULLS FIRST",
    )
    return [(row["driver"], row["begin"], row["end"]) for row in rows]


async def becomes(harness: SinkHarness, imei: str, *intervals: tuple[str | None, str | None, str | None]) -> None:
    async def equal() -> bool:
        return await history(harness, imei) == list(intervals)

    await until(f"the history {intervals}", equal)


async def store_events(harness: SinkHarness, imei: str, *days: str) -> None:
    """Events as they arrived: the driver of then was unknown."""
    for day in days:
        await execute(
            harness.clickhouse,
            "INSERT INTO telematics.events_store (event_id, event, imei, device_time, received_at, fleet) SELECT"
            f" generateUUIDv4(), 'sos', '{imei}', toDateTime64('{day} 08:00:00', 6, 'UTC'), now64(6), 'then'",
        )


async def drivers(harness: SinkHarness, imei: str) -> dict[str, str | None]:
    """The driver of each event by its day, as of its time; on arrival it was none."""
    rows = await ask(
        harness.clickhouse,
        "SELECT toDate(device_time) AS day, driver, driver_on_arrival AS arrived, fleet_on_arrival AS fleet"
        f" FROM telematics.events_as_of WHERE imei = '{imei}'",
    )
    assert all((row["arrived"], row["fleet"]) == (None, "then") for row in rows)
    return {row["day"]: row["driver"] for row in rows}


TRUTH_AS_OF = (
    "SELECT day, event, category, severity, fleet, vehicle, driver, toInt32(count()) AS n FROM (SELECT *,"
    " toDate(device_time) AS day FROM telematics.events_as_of) GROUP BY ALL ORDER BY ALL"
)


async def expect_exact_rollup(harness: SinkHarness) -> list[dict[str, Any]]:
    found = await ask(
        harness.clickhouse,
        "SELECT day, event, category, severity, fleet, vehicle, driver, toInt32(events) AS n"
        " FROM telematics.events_daily_as_of ORDER BY ALL",
    )
    assert found == await ask(harness.clickhouse, TRUTH_AS_OF)
    return found


async def refresh(harness: SinkHarness) -> None:
    for verb in ("REFRESH", "WAIT"):
        await execute(harness.clickhouse, f"SYSTEM {verb} VIEW telematics.events_daily_as_of_refresh")


async def test_a_file_reloaded_corrected_and_taken_back(harness: SinkHarness) -> None:
    """The same file changes nothing; a correction re-attributes events of the past, also in the rollup; late too."""
    rows = f"{A},MP09,Indore,Rao,2026-05-01,2026-06-01,\n{A},MP09,Indore,Sen,2026-06-01,,\n"
    await store_events(harness, A, "2026-04-30", "2026-05-10", "2026-05-20", "2026-06-01")
    with harness.running():
        assert load(harness, rows) == {"loaded": 1, "unchanged": 0, "removed": 0, "bad_lines": []}
        first = [("Rao", "2026-05-01", "2026-06-01"), ("Sen", "2026-06-01", None)]
        await becomes(harness, A, *first)
        expected = {"2026-04-30": None, "2026-05-10": "Rao", "2026-05-20": "Rao", "2026-06-01": "Sen"}
        assert await drivers(harness, A) == expected
        await refresh(harness)
        before = await expect_exact_rollup(harness)

        records = await registry(harness.settings)
        assert load(harness, rows) == {"loaded": 1, "unchanged": 1, "removed": 0, "bad_lines": []}
        assert await registry(harness.settings) == records

        load(harness, f"{A},MP09,Indore,Das,2026-05-15,2026-06-01,\n")
        await becomes(harness, A, ("Rao", "2026-05-01", "2026-05-15"), ("Das", "2026-05-15", "2026-06-01"), first[1])
        assert await drivers(harness, A) == expected | {"2026-05-20": "Das"}
        corrected = await expect_exact_rollup(harness)
        assert corrected != before
        await refresh(harness)
        assert await expect_exact_rollup(harness) == corrected

        await store_events(harness, A, "2026-05-16")
        assert (await drivers(harness, A))["2026-05-16"] == "Das"
        load(harness, rows)
        await becomes(harness, A, *first)
        await expect_exact_rollup(harness)


async def test_a_file_without_times_keeps_the_past(harness: SinkHarness) -> None:
    """A new driver from now on, a removed device and its return: the past stays; `forget` removes it all."""
    with harness.running():
        load(harness, f"{B},X,,Rao,,,\n{C},Y,,Roy,,,\n")
        await becomes(harness, B, ("Rao", None, None))
        (today,) = await ask(harness.clickhouse, "SELECT toDate(now('UTC')) AS day")
        load(harness, f"{B},X,,Sen,,,\n")
        await becomes(harness, B, ("Rao", None, today["day"]), ("Sen", today["day"], None))
        assert load(harness, f"{B},X,,Sen,,,\n", "--replace")["unchanged"] == 1
        await becomes(harness, C, ("Roy", None, today["day"]))
        load(harness, f"{B},,,,,,forget\n")
        await becomes(harness, B)
        load(harness, f"{C},,,,,,forget\n{A},,,,,,forget\n")
        await becomes(harness, A)


async def test_who_never_sent_anything(harness: SinkHarness) -> None:
    """Registered now and without an event: not those who sent one, were removed, or are still to come."""
    await store_events(harness, C, "2026-05-10")
    with harness.running():
        load(
            harness,
            f"{B},X,North,Rao,,,\n{C},Y,,Roy,,,\n{D},Z,,Das,2100-01-01,,\n{E},W,,,2026-01-01,2026-02-01,\n",
        )
        await becomes(harness, D, ("Das", "2100-01-01", None))
        never = await ask(
            harness.clickhouse, "SELECT imei, vehicle, fleet, driver FROM telematics.registered_never_seen"
        )
        assert never == [{"imei": B, "vehicle": "X", "fleet": "North", "driver": "Rao"}]
        load(harness, "".join(f"{imei},,,,,,forget\n" for imei in (B, C, D, E)))


async def test_compaction_loses_no_history(harness: SinkHarness) -> None:
    """The topic keeps one record of the device, with its whole history; an emptied ClickHouse gets it back."""
    load(harness, f"{A},,,Rao,2026-01-01,,\n")
    for month in range(2, 7):
        load(harness, f"{A},,,Driver {month},2026-0{month}-01,,\n")
    before = (await registry(harness.settings))[A]
    await compact(harness)
    assert (await registry(harness.settings))[A] == before
    await execute(harness.clickhouse, "TRUNCATE TABLE telematics.devices_store")
    with harness.running():
        await becomes(
            harness, A, ("Rao", "2026-01-01", "2026-02-01"),
            *((f"Driver {month}", f"2026-0{month}-01", f"2026-0{month + 1}-01") for month in range(2, 6)),
            ("Driver 6", "2026-06-01", None),
        )  # fmt: skip


async def compact(harness: SinkHarness) -> None:
    """Make the broker compact the registry's topic, and wait until one record of the device is left."""
    admin = AIOKafkaAdminClient(bootstrap_servers=harness.kafka)
    await admin.start()
    quickly = {"min.cleanable.dirty.ratio": "0.001", "segment.ms": "100", "min.compaction.lag.ms": "0"}
    await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, DEVICES, {"cleanup.policy": "compact"} | quickly)]
    )
    await admin.close()

    async def compacted() -> bool:
        # Only closed segments are compacted: another record in each partition closes them.
        async with AIOKafkaProducer(bootstrap_servers=harness.kafka) as producer:
            for partition in range(2):
                await producer.send_and_wait(DEVICES, b'{"vehicle":"other"}', b"350612075199999", partition=partition)
        return await records_of(harness, A) == 1

    await until("compaction", compacted)


async def records_of(harness: SinkHarness, imei: str) -> int:
    """How many records of a device are on the topic."""
    found = 0
    async with AIOKafkaConsumer(bootstrap_servers=harness.kafka, isolation_level="read_committed") as consumer:
        partitions = [TopicPartition(DEVICES, number) for number in range(2)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += sum(record.key == imei.encode() for record in records)
    return found


async def test_overlapping_periods_are_refused(harness: SinkHarness) -> None:
    """Nothing is loaded, and the message names the line, its value, and the line that it overlaps."""
    file = harness.work_dir / "fleet.csv"
    file.write_text(f"{HEADER}{C},,,Rao,2026-05-01,2026-06-02,\n{C},,,Sen,2026-06-01,,\n")
    done: subprocess.CompletedProcess[str] = eventpush(harness.environ, "devices", "load", str(file))
    assert done.returncode == 1
    assert "line 3: valid_from 2026-06-01T00:00:00.000000Z of imei 350612075190003 overlaps line 2" in done.stderr
    assert C not in await registry(harness.settings)


async def test_a_load_of_two_at_once_is_one_of_them(harness: SinkHarness) -> None:
    """The one that began earlier is fenced: it says so, and changes nothing."""
    async with AIOKafkaProducer(bootstrap_servers=harness.kafka, transactional_id="eventpush-devices-load") as earlier:
        await earlier.begin_transaction()
        await earlier.send_and_wait(DEVICES, b'{"vehicle":"lost"}', C.encode())
        load(harness, f"{C},won,,,,,\n")
        with pytest.raises(Exception, match=r"(?i)fence|epoch"):
            await earlier.commit_transaction()
    assert (await registry(harness.settings))[C] == Device("won")
