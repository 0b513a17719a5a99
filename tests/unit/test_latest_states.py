"""The newest event of each device, by device time."""

import json

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from schemas.contract import schemas
from schemas.topics import LATEST
from streams.latest_states import LatestStates, encode_states
from tests.unit.published_records import read
from tests.unit.test_batch_processor import ARRIVAL_US, SAMPLE, process, record


def sent(second: int, **fields: object) -> dict[str, object]:
    """The sample at another second."""
    return SAMPLE | {"Device_Time": f"2024-06-28T17:52:{second:02d}.000000+0000"} | fields


def published(states: LatestStates, *payloads: dict[str, object]) -> dict[str, dict[str, object]]:
    """Process payloads as one batch; the states that it publishes, by key."""
    result = process(*(record(n, payload) for n, payload in enumerate(payloads)), states=states)
    if not result.states:
        return {}
    states.update(result.states_us)
    found = read(encode_states(result.states, ARRIVAL_US // 1000))
    return {(one.key or b"").decode(): json.loads(one.value or b"") for one in found}


def test_the_state_is_the_newest_event() -> None:
    """With position, type, severity and time; one record a device, whatever the order in the batch."""
    other = "490154203237518"
    found = published(LatestStates(), sent(5), sent(9, Event="sos"), sent(7), sent(1, IMEI=other))
    assert set(found) == {SAMPLE["IMEI"], other}
    state = found[SAMPLE["IMEI"]]
    assert (state["event"], state["severity"]) == ("sos", "critical")
    assert (state["device_time"], state["imei"]) == ("2024-06-28T17:52:09.000000Z", SAMPLE["IMEI"])
    assert f"{state['latitude']},{state['longitude']}" == SAMPLE["Coordinates"]
    for value in found.values():
        Draft202012Validator(schemas()[LATEST], format_checker=FormatChecker()).validate(value)


def test_a_late_event_never_moves_it_back() -> None:
    """Nor does the same event again, nor another one of the same instant."""
    states = LatestStates()
    assert published(states, sent(30))
    assert published(states, sent(29)) == {}
    assert published(states, sent(30), sent(30, Event="sos")) == {}
    assert published(states, sent(31))


def test_a_state_survives_a_restart() -> None:
    """Restored from the topic's records, the latest of a device last; a record without a value removes it."""
    before, after = LatestStates(), LatestStates()
    for second in (10, 20):
        for imei, value in published(before, sent(second)).items():
            after.restore(imei, json.dumps(value).encode())
    assert published(after, sent(19)) == {}
    assert published(after, sent(21))
    after.restore(SAMPLE["IMEI"], None)
    assert len(after) == 0
    assert published(after, sent(1))


@given(st.lists(st.tuples(st.integers(0, 59), st.sampled_from(["350612075195931", "490154203237518"])), min_size=1),
       st.integers(1, 5))  # fmt: skip
def test_however_batches_are_cut_the_last_state_is_the_newest(moments: list[tuple[int, str]], size: int) -> None:
    """A compacted topic keeps the last record of each device: it is that of the greatest device time."""
    states, kept = LatestStates(), dict[str, dict[str, object]]()
    payloads = [sent(second, IMEI=imei) for second, imei in moments]
    for begin in range(0, len(payloads), size):
        kept |= published(states, *payloads[begin : begin + size])
    for imei, state in kept.items():
        newest = max(second for second, of in moments if of == imei)
        assert state["device_time"] == f"2024-06-28T17:52:{newest:02d}.000000Z"
    assert set(kept) == {imei for _, imei in moments}
