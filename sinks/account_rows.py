"""Copy the stream stage's summaries into ClickHouse: a row each, in `telematics.account_store`.

The rows say how far the copy is, and a summary's row is the same whoever writes it, and however often.
"""

from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.kafka.connection import consumer_connection
from runtime.platform.settings import Settings
from schemas import account, topics
from schemas.tables import DATABASE

log = structlog.get_logger()

STORE = f"{DATABASE}.account_store"
#: How rows are inserted: as JSON, with the account's times.
AS_JSON: dict[str, Any] = {"fmt": "JSONEachRow", "settings": {"date_time_input_format": "best_effort"}}
_RECORDS_MAX = 5_000
_FETCH_WAIT_MS = 200


class AccountRows:
    """The copy, by one consumer of all partitions of the account topic."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = [TopicPartition(topics.ACCOUNT, number) for number in range(settings.topic_partitions)]
        self._consumer = AIOKafkaConsumer(
            **consumer_connection(settings),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_poll_records=_RECORDS_MAX,
        )

    async def start(self, client: AsyncClient) -> None:
        """Begin after what ClickHouse has."""
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        found = await client.query(f"SELECT partition, max(account_offset) FROM {STORE} GROUP BY partition")  # noqa: S608
        stored = {int(partition): int(offset) for partition, offset in found.result_rows}
        ends = await self._consumer.end_offsets(self._partitions)
        for tp in self._partitions:
            following = stored.get(tp.partition, -1) + 1
            self._consumer.seek(tp, following if following <= ends[tp] else 0)  # beyond its end: a topic made again

    async def copy(self, client: AsyncClient) -> None:
        """Store the summaries that have come since, a bounded number of them; start again after an error."""
        found = await self._consumer.getmany(timeout_ms=_FETCH_WAIT_MS)
        rows = [row for records in found.values() for record in records if (row := _row(record)) is not None]
        if rows:
            await client.raw_insert(STORE, insert_block=b"\n".join(rows), **AS_JSON)

    async def stop(self) -> None:
        """Close the consumer."""
        await self._consumer.stop()


def _row(record: "ConsumerRecord[bytes, bytes]") -> bytes | None:
    """Return a record's row; None for what is no summary."""
    try:
        return as_row(account.decode(record.value or b""), record.offset)
    except msgspec.DecodeError as error:
        log.warning("not a batch summary", topic=record.topic, partition=record.partition, offset=record.offset,
                    error=str(error))  # fmt: skip
        return None


def as_row(summary: account.BatchAccount, account_offset: int) -> bytes:
    """Return a row as JSON, given the offset of the summary on its topic."""
    counts = [msgspec.structs.asdict(count) for count in summary.counts]
    return msgspec.json.encode(msgspec.structs.asdict(summary) | {"counts": counts, "account_offset": account_offset})
