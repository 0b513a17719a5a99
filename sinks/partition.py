"""A partition's way into its table: plan → insert → commit, batch after batch, each exactly once.

    read the committed offset, and the plan that was left unfinished
    for each batch:  commit its first offset with the plan   (durable: what the insert will be)
                     insert with the plan's token            (waits for ClickHouse; repeated, it does nothing)
                     commit its next offset                  (with dead letters for refused rows, in one transaction)

Whatever dies between these lines, the next owner begins at the first one and makes the same insert again.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from faust.types import TP

from runtime import metrics
from runtime.batches import Batch
from runtime.fetching import Record
from schemas import topics
from sinks import plan as plans
from sinks.dead_letters import STAGE, DeadLetters
from sinks.ledger import Ledger
from sinks.plan import Plan
from sinks.rows import Rows
from sinks.writing import Inserter, Refusal, write

log = structlog.get_logger()


class Partition:
    """The processor of one partition (see `runtime.lanes.Processor`)."""

    def __init__(
        self,
        tp: TP,
        rows: Rows,
        *,
        ledger: Ledger,
        store: Inserter,
        dead_letters: DeadLetters,
        ready: asyncio.Event,
        pause_s: Callable[[Batch], float],
    ) -> None:
        self._tp = tp
        self._rows = rows
        self._ledger = ledger
        self._store = store
        self._dead_letters = dead_letters
        self._ready = ready
        self._pause_s = pause_s
        self._unfinished: Plan | None = None
        self._gathered: list[Record] = []

    async def open(self) -> int:
        """Where to go on: the committed offset, from which an unfinished plan is read again."""
        await self._ready.wait()
        self._gathered = []
        self._unfinished = await self._plan_left()
        if self._unfinished is not None:
            # Its last owner may be about to commit it with dead letters: no longer, and then it may be finished.
            await self._dead_letters.take_over()
            self._unfinished = await self._plan_left()
        committed = self._ledger.committed
        log.info("partition taken over", topic=self._tp.topic, partition=self._tp.partition, offset=committed.offset,
                 unfinished=self._unfinished and self._unfinished.token)  # fmt: skip
        return committed.offset

    async def process(self, batch: Batch) -> None:
        """Store the batch; first what is left of an unfinished plan, once all of it has been read again."""
        rest = await self._finish(batch) if self._unfinished else batch
        if rest is None:
            return
        plan = Plan(self._tp, rest.first_offset, rest.next_offset)
        await self._ledger.commit(plan.first, plan.metadata)
        await self._carry_out(plan, rest.records, repeated=False)
        await asyncio.sleep(self._pause_s(rest))

    async def close(self) -> None:
        """Let go: nothing is held that another worker would not find."""
        await self._dead_letters.close()

    async def _plan_left(self) -> Plan | None:
        committed = await self._ledger.read()
        return plans.found(self._tp, committed.offset, committed.metadata)

    async def _finish(self, batch: Batch) -> Batch | None:
        """Gather the unfinished plan's records, carry it out when they are all there; returns what comes after it."""
        plan = self._unfinished
        assert plan is not None  # noqa: S101 - the caller's condition, for the type checker
        self._gathered += [record for record in batch.records if record.offset < plan.end]
        if batch.next_offset < plan.end:
            return None
        await self._carry_out(plan, self._gathered, repeated=True)
        self._unfinished, self._gathered = None, []
        return batch.beginning_at(plan.end)

    async def _carry_out(self, plan: Plan, records: Sequence[Record], *, repeated: bool) -> None:
        refusals = await write(self._store, self._rows, plan, records, repeated=repeated) if records else []
        if refusals:
            await self._bury(refusals, plan.end)
        else:
            await self._ledger.commit(plan.end)

    async def _bury(self, refusals: Sequence[Refusal], next_offset: int) -> None:
        for refusal in refusals:
            log.error("row refused: to the dead letters", topic=self._tp.topic, partition=self._tp.partition,
                      offset=refusal.record.offset, why=refusal.why)  # fmt: skip
            if self._tp.topic == topics.DEAD_LETTER and f'"stage":"{STAGE}"'.encode() in (refusal.record.value or b""):
                raise RuntimeError(f"ClickHouse refuses a dead letter of its own making: {refusal.why}")
        await self._dead_letters.take_over()
        await self._ledger.confirm()
        await self._dead_letters.publish(refusals, next_offset)
        self._ledger.follow(next_offset)
        metrics.SINK_REFUSED.metric.labels(self._rows.table.name).inc(len(refusals))
