"""What `eventpush check` says of each problem, and the remedy that it names."""

import pytest

from eventpush import checks
from eventpush.checking import access, groups, resources
from eventpush.checking.groups import Moved
from eventpush.checking.resources import Disk
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


@pytest.mark.parametrize(
    ("refused", "grant"),
    [
        ({"telematics.raw.v1": "topic"}, "--topic telematics. "),
        ({"eventpush-sink": "group"}, "--group eventpush-sink "),
    ],
)
def test_an_acl_that_is_missing_comes_with_the_command_that_adds_it(refused: dict[str, str], grant: str) -> None:
    """For this user, and for what was refused."""
    state, detail = access.access_finding(refused, settings())
    assert state == "failed"
    assert "kafka-acls.sh" in detail
    assert "User:ANONYMOUS" in detail
    assert grant in detail
    assert access.access_finding({}, settings())[0] == "ok"
