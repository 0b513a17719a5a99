"""The Faust table of identities: one window per partition; its changelog is the window topic.

Faust assigns the changelog's partitions together with those of the raw topic. What the table holds is restored and
written in batches by `streams.partition_processor`: Faust's own way (a record, a task and two futures per key, and
recovery event by event) costs more than the rest of the stream stage.
"""

from typing import Any

import faust
from faust.stores.memory import Store
from faust.types import TP

from runtime.adapters.faust import BatchApp
from schemas import topics
from streams.window import SEGMENTS_PER_RETENTION, DeduplicationWindow


class WindowStore(Store):
    """The window of each partition number."""

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Raise: to Faust's recovery the changelog is empty (`BatchConsumer.highwaters`)."""
        raise NotImplementedError

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Do nothing: partition tasks free the windows of lost partitions."""


class WindowTable(faust.Table):
    """Partition number → `DeduplicationWindow`."""

    def _new_store(self) -> WindowStore:
        return WindowStore(self.app.conf.store, self.app, self)

    def put(self, partition: int, window: DeduplicationWindow) -> None:
        """Keep the window of a partition that was assigned."""
        self.data.data[partition] = window

    def forget(self, partition: int) -> None:
        """Close the window of a lost partition; its files stay on disk."""
        window = self.data.data.pop(partition, None)
        if window is not None:
            window.close()

    def identities_of(self, partition: int) -> int:
        """Return the number of identities in a partition's window."""
        return len(self.data.data.get(partition, ()))

    def identities(self) -> int:
        """Return the number of identities in all windows."""
        return sum(len(window) for window in self.data.data.values())


def window_table(app: BatchApp) -> WindowTable:
    """Create the table and register it with the app: tumbling segments that expire after the retention."""
    retention_s = app.settings.window_s
    table = WindowTable(app, name="window", partitions=app.settings.topic_partitions, help="identities by arrival")
    table.tumbling(retention_s / SEGMENTS_PER_RETENTION, expires=retention_s)
    table.changelog_topic = app.topic(topics.WINDOW, partitions=app.settings.topic_partitions)
    app.tables.add(table)
    return table
