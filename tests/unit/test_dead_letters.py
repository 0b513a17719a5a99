"""Dead letters: which are selected, what a repair does to a payload, and what is known of a letter that was sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from eventpush.dead_letters import script
from eventpush.dead_letters.audit import Outcome
from eventpush.dead_letters.letter import Letter, letter_of
from eventpush.dead_letters.preview import Summary, preview
from eventpush.dead_letters.raw_producer import key_of
from eventpush.dead_letters.repair import Repair, RepairError, apply
from eventpush.dead_letters.replay import raw_record
from eventpush.dead_letters.selection import OPEN, Selection
from eventpush.dead_letters.settling import settled
from eventpush.dead_letters.text import letter_lines, payload_lines, preview_lines, summary_lines
from eventpush.field_values import CastError, cast, value_text
from runtime.platform.errors import OperatorError
from schemas import times
from schemas.dead_letter import Violation
from schemas.replay import replay_of
from schemas.validation import ClockLimits

SAMPLE: dict[str, Any] = json.loads(Path("schemas/examples/overspeed.json").read_text())
RECEIVED_US = times.parse("2024-06-28T18:49:46.250000+0000")
CLOCK = ClockLimits.of_seconds(300, 86_400)
ID = "22222222-2222-2222-2222-222222222222"


def letter(payload: bytes | dict[str, Any], **fields: Any) -> Letter:
    """A dead letter with this payload."""
    row = {
        "letter": ID, "stage": "streams", "event": "overspeed", "imei": None, "received_us": RECEIVED_US,
        "receipt_id": "3f9a0c51d2e4-1f", "sender": "fleet-b",
        "payload": payload.decode() if isinstance(payload, bytes) else json.dumps(payload),
        "payload_encoding": "utf-8",
        "reasons_json": '[{"code":"bad_format","field":"Device_Time","found":"x","expected":"y"}]', "conflict": None,
        "replayed_letter": None, "attempt": 0, "raw_topic": "telematics.raw.v1", "raw_partition": 1, "raw_offset": 7,
        "resolved_by": None,
    }  # fmt: skip
    return letter_of(row | fields)


# --- selection -----------------------------------------------------------------------------------------------------


def test_reason_and_field_are_of_one_rule() -> None:
    """A letter with the reason in another field is not selected."""
    condition, parameters = Selection(reasons=("bad_format",), fields=("Device_Time",)).condition()
    assert condition.startswith(
        "arrayExists(reason -> has({reasons:Array(String)}, reason.code) AND has({fields:Array(String)}, reason.field)"
    )
    assert (parameters["reasons"], parameters["fields"]) == (["bad_format"], ["Device_Time"])


def test_only_open_letters_are_selected_but_for_ids() -> None:
    """What is resolved or has a newer attempt is selected by its id alone."""
    assert OPEN in Selection(senders=("a",)).condition()[0]
    assert OPEN not in Selection(ids=(ID,)).condition()[0]


def test_a_replay_does_not_lose_the_letters_that_fail_again_meanwhile() -> None:
    """What it continues is what was open when it began: its own failed attempts were stored later."""
    condition, parameters = Selection(senders=("a",)).condition(as_of_us=5)
    assert "inserted_at <= fromUnixTimestamp64Micro({as_of:Int64}, 'UTC')" in condition
    assert parameters["as_of"] == 5


# --- repairs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("IMEI", "350612075195931", '"350612075195931"'),
        ("Changes", '" 50 "', "50"),
        ("Changes", "5e1", "50"),
        ("Device_Time", "1719597133", '"2024-06-28T17:52:13.000000+0000"'),
        ("Device_Time", "1719597133.25", '"2024-06-28T17:52:13.250000+0000"'),
        ("Device_Time", '"1719597133250"', '"2024-06-28T17:52:13.250000+0000"'),
        ("Device_Time", "1719597133250001", '"2024-06-28T17:52:13.250001+0000"'),
        ("Device_Time", '"2024-06-28 23:22:13+05:30"', '"2024-06-28T17:52:13.000000+0000"'),
        ("Server_Time", '"2024-06-28T17:52:13"', '"2024-06-28T17:52:13.000000+0000"'),
    ],
)
def test_a_cast_gives_the_type_of_the_contract(name: str, text: str, expected: str) -> None:
    """Numbers become strings, strings numbers, and times the contract's format to the microsecond."""
    assert cast(name, text) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [("Changes", '"many"'), ("Changes", "1.5"), ("Device_Time", '"yesterday"'), ("IMEI", "[1]"), ("Speed", "1"),
     ("Location", "null")],
)  # fmt: skip
def test_a_cast_that_would_guess_is_an_error(name: str, text: str) -> None:
    """The letter is left out, with the reason."""
    with pytest.raises(CastError):
        cast(name, text)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("IMEI", "350612075195931", '"350612075195931"'), ("Changes", "50", "50"), ("Changes", "many", '"many"'),
     ("Location", "null", "null"), ("Event", "null", '"null"'), ("Speed", "81.5", "81.5"), ("Speed", "fast", '"fast"'),
     ("Event", '"sos"', '"sos"')],
)  # fmt: skip
def test_a_value_that_is_set_has_the_type_of_its_field(name: str, value: str, expected: str) -> None:
    """A shell gives text: it becomes a string or number as the contract says, or as it reads for unknown fields."""
    assert value_text(name, value) == expected


