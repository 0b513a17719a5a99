"""`eventpush up`."""

import sys

from eventpush.options import command_with_examples
from eventpush.stack import embedded_stack
from runtime.platform.settings import load


@command_with_examples(
    "up",
    "eventpush up",
    "EVENTPUSH_INGRESS_PORT=8088 eventpush up        # another port",
    "EVENTPUSH_DATA_DIR=/var/lib/eventpush eventpush up",
)
def command() -> None:
    """Start everything on this machine and stay in the foreground: Kafka, ClickHouse, ingress, stream worker, sink.

    Real Apache Kafka and the real ClickHouse engine, without Docker; the first start downloads Kafka's jars (checked
    against pinned hashes). Data lives in .eventpush/ and survives a restart; Ctrl-C stops everything in order.
    """
    sys.exit(embedded_stack().up(load()))
