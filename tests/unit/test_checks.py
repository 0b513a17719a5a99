"""What `eventpush check` says of each problem, and the remedy that it names."""

from itertools import chain

import pytest

from eventpush import checks
from eventpush.checking import access, groups, resources
from eventpush.checking.groups import Moved
from eventpush.checking.resources import Disk
from eventpush.contract.acls import SERVICES, of_a_service
from runtime.adapters import aiokafka_admin
from runtime.platform import settings as settings_module
from runtime.platform.settings import Settings


def settings(**given: str) -> Settings:
    """Settings with these variables."""
    return settings_module.load({f"EVENTPUSH_{name.upper()}": value for name, value in given.items()})


def test_a_clock_that_is_apart_is_a_warning() -> None:
    """Within a second is normal; beyond, NTP is the remedy."""
    assert checks.clock_finding(0.9)[0] == "ok"
    state, detail = checks.clock_finding(1.5)
    assert state == "warning"
    assert "NTP" in detail


def test_a_disk_that_is_nearly_full_is_named() -> None:
    """Less than a tenth free; the others are not mentioned then."""
    plenty, full = Disk("of data", 50, 100), Disk("default of ClickHouse", 9_000_000_000, 100_000_000_000)
    assert resources.disks_finding([plenty])[0] == "ok"
    state, detail = resources.disks_finding([plenty, full])
    assert state == "warning"
    assert detail.startswith("disk default of ClickHouse has 9.0 GB of 100.0 GB free: add space")


def test_a_window_larger_than_memory_is_a_warning() -> None:
    """1,000 events/s for a day need 8 to 10 GB in memory, a tenth of the machine's is fine; on disk it is less."""
    big = resources.window_finding(settings(), 1_000, memory=8_000_000_000, free_disk=0)
    assert big[0] == "warning"
    assert "EVENTPUSH_WINDOW_STORE=rocksdb" in big[1]
    assert resources.window_finding(settings(), 1_000, memory=64_000_000_000, free_disk=0)[0] == "ok"
    on_disk = settings(window_store="rocksdb")
    assert resources.window_finding(on_disk, 1_000, memory=1, free_disk=10_000_000_000)[0] == "ok"
    assert resources.window_finding(on_disk, 1_000, memory=1, free_disk=1_000_000_000)[0] == "warning"


def test_the_memory_is_that_of_this_machine_or_its_limit() -> None:
    """Some bytes, at most what the machine has."""
    assert resources.memory_bytes() > 2**20


def test_a_stream_group_that_was_moved_ahead_is_found() -> None:
    """The account knows what was processed; a group behind it is harmless, since workers go by the account."""
    assert groups.moved_streams("g", {0: 10, 1: 5}, {0: 10, 1: 7}) == []
    assert groups.moved_streams("g", {0: 12, 1: 5}, {0: 10, 1: 7}) == [Moved("g", "telematics.raw.v1", 0, 10, 12)]


def test_a_sink_group_that_was_moved_ahead_is_found() -> None:
    """The records before its committed offset have no rows; the first of these is where to go back to."""
    assert groups.moved_sink("g", {0: 9, 1: 3}, {0: {7: False, 8: True}, 1: {}}) == []
    (moved,) = groups.moved_sink("g", {0: 9}, {0: {5: True, 6: False, 8: False}})
    assert (moved.topic, moved.first, moved.next) == ("telematics.events.v1", 6, 9)
    assert "skips offsets 6 to 8" in str(moved)


NEEDED = {service: of_a_service(service, settings()) for service in SERVICES}
RIGHTS = list(chain(*NEEDED.values()))
TOPICS = {right.name for right in RIGHTS if right.resource == "topic" and not right.prefixed}
RESOURCES = [
    *(("topic", topic) for topic in (*TOPICS, "telematics.event.sos.v1")),
    *((right.resource, right.name) for right in RIGHTS if right.resource != "topic"),
]


def access_without(*taken: tuple[str, str, str]) -> tuple[str, str]:
    """The finding for a user who has all rights but these: kind, name and operation."""
    granted = {
        resource: frozenset(operation for operation in aiokafka_admin.OPERATIONS if (*resource, operation) not in taken)
        for resource in RESOURCES
    }
    return access.access_finding("User:eventpush", NEEDED, granted, settings())


@pytest.mark.parametrize(
    ("taken", "said", "grant"),
    [
        (
            ("topic", "telematics.dead-letter.v1", "Write"),
            "streams lacks Write on topic telematics.dead-letter.v1. sink lacks Write on",
            "--operation Write --topic telematics.dead-letter.v1`",
        ),
        (
            ("topic", "telematics.event.sos.v1", "Create"),
            "streams lacks Create on topic telematics.event.…",
            "--operation Create --resource-pattern-type prefixed --topic telematics.event.`",
        ),
        (("group", "eventpush-sink", "Read"), "sink lacks Read", "--operation Read --group eventpush-sink`"),
        (
            ("transactional-id", "eventpush-streams-", "Write"),
            "streams lacks Write on transactional-id eventpush-streams-…",
            "--operation Write --resource-pattern-type prefixed --transactional-id eventpush-streams-`",
        ),
    ],
)
def test_an_acl_that_is_missing_comes_with_the_command_that_adds_it(
    taken: tuple[str, str, str], said: str, grant: str
) -> None:
    """The service that lacks it, and once the command of Kafka's own tool, for this user."""
    state, detail = access_without(taken)
    assert state == "failed"
    assert said in detail
    assert detail.count(grant) == 1
    assert detail.count("kafka-acls.sh") == 1
    assert "--allow-principal User:eventpush" in detail


def test_a_user_for_one_service_is_no_failure() -> None:
    """What other services need is said as a warning; a user who can run none of them is a failure."""
    assert access_without()[0] == "ok"
    state, detail = access_without(("topic", "telematics.raw.v1", "Write"))
    assert (state, "ingress lacks Write on topic telematics.raw.v1" in detail) == ("warning", True)
    everything = [(*resource, operation) for resource in RESOURCES for operation in aiokafka_admin.OPERATIONS]
    assert access_without(*everything)[0] == "failed"
