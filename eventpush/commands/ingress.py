"""`eventpush ingress`."""

import sys

from eventpush.options import command_with_examples
from ingress.service import run
from runtime.platform.settings import load


@command_with_examples(
    "ingress",
    "eventpush ingress",
    "EVENTPUSH_INGRESS_HOST=0.0.0.0 EVENTPUSH_INGRESS_PROCESSES=2 eventpush ingress",
    "curl -i http://127.0.0.1:8080/healthz",
)
def command() -> None:
    """Run the HTTP ingress: POST /api/events into telematics.raw.v1, answered 200 once Kafka has acknowledged.

    SIGTERM and Ctrl-C stop it after the requests in progress.
    """
    sys.exit(run(load()))
