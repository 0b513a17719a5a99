"""The registry's CSV file: every bad line is found, with its number and the reason."""

import io
from pathlib import Path

import pytest
from click.testing import CliRunner

from eventpush.cli import cli
from eventpush.device_csv import BadLine, DeviceRow, read
from eventpush.device_history import Row
from runtime.platform.errors import OperatorError
from schemas.device import Device
from tests.unit.cli_support import logging_as_it_was  # noqa: F401 - a fixture

HEADER = "imei,vehicle,fleet,driver\n"


def read_all(text: str) -> list[DeviceRow | BadLine]:
    return list(read(io.StringIO(text, newline="")))


def test_a_good_line_is_a_device() -> None:
    """Columns may be in any order, quoted, with a byte order mark; an empty field means none."""
    assert read_all(HEADER + '350612075195931,MP09-HG-1234,Indore,"Rao, A."\n') == [
        DeviceRow("350612075195931", Row(Device("MP09-HG-1234", "Indore", "Rao, A.")))
    ]
    assert read_all("\ufeffDriver,fleet,IMEI,vehicle\n,,350612075195931, X \n") == [
        DeviceRow("350612075195931", Row(Device("X", None, None)))
    ]


def test_a_deleted_device_has_no_entry() -> None:
    """`yes` in the column `delete` removes the device, `forget` its history too."""
    text = "imei,vehicle,fleet,driver,delete\n350612075195931,,,,yes\n350612075195932,X,,,\n350612075195933,,,,Forget\n"
    assert read_all(text) == [
        DeviceRow("350612075195931", Row(None)),
        DeviceRow("350612075195932", Row(Device("X", None, None))),
        DeviceRow("350612075195933", None),
    ]


PERIODS = "imei,vehicle,fleet,driver,valid_from,valid_to,delete\n"
IMEI = "350612075195931"
MAY, JUNE = "2026-05-01T00:00:00.000000Z", "2026-06-01T00:00:00.000000Z"


def test_a_line_may_name_its_period() -> None:
    """Dates and times of ISO 8601, in UTC or with an offset; periods of one device may come in any order and touch."""
    text = (
        f"{PERIODS}{IMEI},B,,,2026-06-01,2026-07-01,\n{IMEI},A,,,2026-05-01T05:30:00+05:30,2026-06-01,\n"
        f"{IMEI},C,,,2026-07-01 08:00:00.000001,,\n{IMEI},,,,2026-08-01,2026-09-01,yes\n{IMEI},D,,,,,\n"
    )
    assert read_all(text) == [
        DeviceRow(IMEI, Row(Device("B"), "2026-06-01T00:00:00.000000Z", "2026-07-01T00:00:00.000000Z")),
        DeviceRow(IMEI, Row(Device("A"), "2026-05-01T00:00:00.000000Z", "2026-06-01T00:00:00.000000Z")),
        DeviceRow(IMEI, Row(Device("C"), "2026-07-01T08:00:00.000001Z")),
        DeviceRow(IMEI, Row(None, "2026-08-01T00:00:00.000000Z", "2026-09-01T00:00:00.000000Z")),
        DeviceRow(IMEI, Row(Device("D"))),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"{IMEI},B,,,2026-05-31T23:59:59,,", f"overlaps line 2, valid_from {MAY} valid_to {JUNE}"),
        (f"{IMEI},B,,,2026-04-01,2026-05-02,", f"valid_to 2026-05-02T00:00:00.000000Z of imei {IMEI} overlaps line 2"),
        (f"{IMEI},B,,,2026-05-01,,", "overlaps line 2"),
        (f"{IMEI},B,,,,2026-06-01,", "valid_to 2026-06-01T00:00:00.000000Z needs a valid_from"),
        (f"{IMEI},B,,,2026-08-01,2026-08-01,", "valid_to 2026-08-01T00:00:00.000000Z is not after valid_from"),
        (f"{IMEI},B,,,1.6.2026,,", "valid_from '1.6.2026' is not a time from 1900 to 2299 like 2026-06-01"),
        (f"{IMEI},B,,,2300-01-01,,", "valid_from '2300-01-01' is not a time from 1900 to 2299"),
        (f"{IMEI},B,,,1899-12-31,,", "valid_from '1899-12-31' is not a time from 1900 to 2299"),
        (f"{IMEI},,,,,,forget", "it takes no valid_from, no other line"),
        ("350612075195932,,,,,,maybe", "delete is 'maybe', expected yes, forget or empty"),
    ],
)  # fmt: skip
def test_a_period_that_cannot_be_says_why(line: str, why: str) -> None:
    """Periods of one device that overlap, and times that are none: the line, the value, and the other line."""
    good = f"{IMEI},A,,,2026-05-01,2026-06-01,\n"
    found = read_all(f"{PERIODS}{good}{line}\n{IMEI},C,,,2026-06-01,,\n")
    assert [type(row) for row in found] == [DeviceRow, BadLine, DeviceRow]
    assert isinstance(found[1], BadLine)
    assert found[1].line == 3
    assert why in found[1].why


