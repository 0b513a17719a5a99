"""Batching on a clock that the test sets: when a batch is due, and what it takes along."""

import pytest
import structlog

from ingress.batching import Batch, Batcher, Record, partition_of
from ingress.delivery import AllOf, Delivery
from ingress.errors import Rejection, RequestError


class Builder:
    """Has room for two records."""

    def __init__(self):
        self.records = []

    def append(self, *, timestamp, key, value, headers):
        if len(self.records) == 2:
            return None
        self.records.append(value)
        return type("Added", (), {"size": len(value)})


def record(key=b"1", value=b"{}"):
    return Record(key, value, 1, [])


@pytest.fixture
def opened():
    return []


@pytest.fixture
def batcher(opened):
    made = Batcher(4, 0.005, opened.append)
    made.new_builder = Builder
    return made


def test_a_lone_record_is_due_at_once_and_the_next_after_the_linger(batcher, opened):
    """The first batch does not wait; the next one waits until the linger time after that flush has passed."""
    batch, size_bytes = batcher.append(record())
    assert (opened, size_bytes, batch.size_bytes) == ([batch], 2, 2)
    assert batcher.due_in_s(100.0) <= 0
    assert batcher.take_due(100.0, lambda _partition: True) == [batch]
    assert not batcher
    assert batcher.due_in_s(100.002) == pytest.approx(0.003)
    assert batcher.due_in_s(101.0) <= 0


def test_records_share_the_open_batch_of_their_partition(batcher, opened):
    """Until it is full; then there is a second one, and each flush takes the older."""
    batches = [batcher.append(record(value=b"%d" % number))[0] for number in range(3)]
    assert batches[0] is batches[1] is not batches[2]
    assert opened == batcher.batches == [batches[0], batches[2]]
    assert batcher.take_due(1.0, lambda _partition: True) == [batches[0]]
    assert batcher.take_due(2.0, lambda _partition: True) == [batches[2]]


def test_only_partitions_that_may_be_sent_to_are_flushed(batcher):
    """The others keep their batches for a later flush."""
    batches = {batch.partition: batch for batch in (batcher.append(record(b"%d" % n))[0] for n in range(20))}
    busy = next(iter(batches))
    taken = batcher.take_due(1.0, lambda partition: partition != busy)
    assert batches[busy] not in taken
    assert batches[busy] in batcher.batches
    batcher.remove(batches[busy])
    assert batches[busy] not in batcher.batches
    rest = batcher.batches
    assert batcher.clear() == rest != []
    assert not batcher


def test_without_a_key_the_value_chooses_the_partition(batcher):
    """A repeat of the same bytes goes to the same partition."""
    value = b'{"IMEI":12}'
    batch, _ = batcher.append(Record(None, value, 1, []))
    assert batch.partition == partition_of(value, 4)


def test_all_of_several_batches():
    """The first failure is the outcome, once; otherwise the last success."""
    outcomes: list[RequestError | None] = []
    joined = AllOf(3, outcomes.append)
    joined(None)
    joined(None)
    assert outcomes == []
    joined(None)
    assert outcomes == [None]
    joined = AllOf(3, outcomes.append)
    for outcome in (None, failure := RequestError(Rejection.KAFKA_AWAY, "away"), None):
        joined(outcome)
    assert outcomes == [None, failure]


def test_a_delivery_runs_its_handler_on_by_a_call():
    """A handler that awaits a delivery goes on within the call that sets the outcome; a failure is raised in it."""

    async def handler(delivery):
        await delivery
        return "stored"

    for failure in (None, RequestError(Rejection.KAFKA_AWAY, "away")):
        delivery = Delivery()
        running = handler(delivery)
        ends: list[object] = []
        assert running.send(None) is delivery
        delivery.add_done_callback(lambda _delivery, running=running, ends=ends: ends.append(end_of(running)))
        delivery(failure)
        assert ends == ["stored" if failure is None else failure]
    settled = Delivery()
    settled(None)
    assert end_of(handler(settled)) == "stored"


def end_of(coroutine):
    """What a coroutine returns or raises when it is run on."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        return returned.value
    except RequestError as error:
        return error


def test_a_failing_delivery_callback_keeps_the_outcome_from_no_other():
    """It is logged, and the next callback is called."""
    outcomes: list[RequestError | None] = []
    batch = Batch(Builder(), 0)

    def fail(_failure: RequestError | None) -> None:
        raise ZeroDivisionError

    batch.callbacks += [fail, outcomes.append]
    with structlog.testing.capture_logs() as logged:
        batch.settle(None)
        batch.settle(None)
    assert outcomes == [None]
    assert [(line["event"], line["error"]) for line in logged] == [("delivery callback failed", "ZeroDivisionError")]
