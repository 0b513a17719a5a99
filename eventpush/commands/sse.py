"""`eventpush sse`."""

import sys

from eventpush.options import command_with_examples, settings_of_a_process
from eventpush.sse.service import run
from runtime.platform.event_loop import run_loop


@command_with_examples(
    "sse",
    "eventpush token new dashboard                        # the second line is for EVENTPUSH_SSE_TOKENS_FILE",
    "EVENTPUSH_SSE_TOKENS_FILE=readers.txt eventpush sse",
    'curl -N -H "Authorization: Bearer $TOKEN" "http://127.0.0.1:9104/events/stream?type=sos"',
)
def command() -> None:
    """Serve events as server-sent events, for those who cannot read Kafka: GET /events/stream.

    A client needs a bearer token. It names a type, or a filter as that of `eventpush tail --where`, and resumes with
    Last-Event-ID. `eventpush up` includes the event stream if EVENTPUSH_SSE_TOKENS or EVENTPUSH_SSE_TOKENS_FILE is set.
    """
    sys.exit(run_loop(run(settings_of_a_process("sse"))))
