"""How much a partition still has to read, as its fetcher knows it."""

from aiokafka.structs import TopicPartition
from faust.types import TP

from runtime.adapters.faust import BatchApp


def records_behind(app: BatchApp, tp: TP) -> int:
    """
    Offsets between what was handed out of `tp` and the last stable offset of the latest fetch; 0 if it is not ours.

    The fetcher's position passes over the markers of transactions, which a committed offset does not.
    """
    subscription = app.consumer._thread._ensure_consumer()._subscription
    partition = TopicPartition(tp.topic, tp.partition)
    if not subscription.is_assigned(partition):
        return 0
    state = subscription.subscription.assignment.state_value(partition)
    if not state.has_valid_position or state.lso is None:
        return 0
    return int(max(0, state.lso - state.position))
