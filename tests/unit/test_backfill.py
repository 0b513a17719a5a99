"""A backfill reads every format, sends each event once to a real ingress, and goes on after a kill."""

import asyncio
import gzip
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from eventpush.backfill import sources
from eventpush.backfill.run import FileReport, Plan, run
from eventpush.backfill.sources import CsvMapping, Source
from eventpush.cli import cli
from ingress.access.signatures import signer
from runtime.platform.errors import OperatorError
from tests.unit.ingress_support import EVENT, Running, running, settings

CSV = "\n".join((
    "\ufeffdevice,DEVICE_TIME,Server_Time,Coordinates,Changes,Location,speed",
    '350612075195931,1719597133,2024-06-28T18:49:45Z,"22.9,75.5",50,,81.5',
    '350612075195932,2024-06-28 23:22:13+05:30,2024-06-28T18:49:45Z,"22.9,75.5",,"Indore, ""M.P.""",',
))  # fmt: skip
_ELEMENTS = st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())), max_size=5)


def numbered(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Events that are told apart by their device."""
    return [EVENT | {"IMEI": f"{350612075000000 + number}"} for number in range(first, first + count)]


def events_in(path: Path, mapping: CsvMapping | None = None) -> list[Any]:
    """Every event of a file, decoded."""
    source = Source(path, mapping or CsvMapping())
    try:
        return [json.loads(item.event) for item in source]
    finally:
        source.close()


def read_lines(path: str) -> list[Any]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# --- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("form", ["ndjson", "array", "pretty array"])
def test_json_is_read_whatever_its_form(tmp_path: Path, form: str, zipped: bool) -> None:
    """Lines with blank ones between, an array on one line, an array with indents: the content says which."""
    events = numbered(300)
    text = {
        "ndjson": "\n" + "\n\n".join(map(json.dumps, events)),
        "array": json.dumps(events),
        "pretty array": json.dumps(events, indent=2),
    }[form].encode()
    path = tmp_path / "events"
    path.write_bytes(gzip.compress(text) if zipped else text)
    assert events_in(path) == events


@given(_ELEMENTS, st.integers(1, 9))
def test_an_array_is_read_in_chunks_of_any_size(elements: list[dict[str, Any]], chunk: int) -> None:
    """Wherever a chunk ends, the elements are the same."""

    class Slow(io.StringIO):
        def read(self, _size: int | None = -1, /) -> str:
            return super().read(chunk)

    found = sources.array_events(Slow(json.dumps(elements, indent=1)))
    assert [json.loads(event) for event in found] == elements


def test_csv_becomes_events_by_its_mapping(tmp_path: Path) -> None:
    """Columns by the field's name in any case, or by the mapping; times converted; empty cells left out."""
    path = tmp_path / "trips.csv"
    path.write_text(CSV)
    mapping = CsvMapping(columns=(("IMEI", "device"), ("Speed", "speed")), constants=(("Event", "overspeed"),))
    first, second = events_in(path, mapping)
    assert first == {
        "IMEI": "350612075195931",
        "Device_Time": "2024-06-28T17:52:13.000000+0000",
        "Server_Time": "2024-06-28T18:49:45.000000+0000",
        "Coordinates": "22.9,75.5",
        "Changes": 50,
        "Speed": 81.5,
        "Event": "overspeed",
    }
    assert second["Device_Time"] == "2024-06-28T17:52:13.000000+0000"
    assert second["Location"] == 'Indore, "M.P."'
    assert {"Changes", "Speed"} & set(second) == set()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("cut.json.gz", gzip.compress(json.dumps(numbered(50)).encode())[:-20], "cannot be read"),
        ("cut.json", b'[{"a":1},{"b":', "event 2 cannot be read"),
        ("latin.csv", "IMEI\n\xe9".encode("latin-1"), "event 1 cannot be read"),
        ("other.csv", b"a,b\n1,2\n", "no such column"),
    ],
)
def test_a_broken_file_is_one_message(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    """The file, the event and the remedy; never a traceback."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(OperatorError, match=why):
        events_in(path, CsvMapping(columns=(("Changes", "c"),)) if name == "other.csv" else None)


# --- sending -------------------------------------------------------------------------------------------------------


def plan(path: Path, ingress: Running, **given: Any) -> Plan:
    """Send one file to that ingress, quickly."""
    fields: dict[str, Any] = {
        "files": [path], "url": f"http://127.0.0.1:{ingress.port}/api/events", "headers": {}, "rate": 100_000.0,
        "mapping": CsvMapping(), "directory": path.parent / "progress", "restart": False, "patience_s": 10.0,
    }  # fmt: skip
    return Plan(**(fields | given))


async def backfill(path: Path, ingress: Running, **given: Any) -> FileReport:
    """The report of one run."""
    (report,) = await run(plan(path, ingress, **given), lambda _: None)
    return report


def devices(ingress: Running) -> list[str]:
    """The devices of the records that the ingress has stored, in order."""
    return [json.loads(record.value)["IMEI"] for record in ingress.publisher.records]


async def test_events_that_are_refused_are_kept_with_the_reason(tmp_path: Path) -> None:
    """One bad line of a request does not keep the others out, in order; the file of the refused says why."""
    events = numbered(250)
    path = tmp_path / "events.ndjson"
    lines = [json.dumps(event) for event in events]
    lines[100:100] = ["not JSON", "[1]"]
    path.write_text("\n".join(lines))
    async with running() as ingress:
        report = await backfill(path, ingress)
        assert devices(ingress) == [event["IMEI"] for event in events]
    assert (report.accepted, report.refused) == (250, 2)
    assert report.refused_file is not None
    refused = read_lines(report.refused_file)
    assert [(line["number"], line["status"], line["event"]) for line in refused] == [
        (101, 400, "not JSON"),
        (102, 400, "[1]"),
    ]


async def test_an_ingress_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """A 503 is tried again; nothing is skipped."""
    path = tmp_path / "events.ndjson"
    path.write_text("\n".join(map(json.dumps, numbered(10))))
    async with running() as ingress:
        ingress.publisher.away = "away for a moment"
        asyncio.get_running_loop().call_later(0.5, setattr, ingress.publisher, "away", None)
        assert (await backfill(path, ingress)).accepted == 10
        assert len(ingress.publisher.records) == 10


async def test_a_token_is_required_as_of_any_sender(tmp_path: Path) -> None:
    """Without it the answer's 401 is one message; with it the events carry the sender's name."""
    path = tmp_path / "events.ndjson"
    path.write_text(json.dumps(EVENT))
    async with running(ingress_tokens="history a-token-of-16-characters") as ingress:
        with pytest.raises(OperatorError, match="401"):
            await backfill(path, ingress)
        await backfill(path, ingress, headers={"Authorization": "Bearer a-token-of-16-characters"})
        (record,) = ingress.publisher.records
        assert dict(record.headers)["sender"] == b"history"


@pytest.mark.parametrize(
    "scheme",
    [
        {"ingress_verifier": "hmac-sha256", "ingress_signature_header": "X-Mac"},
        {"ingress_verifier": "hmac-sha256", "ingress_signature_encoding": "base64"},
        {"ingress_verifier": "standard-webhooks"},
    ],
    ids=["hmac-sha256", "base64", "standard-webhooks"],
)
async def test_a_signature_is_required_as_of_any_sender(tmp_path: Path, scheme: dict[str, str]) -> None:
    """With the ingress's scheme and a secret of the file, the events carry the secret's name; no other name is one."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(json.dumps(EVENT).encode() + b"\n\xff")
    secrets = tmp_path / "secrets"
    secrets.write_text("Zmlyc3Qgc2VjcmV0 name=live\nc2Vjb25kIHNlY3JldA== name=history\n")
    of_both = settings(**scheme, ingress_signature_secrets_file=secrets, ingress_drain_s=0)
    async with running(of_both) as ingress:
        with pytest.raises(OperatorError, match="not signed") as caught:
            await backfill(path, ingress)
        assert "EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE" in caught.value.remedy
        assert (await backfill(path, ingress, sign=signer(of_both, "history"))).refused == 1
        (record,) = ingress.publisher.records
        assert dict(record.headers)["sender"] == b"history"
    with pytest.raises(OperatorError, match="no signature secret is called other"):
        signer(of_both, "other")
    assert signer(settings(), None) is None


def test_the_command_signs_with_the_secret_of_the_settings(tmp_path: Path) -> None:
    """A name without a scheme, or a scheme without a secret, is one message before anything is sent."""
    path = tmp_path / "events.ndjson"
    path.write_text(json.dumps(EVENT))
    for environ, arguments, what in (
        ({}, ["--sign-as", "live"], "--sign-as live needs the scheme: set EVENTPUSH_INGRESS_VERIFIER"),
        ({"EVENTPUSH_INGRESS_VERIFIER": "hmac-sha256"}, [], "EVENTPUSH_INGRESS_VERIFIER=hmac-sha256 has no secret"),
    ):
        result = CliRunner(env=environ).invoke(cli, ["backfill", str(path), *arguments])
        assert what in result.output


async def test_the_rate_is_bounded(tmp_path: Path) -> None:
    """The last event of 20 at 40 a second is not sent before 0.4 s have passed."""
    path = tmp_path / "events.ndjson"
    path.write_text("\n".join(map(json.dumps, numbered(20))))
    async with running() as ingress:
        began_s = asyncio.get_running_loop().time()
        await backfill(path, ingress, rate=40.0)
        assert asyncio.get_running_loop().time() - began_s > 0.39


async def test_a_file_is_sent_once_unless_it_is_asked_for_again(tmp_path: Path) -> None:
    """A second run sends nothing; --restart sends all; a changed file is not taken for the same."""
    path = tmp_path / "events.ndjson"
    path.write_text("\n".join(map(json.dumps, numbered(5))))
    async with running() as ingress:
        assert (await backfill(path, ingress)).sent == 5
        assert (await backfill(path, ingress)).sent == 0
        assert (await backfill(path, ingress, restart=True)).sent == 5
        path.write_text("\n".join(map(json.dumps, numbered(6))))
        with pytest.raises(OperatorError, match="has changed"):
            await backfill(path, ingress)
        assert len(ingress.publisher.records) == 10


async def test_a_killed_backfill_goes_on(tmp_path: Path) -> None:
    """After kill -9 it sends the rest: every event at least once, at most one request again, in order."""
    events = numbered(3_000)
    path = tmp_path / "events.ndjson"
    path.write_text("\n".join(map(json.dumps, events)))
    async with running() as ingress:
        url = f"http://127.0.0.1:{ingress.port}/api/events"
        environ = {**os.environ, "EVENTPUSH_DATA_DIR": str(tmp_path)}
        command = [sys.executable, "-m", "eventpush", "backfill", str(path), "--url", url, "--json"]
        killed = await asyncio.create_subprocess_exec(
            *command, "--rate", "2000", env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            while len(ingress.publisher.records) < 500:
                await asyncio.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        assert await killed.wait() == -signal.SIGKILL
        await killed.communicate()
        sent_before = len(ingress.publisher.records)
        assert sent_before < len(events)
        again = await asyncio.create_subprocess_exec(
            *command, "--rate", "100000", env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await asyncio.wait_for(again.communicate(), 60)
        assert again.returncode == 0, errors
        (report,) = json.loads(output)
        found = devices(ingress)
    assert (report["accepted"], report["refused"]) == (3_000, 0)
    assert list(dict.fromkeys(found)) == [event["IMEI"] for event in events]
    assert len(found) - len(events) <= 100
    assert report["sent"] == len(found) - sent_before
