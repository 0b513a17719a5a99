"""The console's dead letters and senders: what is shown and what is asked of the commands."""

import pytest

from eventpush.console.letter_payload import fields, pretty
from eventpush.console.metric_samples import parse
from eventpush.console.repairs import Group, Repair, options, selection
from eventpush.console.sender_counts import Sender, SenderCounts, senders
from eventpush.console.senders import cells
from eventpush.console.stages import Process, StageReading
from schemas.dead_letter import Violation


def violation(field: str, code: str) -> Violation:
    return Violation(code=code, field=field, found="f", expected="e")


def test_each_broken_rule_is_beside_its_field() -> None:
    """Fields come in the order sent; a rule of a missing field or of the whole payload has a row of its own."""
    reasons = [violation("IMEI", "bad_format"), violation("IMEI", "bad_length"), violation("Event", "missing")]
    assert fields('{"Changes": 5, "IMEI": "é"}', reasons) == [
        ("Changes", "5", ""),
        ("IMEI", '"é"', "bad_format: found f, expected e; bad_length: found f, expected e"),
        ("Event", "–", "missing: found f, expected e"),
    ]
    assert fields("[1]", [violation("", "not_object")]) == [("(payload)", "–", "not_object: found f, expected e")]


def test_payloads_are_indented_if_they_are_json() -> None:
    """Anything else is shown as it came."""
    assert pretty('{"a":"é"}') == '{\n  "a": "é"\n}'
    assert pretty("<b>") == "<b>"


def test_selections() -> None:
    """One letter, or the group; empty names are those without a sender or of the whole payload."""
    assert selection(None, "id-1") == ["--id=id-1"]
    assert selection(Group("missing", "", ""), None) == ["--reason=missing", "--field=", "--sender="]


def test_repairs() -> None:
    """Each kind becomes its option; no value can become an option of its own."""
    assert options([Repair("cast", "Device_Time")]) == ["--cast=Device_Time"]
    assert options([Repair("set", "Event", "--sos")]) == ["--set=Event=--sos"]
    assert options([Repair("rename", "imei", "IMEI")]) == ["--rename=imei=IMEI"]
    assert options([Repair("replace", r"(\d),(\d)", r"\1.\2")]) == ["--replace", r"(\d),(\d)", r"\1.\2"]


@pytest.mark.parametrize("repair", [Repair("cast", ""), Repair("set", "a=b", "c"), Repair("with", "x.py:f")])
def test_incomplete_repairs_are_refused(repair: Repair) -> None:
    """In words, before a command runs. A script cannot be named: the console runs no code of a browser."""
    with pytest.raises(ValueError, match=r"name the field|cannot hold|no such repair"):
        options([repair])


def test_senders_join_rows_and_refusals() -> None:
    """Refusals of all ingress processes are added; a sender with nothing but refusals is listed too."""
    text = """# TYPE eventpush_ingress_refusals counter
eventpush_ingress_refusals_total{sender="a",reason="not_json"} 2.0
eventpush_ingress_refusals_total{sender="b",reason="not_json"} 1.0
"""
    ingress = StageReading("ingress", [Process("x", now=parse(text, 1.0)), Process("y", now=parse(text, 1.0))])
    counted = [SenderCounts("a", 10, 1, 2, 0), SenderCounts("", 5, 0, 0, 1)]
    assert senders(counted, ingress) == [
        Sender("a", 10, 1, 2, 0, 4), Sender("", 5, 0, 0, 1, 0), Sender("b", 0, 0, 0, None, 2)
    ]  # fmt: skip
    assert [sender.refused for sender in senders(counted, None)] == [None, None]
    assert cells(Sender("", 5, 0, 0, None, None)) == ["(not named)", "5", "0", "0", "–", "–"]