def test_steps_are_taken_in_order_and_the_rest_stays() -> None:
    """Replace, rename, cast, set; numbers of any size and escapes in other members stay as they were written."""
    payload = b'{"event":"sos","Changes":"7","X":12345678901234567890.10,"Note":"\\ud83d \\u00e9","T":"28/06/2024"}'
    repair = Repair(
        replacements=((r"(\d\d)/(\d\d)/(\d{4})", r"\3-\2-\1"),),
        renames=(("event", "Event"), ("absent", "Other")),
        casts=("Changes",),
        assignments=(("IMEI", "350612075195931"),),
    )
    assert apply(repair, payload) == (
        b'{"Event":"sos","Changes":7,"X":12345678901234567890.10,"Note":"\\ud83d \\u00e9","T":"2024-06-28",'
        b'"IMEI":"350612075195931"}'
    )


def test_no_repair_keeps_every_byte() -> None:
    """A payload that is no JSON at all is sent as it came."""
    assert apply(Repair(), b"\xff{") == b"\xff{"


@pytest.mark.parametrize(
    ("repair", "payload", "why"),
    [
        (Repair(renames=(("a", "b"),)), b'{"a":1,"b":2}', "both a and b"),
        (Repair(casts=("IMEI",)), b"[1]", "not a JSON object"),
        (Repair(casts=("IMEI",)), b"{", "not JSON"),
        (Repair(replacements=(("a", "b"),)), b"\xff", "not UTF-8"),
    ],
)
def test_what_cannot_be_repaired_says_why(repair: Repair, payload: bytes, why: str) -> None:
    """A step that cannot be taken is an error of the letter, not of the replay."""
    with pytest.raises(RepairError, match=why):
        apply(repair, payload)


def test_a_script_repairs_leaves_out_and_fails_by_letter(tmp_path: Path) -> None:
    """A dict is the repaired payload, None leaves the letter out, and an exception is about that letter."""
    file = tmp_path / "repair.py"
    file.write_text(
        "def fix(event):\n    return event['Event'] and {**event, 'Changes': event['Changes'] + 1} or None\n"
    )
    function, sha256 = script.load(f"{file}:fix")
    assert json.loads(apply(Repair(), b'{"Event":"sos","Changes":1}', function))["Changes"] == 2
    with pytest.raises(RepairError, match="left it out"):
        apply(Repair(), b'{"Event":""}', function)
    with pytest.raises(RepairError, match="KeyError"):
        apply(Repair(), b"{}", function)
    assert len(sha256) == 64


