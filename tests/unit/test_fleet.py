"""The simulated fleet: reproducible, and every event has its expected outcome."""

from collections import defaultdict
from itertools import islice

import pytest

from eventpush.simulation.fleet import ExpectedOutcome, Identity, PlannedEvent, Shares, generate, with_check_digit
from schemas.event_types import TYPES
from schemas.validation import ClockLimits, ValidEvent, validate

PRESENT_US = 1_770_000_000_000_000
MANY = Shares(repeated=0.1, invalid=0.1, conflicting=0.05, unknown_type=0.05, same_instant=0.2)


def fleet(seed: int, count: int, devices: int = 50, shares: Shares = MANY) -> list[PlannedEvent]:
    return list(islice(generate(seed, devices, shares), count))


def test_the_same_seed_makes_the_same_events() -> None:
    """Two runs are the same byte for byte, and a longer run begins with the shorter one."""
    assert fleet(7, 3_000) == fleet(7, 3_000)
    assert fleet(7, 3_000)[:500] == fleet(7, 500)


@pytest.mark.parametrize("other", [0, 8, 1_007, 4_007, 999_999])
def test_another_seed_makes_other_events(other: int) -> None:
    """Two seeds share no identity."""
    ours = {event.identity for event in fleet(7, 2_000)}
    assert ours.isdisjoint(event.identity for event in fleet(other, 2_000))


def test_each_event_has_its_expected_outcome() -> None:
    """By the rules of `schemas.validation`: valid and new, a repeat, a conflict with an earlier one, or invalid."""
    content: dict[Identity, tuple[int, float, float]] = {}
    outcomes: defaultdict[ExpectedOutcome, int] = defaultdict(int)
    for event in fleet(3, 10_000):
        outcomes[event.expected_outcome] += 1
        found = validate(event.body, PRESENT_US, ClockLimits(0, 0))
        if event.expected_outcome is ExpectedOutcome.INVALID:
            assert isinstance(found, list), event
            continue
        assert isinstance(found, ValidEvent), (event, found)
        assert event.identity == (found.imei, found.device_us, found.event, found.geofence_name)
        carried = (found.changes, found.latitude, found.longitude)
        if event.expected_outcome is ExpectedOutcome.VALID:
            assert event.identity not in content
            content[event.identity] = carried
        else:
            assert (content[event.identity] == carried) is (event.expected_outcome is ExpectedOutcome.REPEAT)
    assert min(outcomes[outcome] for outcome in ExpectedOutcome) > 300


def test_no_two_invalid_events_are_the_same_bytes() -> None:
    """Each of them is a dead letter of its own."""
    bodies = [event.body for event in fleet(5, 5_000) if event.expected_outcome is ExpectedOutcome.INVALID]
    assert len(set(bodies)) == len(bodies)


def test_the_fleet_is_varied() -> None:
    """All types of the contract and an unknown one, an SOS at the instant of an overspeed, devices out of order."""
    events = [event for event in fleet(1, 10_000) if event.expected_outcome is ExpectedOutcome.VALID]
    types = {event.identity[2] for event in events}
    simulated = {name for name, kind in TYPES.items() if kind.simulated_share}
    assert simulated < types
    assert len(types) == len(simulated) + 1
    instants = {(event.identity[0], event.identity[1]) for event in events if event.identity[2] == "overspeed"}
    assert any(event.identity[2] == "sos" and event.identity[:2] in instants for event in events)
    by_device: defaultdict[str, list[int]] = defaultdict(list)
    for event in events:
        by_device[event.imei].append(event.identity[1])
    assert any(times != sorted(times) for times in by_device.values())


def test_imeis_have_a_right_check_digit() -> None:
    """The Luhn digit, as in the contract's sample: 35061207519593 is followed by 1."""
    assert with_check_digit("35061207519593") == "350612075195931"
    assert all(with_check_digit(event.imei[:14]) == event.imei for event in fleet(2, 200))
