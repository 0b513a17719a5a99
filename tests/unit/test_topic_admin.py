"""Topics, as far as they can be tested without a broker."""

import pytest

from eventpush import record_text
from runtime.kafka.raw_gate import KEY, Gate, gate_of
from runtime.kafka.topic_admin import configuration, partition_counts, refuse_other_partition_counts
from runtime.platform.errors import OperatorError
from runtime.platform.settings import load
from schemas.topics import (
    DEVICES_TOPIC,
    ERASED_TOPIC,
    EVENTS_TOPIC,
    LATEST_TOPIC,
    RAW_TOPIC,
    WINDOW_TOPIC,
    all_topics,
)


def test_what_is_kept_by_key_is_compacted_and_the_rest_expires() -> None:
    """Devices and their states stay for ever, by key; everything else leaves after its retention."""
    settings = load({"EVENTPUSH_TOPIC_RETENTION_H": "5"})
    for topic in all_topics():
        config = configuration(topic, settings)
        by_key = topic in (DEVICES_TOPIC, LATEST_TOPIC, ERASED_TOPIC)
        assert config["cleanup.policy"] == ("compact" if by_key else "delete")
        assert ("retention.ms" in config) is not by_key
    assert configuration(EVENTS_TOPIC, settings)["retention.ms"] == str(5 * 3_600_000)


@pytest.mark.parametrize("window_s", [60, 86_400, 30 * 86_400])
def test_the_windows_changelog_outlives_the_window(window_s: int) -> None:
    """By half of the window and a day, in segments that close often enough to leave."""
    settings = load({"EVENTPUSH_WINDOW_S": str(window_s), "EVENTPUSH_SENDER_RETRY_S": str(window_s)})
    config = configuration(WINDOW_TOPIC, settings)
    assert int(config["retention.ms"]) == window_s * 1_500 + 86_400_000
    assert 600_000 <= int(config["segment.ms"]) <= max(600_000, window_s * 125)


def test_no_time_of_a_record_is_refused() -> None:
    """An outage or a wrong clock must not make the broker refuse what was accepted."""
    config = configuration(EVENTS_TOPIC, load({}))
    assert {config[f"message.timestamp.{side}.max.ms"] for side in ("before", "after")} == {str(2**63 - 1)}


def test_another_partition_count_is_refused_with_the_reason() -> None:
    """The counts, the variable, why, and what to do."""
    settings = load({"EVENTPUSH_TOPIC_PARTITIONS": "8"})
    refuse_other_partition_counts(settings, {"a": 8, "b": 8})
    with pytest.raises(OperatorError, match=r"the topics have 4; .* would let duplicates in: set it back to 4"):
        refuse_other_partition_counts(settings, {"a": 4, "b": 4})
    with pytest.raises(OperatorError, match=r"or run `eventpush topics grow --partitions 8`"):
        refuse_other_partition_counts(settings, {"a": 4, "b": 4})
    with pytest.raises(OperatorError, match="no way to fewer but new topics"):
        refuse_other_partition_counts(settings, {"a": 12, "b": 12})
    with pytest.raises(OperatorError, match="b has 4"):
        refuse_other_partition_counts(settings, {"a": 8, "b": 4})


def test_tables_keep_their_number_of_partitions() -> None:
    """The registry and the deny list are read whole, so theirs is not compared; all others' is, new types' too."""
    existing = {topic.name: [None] * (4 if topic in (DEVICES_TOPIC, ERASED_TOPIC) else 12) for topic in all_topics()}
    counts = partition_counts(existing | {"telematics.event.new.v1": [None] * 12})
    assert set(counts.values()) == {12}
    assert "telematics.event.new.v1" in counts


def test_the_gate_is_closed_by_a_size_that_no_record_has() -> None:
    """The configured size is an open gate."""
    assert gate_of(configuration(RAW_TOPIC, load({}))[KEY]) is None
    assert [gate_of(str(gate)) for gate in Gate] == list(Gate)


def test_a_line_of_tail_shows_no_control_characters() -> None:
    """What a sender wrote cannot move the terminal's cursor; what is no event is shown as it is."""
    event = (
        b'{"event":"sos","changes":1,"imei":"350612075195931","device_time":"2024-06-28T17:52:13.000000Z","latitude":1,'
        b'"longitude":2,"location":"a\\u001b[2Jb","geofence_name":null,"vehicle":null,"fleet":null,"driver":null}'
    )
    shown = record_text.line(event)
    assert "\x1b" not in shown
    assert "350612075195931" in shown
    assert record_text.line(b"no event") == "no event"
    assert "\x1b" not in record_text.line(b"\x1b[2J")