@pytest.mark.parametrize("name", ["کرایه\u200cخودرو", "क्\u200dष परिवहन", "A.\u00a0Rao", "東京 12-34"])
def test_names_of_any_script_are_loaded(name: str) -> None:
    """Joiners and no-break spaces, as Persian, Hindi and French names have them, are kept."""
    assert read_all(f"{HEADER}350612075195931,{name},{name},{name}\n") == [
        DeviceRow("350612075195931", Row(Device(name, name, name)))
    ]


@pytest.mark.parametrize("c", ["\x00", "\t", "\x1b", "\x7f", "\x85", "\x9b", "\ud83d"])
def test_control_characters_are_refused(c: str) -> None:
    """A control character or an unpaired surrogate in a name is a bad line that shows the name."""
    (found,) = read_all(f"{HEADER}350612075195931,a{c}b,,\n")
    assert isinstance(found, BadLine)
    assert "vehicle" in found.why
    assert "contains control characters" in found.why


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("35061207519593,X,,", "is not 15 digits"),
        ("35061207519593Ⅷ,X,,", "is not 15 digits"),
        (",X,,", "is not 15 digits"),
        ("350612075195931,X", "2 fields, the header has 4"),
        ("350612075195931,X,,,extra", "5 fields, the header has 4"),
        (f"350612075195931,{'X' * 257},,", "vehicle is longer than 256 characters"),
        ("350612075195931,a\tb,,", "control characters"),
        ("350612075195930,X,,", "already in line 2"),
    ],
)
def test_a_bad_line_says_why(line: str, why: str) -> None:
    """A bad line is named by its number and the reason, and the lines after it are read."""
    found = read_all(f"{HEADER}350612075195930,X,,\n{line}\n350612075195939,Y,,\n")
    assert isinstance(found[1], BadLine)
    assert found[1].line == 3
    assert why in str(found[1])
    assert isinstance(found[2], DeviceRow)


def test_line_numbers_count_the_lines_of_quoted_fields() -> None:
    """A quoted field with a line break counts as two lines, as in an editor."""
    found = read_all(f'{HEADER}350612075195930,"X\nY",,\n1,,,\n')
    assert [bad.line for bad in found if isinstance(bad, BadLine)] == [3, 4]


@pytest.mark.parametrize(
    "text", ["", "imei,vehicle\n", "imei,vehicle,fleet,driver,colour\n", "imei,imei,vehicle,fleet,driver\n", '"imei\n']
)
def test_a_wrong_header_is_refused(text: str) -> None:
    """The header is required, complete, without unknown or repeated columns."""
    with pytest.raises(OperatorError, match="imei,vehicle,fleet,driver"):
        read_all(text)


def test_nothing_is_loaded_when_a_line_is_bad(tmp_path: Path) -> None:
    """All bad lines are reported, and Kafka is not even contacted."""
    file = tmp_path / "fleet.csv"
    file.write_text(f"{HEADER}1,,,\n2,,,\n350612075195931,X,,\n")
    env = {"EVENTPUSH_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    result = CliRunner().invoke(cli, ["devices", "load", str(file)], env=env)
    assert result.exit_code == 1
    assert "line 2: imei '1' is not 15 digits" in result.stderr
    assert "line 3: imei '2' is not 15 digits" in result.stderr
    assert "2 bad lines, nothing loaded" in result.stderr


def test_bytes_that_are_not_text_are_a_bad_line_or_an_error(tmp_path: Path) -> None:
    """Any bytes are a bad line or an error, never a traceback."""
    for content in (b"\xff\xfe\x00", HEADER.encode() + b"350612075195931,\xff,,\n"):
        file = tmp_path / "fleet.csv"
        file.write_bytes(content)
        result = CliRunner().invoke(cli, ["devices", "load", str(file)])
        assert result.exit_code == 1
        assert "unexpected" not in result.stderr