@pytest.mark.parametrize("given", ["missing.py:fix", "{file}:absent", "{file}", "{broken}:fix"])
def test_a_script_that_cannot_be_loaded_is_one_message(tmp_path: Path, given: str) -> None:
    """The file, or what is wrong in it, and how to name a function."""
    (tmp_path / "repair.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("def fix(:\n")
    with pytest.raises(OperatorError, match="--with"):
        script.load(given.format(file=tmp_path / "repair.py", broken=tmp_path / "broken.py"))


# --- previews and what is sent -------------------------------------------------------------------------------------


def test_a_preview_says_what_the_rules_say() -> None:
    """Valid after the repair with the event's id, or every rule that is still broken."""
    sent = letter(SAMPLE | {"Device_Time": 1719597133, "IMEI": "12"})
    fixed = preview(sent, Repair(casts=("Device_Time",), assignments=(("IMEI", SAMPLE["IMEI"]),)), None, CLOCK)
    assert fixed.checked is not None
    assert fixed.checked.event_id == "b42ed2be-4d46-2cd9-e3bd-dfac9dcd1633"
    half = preview(sent, Repair(casts=("Device_Time",)), None, CLOCK)
    assert half.checked is not None
    assert [(v.field, v.code) for v in half.checked.violations] == [("IMEI", "bad_format")]
    of_sink = preview(letter({}, stage="sink"), Repair(), None, CLOCK)
    summary = Summary()
    summary.add([fixed, half, of_sink])
    assert summary.results == {"valid": 1, "still breaks a rule": 1, "left out": 1}
    assert summary.reasons == {("IMEI", "bad_format"): 1}


def test_the_raw_record_has_the_first_arrival_and_names_the_replay() -> None:
    """Receipt, sender and arrival are the letter's; the headers name replay, letter and the next attempt."""
    record = raw_record(letter(SAMPLE, attempt=2), b"{}", "11111111-1111-1111-1111-111111111111")
    headers = dict(record.headers())
    assert (headers["arrival_us"], headers["receipt_id"], headers["sender"]) == (
        str(RECEIVED_US).encode(),
        b"3f9a0c51d2e4-1f",
        b"fleet-b",
    )
    assert replay_of(record.headers()) == ("11111111-1111-1111-1111-111111111111", ID, 3)


def test_the_key_is_that_of_the_ingress() -> None:
    """The repaired IMEI decides the partition, so that the window knows the identity; without one there is no key."""
    assert key_of(json.dumps(SAMPLE).encode()) == SAMPLE["IMEI"].encode()
    assert key_of(b"[]") is None
    assert key_of(b"\xff") is None


def test_a_refused_attempt_is_no_event_whatever_row_there_is() -> None:
    """A conflict's event has a row, and the letter failed all the same; what is neither is not known yet."""
    sent = [
        Outcome(dead_letter_id=name, attempt=1, event_id=f"event-{name}", refused_id=f"refused-{name}")
        for name in "abc"
    ]
    found = settled(sent, {"refused-a", "refused-x"}, {"event-a", "event-b"})
    assert [(outcome.dead_letter_id, outcome.outcome) for outcome in found] == [("a", "dead_letter"), ("b", "event")]


# --- text ----------------------------------------------------------------------------------------------------------


def test_each_broken_rule_is_beside_its_field() -> None:
    """Below the member that breaks it; a missing field and the whole payload come first."""
    violations = [
        Violation("missing", "Event", "nothing", "a type"),
        Violation("bad_format", "IMEI", '"1"', "15 digits"),
    ]
    lines = list(payload_lines(b'{"Changes": 1, "IMEI": "1"}', violations))
    assert lines == [
        "Event: missing: found nothing, expected a type",
        "{",
        '  "Changes": 1,',
        '  "IMEI": "1"',
        '    ^ bad_format: found "1", expected 15 digits',
        "}",
    ]


def test_payloads_cannot_move_the_cursor() -> None:
    """Escape sequences from a sender are replaced on the terminal."""
    hostile = letter(b"\x1b[2J not JSON")
    shown = "\n".join([*letter_lines(hostile), *preview_lines(preview(hostile, Repair(), None, CLOCK))])
    assert "\x1b" not in shown
    assert list(summary_lines(Summary())) == ["0 dead letters selected"]
