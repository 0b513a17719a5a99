"""More partitions for every topic: close the gate, let the stages finish and leave, move, open the gate.

    gate closed ──> finished, left ──> journal ──> partitions added ──> moved ──> old records deleted ──> gate open

Each step may run twice, and what the next one is, Kafka says (`eventpush.growth.steps`). So a growth that was ended at
any point is run again. A second one fences the first: both write by one transactional id.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.errors import (
    CommitFailedError,
    GroupCoordinatorNotAvailableError,
    InvalidPartitionsError,
    KafkaError,
    PolicyViolationError,
    ProducerFenced,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from eventpush.growth.moving import Kind, kinds, move
from eventpush.growth.routing import Growth
from eventpush.growth.steps import Journal, Step, decide, entry, finished_entry, journal_of
from runtime.adapters import aiokafka
from runtime.adapters.aiokafka_admin import group_members
from runtime.adapters.aiokafka_transactions import high_watermarks
from runtime.kafka.connection import connection, consumer_connection
from runtime.kafka.partition_count import KNOWN_FOR_S
from runtime.kafka.raw_gate import KEY, Gate
from runtime.kafka.topic_admin import (
    admin,
    alter,
    configuration,
    existing_topics,
    gate,
    partition_counts,
    until,
    wanted_topics,
)
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.topics import LATEST_TOPIC, RAW, RAW_TOPIC
from sinks.completeness import GATES
from sinks.finished_offsets import FinishedOffsets

_POLL_S = 0.5
_PUBLISH_TIMEOUT_MAX_S = 1.9  # of EVENTPUSH_INGRESS_PUBLISH_TIMEOUT_MS
#: After the partitions are added, until no ingress can write by the old number: it confirms the number, then gives up
#: on a write after its timeout, and the producer is closed after as long again.
_OLD_NUMBER_S = KNOWN_FOR_S + 2 * _PUBLISH_TIMEOUT_MAX_S + 4.2
_BATCH_BYTES = 900_000
_TRANSACTION_MS = 60_000
#: For as long as old records of a compacted topic are deleted, which brokers do for no other policy.
_DELETABLE = {"cleanup.policy": "compact,delete", "retention.ms": "-1"}

Report = Callable[[str], None]


class Result(msgspec.Struct, frozen=True):
    """What a growth did. A run that continued an earlier one counts only its own."""

    before: int
    after: int
    done: bool  # False: a dry run, or there was nothing to do
    topics: int  # that grow
    moved: dict[str, int]  # identities or states, by topic; of a dry run: offsets of the changelogs
    seconds: dict[str, float]  # by step


async def grow(settings: Settings, wanted: int, report: Report, *, dry_run: bool = False) -> Result:
    """Grow to `wanted` partitions, or continue; raise `OperatorError` if that cannot be, or Kafka is unavailable."""
    aiokafka.install()
    async with admin(settings) as client:
        if dry_run:
            return await _Grower(settings, client, wanted, report).plan()
        async with AIOKafkaProducer(
            **connection(settings),
            transactional_id=_own_id(settings),
            transaction_timeout_ms=_TRANSACTION_MS,
            acks="all",
            compression_type=aiokafka.compression_type(settings.streams_compression),
            max_batch_size=_BATCH_BYTES,
            max_request_size=2 * _BATCH_BYTES,
            linger_ms=0,
        ) as producer:
            try:
                return await _Grower(settings, client, wanted, report).run(producer)
            except ProducerFenced:
                aiokafka.note_end_of_transaction(producer)
                raise OperatorError(
                    "another `topics grow` began meanwhile and goes on with it", "leave it to that"
                ) from None


def _own_id(settings: Settings) -> str:
    """Return the growth's transactional id, which is also its consumer group's."""
    return f"{settings.streams_app_id}-grow"


class _Grower:
    def __init__(self, settings: Settings, client: AIOKafkaAdminClient, wanted: int, report: Report) -> None:
        self._settings = settings
        self._client = client
        self._wanted = wanted
        self._report = report
        self._group = _own_id(settings)
        self._kinds = kinds(settings)
        self._seconds: dict[str, float] = {}
        self._moved: dict[str, int] = {kind.topic: 0 for kind in self._kinds}

    async def plan(self) -> Result:
        """Say what would be done, and change nothing."""
        step, growth, counts = await self._look()
        if step is Step.PREPARE:
            await self._require_possible(growth, counts)
        left: dict[str, int] = {}
        async with self._reader() as consumer:
            for kind in self._kinds:
                tps = [TopicPartition(kind.topic, number) for number in range(counts[kind.topic])]
                begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
                left[kind.topic] = sum(ends[tp] - begins[tp] for tp in tps)
        self._report(f"next step: {step}; {len(counts)} topics, from {growth.before} to {growth.after} partitions")
        for name, offsets in left.items():
            self._report(f"{name}: {offsets} offsets to read")
        for group in self._groups:
            self._report(
                f"group {group}: {await group_members(self._client, group)} members, which leave by themselves"
            )
        return Result(growth.before, growth.after, False, len(counts), left, {})

    async def run(self, producer: AIOKafkaProducer) -> Result:
        """Do what is left to do."""
        step, growth, counts = await self._look()
        if step is Step.NOTHING:
            self._report(f"the topics have {growth.after} partitions already")
            return Result(growth.before, growth.after, False, len(counts), {}, {})
        if step is Step.PREPARE:
            await self._require_possible(growth, counts)
            await self._prepare(producer, growth)
        if step is not Step.OPEN:
            try:
                await self._move(producer)
            except ProducerFenced:
                raise
            except BaseException:
                self._report("not finished: run the same command again; until it has finished, events are refused")
                raise
        await self._timed("opening the gate", self._open())
        self._report(
            f"done: {growth.after} partitions. Set EVENTPUSH_TOPIC_PARTITIONS={growth.after} and start the stream"
            " workers and the sinks; the ingress accepts events again"
        )
        return Result(growth.before, growth.after, True, len(counts), self._moved, self._seconds)

    # --- where it stands ---------------------------------------------------------------------------------------------

    async def _look(self) -> tuple[Step, Growth, Mapping[str, int]]:
        await until(self._are_groups_known, "a consumer group has no coordinator")
        existing = await existing_topics(self._client)
        missing = [name for name in wanted_topics(existing) if name not in existing]
        if missing:
            raise OperatorError(f"Kafka has no topic {', '.join(missing)}", "run `eventpush topics`")
        counts = partition_counts(existing)
        step, growth = decide(self._wanted, counts, await gate(self._client), await self._journal())
        return step, growth, counts

    async def _are_groups_known(self) -> bool:
        """Return whether each group has a coordinator: a new Kafka makes them when one is asked for first."""
        try:
            for group in (self._group, *self._groups):
                await self._client.find_coordinator(group)
        except GroupCoordinatorNotAvailableError:
            return False
        return True

    async def _journal(self) -> Journal | None:
        return journal_of(await self._client.list_consumer_group_offsets(self._group))

    @property
    def _groups(self) -> tuple[str, str]:
        return self._settings.streams_app_id, self._settings.sink_app_id

    async def _require_possible(self, growth: Growth, counts: Mapping[str, int]) -> None:
        """Raise `OperatorError` if the brokers would refuse: before anything is changed."""
        for name in counts:
            await self._add(name, growth.after, validate_only=True)

    async def _add(self, name: str, partitions: int, *, validate_only: bool = False) -> None:
        try:
            await self._client.create_partitions({name: NewPartitions(partitions)}, validate_only=validate_only)
        except KafkaError as error:
            if error.retriable:
                raise
            if isinstance(error, InvalidPartitionsError) and not validate_only:
                return  # it has them: the answer to an earlier request was lost, or another growth was faster
            raise OperatorError(
                f"{name} cannot have {partitions} partitions ({str(error).splitlines()[0]})",
                "nothing was changed; name a number that the brokers allow"
                if validate_only
                else "see the brokers' logs",
            ) from None

    # --- closing the gate --------------------------------------------------------------------------------------------

    async def _prepare(self, producer: AIOKafkaProducer, growth: Growth) -> None:
        """Close the gate, wait until the stages have finished and left, and begin the journal."""
        self._report("events are refused from now on: the ingress answers 503, and senders retry")
        try:
            await self._timed("stages finishing", self._finish(growth))
        except BaseException:  # an interruption too: nothing was moved, so events may come again
            await self._require_alone(producer)
            await self._open()
            self._report("given up before anything was moved: events are accepted again")
            raise
        await self._begin_journal(producer, growth)

    async def _require_alone(self, producer: AIOKafkaProducer) -> None:
        """Raise ProducerFenced if another growth has begun since."""
        async with producer.transaction():
            await producer.send_offsets_to_transaction({TopicPartition(RAW, 0): finished_entry(0)}, self._group)

    async def _finish(self, growth: Growth) -> None:
        tps = [TopicPartition(topic, number) for topic in GATES for number in range(growth.before)]
        async with FinishedOffsets.connected(self._settings, tps) as offsets:
            left = False
            while not left:
                await self._close(Gate.PAUSED)  # which a worker that is started again may still run behind
                await self._wait_until_nothing(lambda: self._unfinished(offsets, growth.before))
                await self._close(Gate.GROWING)
                await self._wait_until_nothing(self._members)
                left = await self._unfinished(offsets, growth.before) is None and await self._fence_streams()

    async def _close(self, value: Gate) -> None:
        await alter(self._client, RAW, {KEY: str(value)})

    async def _open(self) -> None:
        await alter(self._client, RAW, {KEY: configuration(RAW_TOPIC, self._settings)[KEY]})

    async def _unfinished(self, offsets: FinishedOffsets, partitions: int) -> str | None:
        """Return what the stages have yet to finish; None once there is nothing."""
        for topic in GATES:  # each after those that its records come from
            ends = await offsets.ends([TopicPartition(topic, number) for number in range(partitions)])
            if behind := sorted(tp.partition for tp in set(ends) - await offsets.finished(ends)):
                reader = self._settings.streams_app_id if topic == RAW else self._settings.sink_app_id
                numbers = ", ".join(map(str, behind))
                return f"waiting for {reader} to finish {topic}, partitions {numbers}: its workers must run"
        return None

    async def _members(self) -> str | None:
        """Return which stages still have workers; None once there are none."""
        members = {group: await group_members(self._client, group) for group in self._groups}
        running = ", ".join(f"{count} of {group}" for group, count in members.items() if count)
        return f"waiting for workers to leave: {running}; a worker of this version does by itself" if running else None

    async def _fence_streams(self) -> bool:
        """Take the workers' names out of the committed offsets; return False if a worker has joined meanwhile.

        A worker that was frozen finds at its next commit that its partition is not as it left it, and ends.
        """
        group = self._settings.streams_app_id
        found = await self._client.list_consumer_group_offsets(group)
        offsets = {tp: OffsetAndMetadata(at.offset, "") for tp, at in found.items() if tp.topic == RAW}
        if not offsets:
            return True
        async with self._reader(group) as consumer:
            consumer.assign(list(offsets))
            try:
                await consumer.commit(offsets)
            except (CommitFailedError, UnknownMemberIdError):
                return False
        return True

    async def _begin_journal(self, producer: AIOKafkaProducer, growth: Growth) -> None:
        """Note what is to be moved: all that is there once no transaction is open."""
        tps = [TopicPartition(kind.topic, number) for kind in self._kinds for number in range(growth.before)]
        async with self._reader() as consumer:
            consumer.assign(tps)

            async def no_transaction() -> str | None:
                stable, written = await consumer.end_offsets(tps), await high_watermarks(consumer, tps)
                held = sorted({tp.topic for tp in tps if stable[tp] < written[tp]})
                return f"waiting for the end of transactions on {', '.join(held)}" if held else None

            await self._wait_until_nothing(no_transaction)
            begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        async with producer.transaction():
            entries = {tp: entry(growth, begins[tp], ends[tp]) for tp in tps}
            await producer.send_offsets_to_transaction(entries, self._group)

        async def is_visible() -> bool:
            return await self._journal() is not None

        await until(is_visible, f"group {self._group} does not show its offsets")

    # --- moving ------------------------------------------------------------------------------------------------------

    async def _move(self, producer: AIOKafkaProducer) -> None:
        """Do everything that the journal says is left."""
        journal = await self._journal()
        assert journal is not None  # noqa: S101 - it has just been written, or found
        await self._close(Gate.GROWING)
        await self._wait_until_nothing(self._members)
        await self._timed("adding partitions", self._add_partitions(journal.growth))
        added_s = time.monotonic()
        for kind in self._kinds:
            await self._know(producer, kind.topic, journal.growth.after)
            await self._timed(f"moving {kind.topic}", self._move_kind(producer, kind, journal))
        await self._timed("deleting what was moved", self._delete_moved(journal))
        await asyncio.sleep(max(0.0, added_s + _OLD_NUMBER_S - time.monotonic()))
        await self._wait_until_nothing(self._members)
        async with producer.transaction():
            finished = {tp: finished_entry(end) for tp, (_, end) in journal.moves.items()}
            await producer.send_offsets_to_transaction(finished, self._group)

    async def _add_partitions(self, growth: Growth) -> None:
        counts = partition_counts(await existing_topics(self._client))
        for name, count in counts.items():
            if count < growth.after:
                await self._add(name, growth.after)

        async def have_leaders() -> bool:
            existing = await existing_topics(self._client)
            partitions = [partition for name in counts for partition in existing[name]]
            return len(partitions) == growth.after * len(counts) and all(p["leader"] >= 0 for p in partitions)

        await until(have_leaders, "some new partitions have no leader")
        self._report(f"{len(counts)} topics have {growth.after} partitions")

    async def _know(self, producer: AIOKafkaProducer, topic: str, partitions: int) -> None:
        """Wait until the producer knows of the new partitions."""

        async def knows() -> bool:
            await producer.client.set_topics([topic])
            await producer.client.force_metadata_update()
            return len(producer.client.cluster.partitions_for_topic(topic) or ()) == partitions

        await until(knows, f"the brokers do not show {partitions} partitions of {topic}")

    async def _move_kind(self, producer: AIOKafkaProducer, kind: Kind, journal: Journal) -> None:
        shown_s = time.monotonic()

        def on_moved(things: int) -> None:
            nonlocal shown_s
            self._moved[kind.topic] += things
            if time.monotonic() > shown_s + 5:
                shown_s = time.monotonic()
                self._report(f"{kind.topic}: {self._moved[kind.topic]} moved")

        await move(self._settings, producer, self._group, kind, journal, on_moved)
        self._report(f"{kind.topic}: {self._moved[kind.topic]} moved, all of it")

    async def _delete_moved(self, journal: Journal) -> None:
        """Delete the old records: a window would hold rows that are never asked for, a reader see a state twice."""
        latest = LATEST_TOPIC.name
        await alter(self._client, latest, _DELETABLE)
        records = {tp: RecordsToDelete(end) for tp, (_, end) in journal.moves.items()}

        async def are_deleted() -> bool:
            try:
                await self._client.delete_records(records)
            except PolicyViolationError:  # a leader may apply the policy a moment after it shows it
                return False
            return True

        await until(are_deleted, f"the brokers delete no records of {latest}")
        declared = configuration(LATEST_TOPIC, self._settings)
        await alter(self._client, latest, {key: declared.get(key) for key in _DELETABLE})

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _reader(self, group: str | None = None) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **consumer_connection(self._settings),
            group_id=group,
            enable_auto_commit=False,
            isolation_level="read_committed",
        )

    async def _timed(self, step: str, work: Awaitable[None]) -> None:
        began_s = time.monotonic()
        await work
        self._seconds[step] = round(time.monotonic() - began_s, 1)

    async def _wait_until_nothing(self, awaited: Callable[[], Awaitable[str | None]]) -> None:
        """Wait until there is nothing to wait for; report what it is when that changes."""
        shown = None
        while (what := await awaited()) is not None:
            if what != shown:
                self._report(what)
                shown = what
            await asyncio.sleep(_POLL_S)
