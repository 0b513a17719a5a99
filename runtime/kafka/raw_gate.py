"""The gate of the raw topic: while more partitions are added, the brokers refuse every record. Pure.

It is the topic's `max.message.bytes`, set below the size of any batch. So it is durable, no process has to be asked,
and none that is old, slow or cut off can write meanwhile. The ingress knows it by the refusal, the stages by the value.
"""

from enum import StrEnum

from runtime.platform.errors import OperatorError

KEY = "max.message.bytes"


class Gate(StrEnum):
    """A gate that is closed, by the topic's value; with any other it is open."""

    PAUSED = "0"  # no records come; the stages finish what is there
    GROWING = "1"  # and no stage may run: what is kept by partition is being moved


_BY_VALUE = {str(gate): gate for gate in Gate}


def gate_of(value: str) -> Gate | None:
    """Return how the gate is closed; None if it is open."""
    return _BY_VALUE.get(value)


class GrowingError(OperatorError):
    """No stage may run."""

    def __init__(self) -> None:
        super().__init__(
            "the topics are getting more partitions, and what is kept by partition is being moved",
            "let `eventpush topics grow` finish, or run it again if it was interrupted; then set"
            " EVENTPUSH_TOPIC_PARTITIONS to the new number",
        )
