"""The stream stage's process: Faust reads the raw topic, one task per partition processes it.

telematics.raw.v1 ──> agent ──> task ──> validate → deduplicate → enrich ──> one transaction for all partitions
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

from faust.types import TP

from runtime.adapters.faust import Fetch
from runtime.consumer.coalescer import Coalescer
from runtime.consumer.stage import Stage
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform import directories, metrics
from runtime.platform.clock import clock_limits, steady_clock
from runtime.platform.settings import Settings
from schemas import topics
from schemas.event_types import CATEGORIES
from schemas.event_warnings import WARNINGS
from schemas.rules import Reason
from streams.batch_processor import BatchProcessor, BatchResult, RawBatch
from streams.content import content_of
from streams.device_registry import DeviceRegistry
from streams.enrichment import Source
from streams.partition_processor import PartitionProcessor
from streams.takeover import Fence
from streams.transactions import Transactions
from streams.type_topics import TypeTopics
from streams.window_table import WindowTable, window_table

#: Compressed raw events that are worth a transaction at once: some hundreds.
_ENOUGH_BYTES = 128 * 1024
#: Records that are worth a call of the processor at once; beyond them, waiting for more batches saves nothing.
_ENOUGH_RECORDS = 1_000
#: Batches are on their way for some milliseconds; those of a partition that is being restored, for much longer.
_ARRIVAL_S = 0.05


def batch_processor(settings: Settings, registry: DeviceRegistry) -> BatchProcessor:
    """Return the processor that these settings ask for."""
    clock = clock_limits(settings)
    source = Source(topics.RAW, registry.devices, clock.skew_us)
    return BatchProcessor(source, clock, content_of(settings.content_fields.split(",")), registry.erased)


def processing(processor: BatchProcessor, arriving: Callable[[], int]) -> Coalescer[RawBatch, BatchResult]:
    """Return what processes the batches of all partitions that arrive together in one call (decision 0034).

    A fetch returns a batch for each of many partitions, and they are handed on one by one. A call of the processor
    costs as much as some dozen events. `arriving` counts the batches that were fetched and are not processed yet.
    """

    async def process(batches: Sequence[RawBatch]) -> list[BatchResult]:
        return processor.process(batches)

    return Coalescer(
        process,
        in_progress=arriving,
        size_of=lambda batch: len(batch.records),
        enough=_ENOUGH_RECORDS,
        wait_s=_ARRIVAL_S,
    )


class StreamStage:
    """The parts of the stream stage, put together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stage = Stage(
            settings,
            settings.streams_app_id,
            [topics.RAW],
            self.processor,
            max_poll_records=settings.streams_batch_max_events,
            fetch=Fetch(settings.streams_linger_ms, _ENOUGH_BYTES),
            opening="restoring the window of",
        )
        self.table: WindowTable = window_table(self.stage.app)
        self.registry = DeviceRegistry(settings)
        self.type_topics = TypeTopics(settings)
        self.clock = steady_clock()
        in_progress = partial(self.stage.app.batches_in_progress, topics.RAW)
        self.transactions = Transactions(settings, in_progress)
        self.processing = processing(
            batch_processor(settings, self.registry), lambda: in_progress() - self.transactions.held
        )
        self.fence = Fence(settings)

    def processor(self, tp: TP) -> PartitionProcessor:
        """Return the processor of a partition that this worker takes over."""
        return PartitionProcessor(
            self.settings, self.stage.app, self.processing, self.transactions, self.fence, tp,
            self.table, self.registry, self.type_topics, self.clock,
        )  # fmt: skip

    def progress(self, tp: TP) -> tuple[int | None, int]:
        """Return a value that changes while a partition is restored or processed."""
        return self.stage.tasks.open.get(tp), self.table.identities_of(tp.partition)


def expose_zero_counts() -> None:
    """Show counters at 0 from the start: Prometheus sees no increase in a series that begins with its first event."""
    for reason, category in product(Reason, CATEGORIES):
        metrics.STREAMS_DEAD_LETTERS.metric.labels(str(reason), category)
    for warning in WARNINGS:
        metrics.STREAMS_WARNINGS.metric.labels(warning.code)


async def run(settings: Settings) -> int:
    """Run until stopped (exit status 0) or failed (1); raise `OperatorError` if it cannot start."""
    if settings.window_store == "rocksdb":
        directories.require_writable(settings.data_dir / "window")
    await ensure_topics(settings, check_only=True)
    streams = StreamStage(settings)
    expose_zero_counts()
    metrics.STREAMS_WINDOW_IDENTITIES.metric.set_function(streams.table.identities)
    try:
        await streams.type_topics.start()
        await streams.transactions.start()
        return await streams.stage.run(
            metrics.STREAMS_LAG,
            metrics.STREAMS_COMPLETE_THROUGH,
            settings.streams_metrics_port,
            streams.registry.follow,
            progress=streams.progress,
        )
    finally:
        await streams.transactions.stop()
