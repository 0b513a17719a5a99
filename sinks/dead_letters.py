"""Publish rows that ClickHouse refuses as dead letters, in one Kafka transaction with the offset behind them.

So a dead letter exists exactly when its batch is committed, whatever fails in between. The transactional id belongs to
the partition: starting its producer fences the previous owner and waits for a transaction that is being committed.
"""

import asyncio
import base64
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import aiokafka
import msgspec
from aiokafka.structs import TopicPartition
from faust.types import TP

from runtime.adapters.aiokafka import compression_type
from runtime.kafka.connection import connection
from runtime.platform.settings import Settings
from schemas import times, topics
from schemas.dead_letter import DeadLetter, Violation
from schemas.event import RawPosition
from schemas.identity import uuid_text
from schemas.json_text import fields_of
from schemas.rules import Reason
from sinks.bisection import Refusal

STAGE = "sink"


class DeadLetterPublisher:
    """The dead letters of one partition of the sink's input."""

    def __init__(self, settings: Settings, tp: TP) -> None:
        self._settings = settings
        self._tp = tp
        self._producer: aiokafka.AIOKafkaProducer | None = None

    async def fence_previous_owner(self) -> None:
        """Start the producer: no earlier owner of the partition can publish or commit in a transaction any more."""
        if self._producer is None:
            settings = self._settings
            producer = aiokafka.AIOKafkaProducer(
                **connection(settings),
                transactional_id=f"{settings.sink_app_id}-{self._tp.topic}-{self._tp.partition}",
                transaction_timeout_ms=settings.transaction_timeout_s * 1000,
                acks="all",
                compression_type=compression_type(settings.streams_compression),
            )
            await producer.start()
            self._producer = producer

    async def publish(self, refusals: Sequence[Refusal], next_offset: int) -> None:
        """Publish the refused records and commit `next_offset` atomically; call `fence_previous_owner` first."""
        assert self._producer is not None  # noqa: S101 - narrows the type; see the docstring
        async with self._producer.transaction():
            sent = [
                await self._producer.send(
                    topics.DEAD_LETTER, value, key=refusal.record.key, partition=self._tp.partition
                )
                for refusal in refusals
                for value in [msgspec.json.encode(dead_letter(self._tp, refusal))]
            ]
            await asyncio.gather(*sent)
            await self._producer.send_offsets_to_transaction(
                {TopicPartition(self._tp.topic, self._tp.partition): (next_offset, "")}, self._settings.sink_app_id
            )

    async def close(self) -> None:
        """Close the producer."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None


def dead_letter(tp: TP, refusal: Refusal) -> DeadLetter:
    """Return the dead letter of a refused record, with the record's value and position."""
    record, value = refusal.record, refusal.record.value or b""
    known = _known(value)
    payload, encoding = _text(value)
    return DeadLetter(
        dead_letter_id=_id(tp, record.offset),
        stage=STAGE,
        reasons=[Violation(Reason.REFUSED_BY_CLICKHOUSE, "", refusal.why, "a row of the table")],
        event=known.get("event"),
        imei=known.get("imei"),
        received_at=known.get("received_at") or times.rfc3339(record.timestamp * 1000),
        receipt_id=known.get("receipt_id"),
        sender=known.get("sender"),
        payload=payload,
        payload_encoding=encoding,
        conflict_with=None,
        replay_of=None,
        attempt=0,
        raw=RawPosition(tp.topic, tp.partition, record.offset),
    )


def _id(tp: TP, offset: int) -> str:
    return uuid_text(blake2b(f"{STAGE}\0{tp.topic}\0{tp.partition}\0{offset}".encode(), digest_size=16).digest())


def _known(value: bytes) -> dict[str, Any]:
    """Return the record's text fields, or none if it cannot be decoded or has no valid time of receipt."""
    try:
        fields = fields_of(value)
        texts = {name: text for name, text in fields.items() if isinstance(text, str)}
        times.parse(texts.get("received_at", ""))
    except ValueError:
        return {}
    return texts


def _text(value: bytes) -> tuple[str, str]:
    try:
        return value.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), "base64"
