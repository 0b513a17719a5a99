"""The console in a real browser, before the real stack under load."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from embedded import preflight
from tests.browser import Browser, headless
from tests.integration.pipeline_support import Pipeline, eventpush, until
from tests.integration.quiet import assert_quiet
from tests.stack import ROOT, ClickHouse, Kafka

PAGES = ("/", "/map", "/find", "/dead-letters", "/senders")
MARKUP = "<img src=x onerror=window.pwned=1>"
SAMPLE: dict[str, Any] = {
    "Event": "overspeed",
    "Changes": 50,
    "Device_Time": "2024-06-28T17:52:13.000000+0000",
    "IMEI": "350612075195931",
    "Server_Time": "2024-06-28T18:49:45.000000+0000",
    "Coordinates": "22.927968,75.533275",
    "Location": "Indore",
}
TOKEN = "the-operators-token"
#: Where a page has numbers that grow while the fleet sends: events on the map, open letters, accepted events.
GROWING = {
    "/map": ("[role=status]", "of the newest ([0-9,]+) events"),
    "/dead-letters": ("tbody td:nth-child(4)", "([0-9,]+)"),
    "/senders": ("tbody td:nth-child(2)", "([0-9,]+)"),
}


@dataclass
class Stack:
    """The pipeline, what it runs on, and a console."""

    kafka: Kafka
    clickhouse: ClickHouse
    pipeline: Pipeline
    url: str
    console: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with headless() as found:
        yield found


@pytest.fixture(scope="module")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, because tests end its Kafka and ClickHouse; a fleet sends for the whole time."""
    home = tmp_path_factory.mktemp("console")
    kafka, clickhouse = Kafka.at(home / "kafka"), ClickHouse(home / "clickhouse")
    pipeline = Pipeline(kafka.bootstrap, clickhouse.url, home)
    [port] = preflight.free_ports(1)
    pipeline.environ |= {"EVENTPUSH_CONSOLE_PORT": str(port), "EVENTPUSH_CONSOLE_TOKEN": TOKEN}
    pipeline.environ["EVENTPUSH_INGRESS_BODY_TIMEOUT_S"] = "1"  # completeness lags by it
    (home / "devices.csv").write_text(f"imei,vehicle,fleet,driver\n{SAMPLE['IMEI']},{MARKUP}v,{MARKUP}f,{MARKUP}d\n")
    console = fleet = None
    try:
        kafka.start()
        clickhouse.start()
        pipeline.start()
        loaded = pipeline.run("devices", "load", str(home / "devices.csv"))
        assert loaded.returncode == 0, loaded.stderr
        console = _start(pipeline, home / "console.log", "console")
        url = f"http://127.0.0.1:{port}"
        until(lambda: _status(f"{url}/healthz") == 200 or None, "the console answers")
        arguments = ("simulate", "--devices", "100", "--rate", "50", "--duration", "600")
        fleet = _start(pipeline, home / "fleet.log", *arguments)
        yield Stack(kafka, clickhouse, pipeline, url, console)
        console.send_signal(signal.SIGTERM)
        assert console.wait(30) == 0
        assert_quiet(home / "console.log")
    finally:
        for process in (console, fleet):
            if process is not None:
                process.kill()
                process.wait()
        pipeline.kill()
        kafka.end_if_running()
        clickhouse.end_if_running()


def _start(pipeline: Pipeline, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EVENTPUSH_")}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "eventpush", *arguments],
            env=environ | pipeline.environ, cwd=ROOT, stdout=output, stderr=output,
        )  # fmt: skip


def _status(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})  # noqa: S310 - http, ours
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def test_the_overview_shows_the_flow(stack: Stack, browser: Browser) -> None:
    """Under load every stage is healthy and has a rate; complete-through moves on; the account closes."""
    browser.open(f"{stack.url}/")
    browser.until_text("Every stage is healthy.", "accepted events are accounted for")
    rate = "return [...document.querySelectorAll('.node .number')].every(e => parseFloat(e.innerText) > 0)"
    browser.until(rate, "six rates above zero")
    through = (
        "return [...document.querySelectorAll('dt')].find(e => e.innerText == 'Complete through').nextSibling.innerText"
    )
    browser.until(f"return (() => {{ {through} }})().startsWith('20')", "complete through a moment")
    before = browser.run(through)
    browser.until(f"return (() => {{ {through} }})() > {before!r}", f"complete through a later moment than {before}")
    assert browser.errors() == []


def test_markup_in_every_field_stays_text(stack: Stack, browser: Browser) -> None:
    """A sender who writes markup into every field sees it shown as text on every page; no script of it runs."""
    valid = SAMPLE | {
        "Event": f"{MARKUP}e", "Location": f"{MARKUP}l", "Geofence_Name": f"{MARKUP}g", "Unknown": f"{MARKUP}u",
    }  # fmt: skip
    receipt = stack.pipeline.post(valid)
    stack.pipeline.post({name: f"{MARKUP}{name}" for name in SAMPLE} | {f"{MARKUP}name": MARKUP})
    row = stack.pipeline.row(f"receipt_id = '{receipt}'")
    stack.pipeline.row(f"imei = '{MARKUP}IMEI'", "telematics.dead_letters")

    browser.open(f"{stack.url}/find?q={receipt}")
    browser.until_text(
        "1 record found", "The event in ClickHouse", f"{MARKUP}l", f"{MARKUP}g", f"{MARKUP}v", f"{MARKUP}d"
    )
    assert row["vehicle"] == f"{MARKUP}v"
    _no_markup(browser)
    browser.open(f"{stack.url}/find?q=%3Cscript%3Ewindow.pwned%3D1%3C/script%3E{MARKUP.replace(' ', '%20')}")
    browser.until_text("is neither a receipt nor an event_id")
    _no_markup(browser)
    browser.open(f"{stack.url}/dead-letters")
    group = "[...document.querySelectorAll('tr')].find(row => /bad_format\\s+IMEI/.test(row.innerText))"
    browser.until(f"return {group}", "the group")
    browser.run(f"{group}.querySelector('button').click()")
    browser.until_text(f"{MARKUP}IMEI")
    browser.run("[...document.querySelectorAll('button.event')].find(e => e.innerText.includes('onerror')).click()")
    browser.until_text("Broken rule", f"{MARKUP}Device_Time", f"{MARKUP}name")
    _no_markup(browser)
    browser.open(f"{stack.url}/map")
    browser.until_text("Latest in view")
    browser.until("return [...document.querySelectorAll('.q-select input')].length", "filters")
    browser.find('input[aria-label="Fleet"]').click()
    browser.until_text(f"{MARKUP}f")
    browser.run("[...document.querySelectorAll('.q-item')].find(e => e.innerText.includes('onerror')).click()")
    browser.find("body").send_keys(Keys.ESCAPE)
    browser.until_text("1 of the newest")
    browser.find("button.event").send_keys(Keys.ENTER)
    browser.until_text(f"{MARKUP}d", "Trace this event")
    _no_markup(browser)
    browser.open(f"{stack.url}/senders")
    browser.until_text("(not named)")
    _no_markup(browser)


def _no_markup(browser: Browser) -> None:
    assert browser.run("return [window.pwned ?? null, document.querySelectorAll('img[src=x]').length]") == [None, 0]
    assert browser.errors() == []


def test_an_event_is_found(stack: Stack, browser: Browser) -> None:
    """The trace of a receipt is a timeline; an IMEI without a time asks for one; nothing found is said."""
    receipt = stack.pipeline.post(SAMPLE | {"Event": "sos", "Device_Time": "2024-06-28T02:14:00.000000+0000"})
    stack.pipeline.row(f"receipt_id = '{receipt}'")
    browser.open(f"{stack.url}/find")
    field = browser.find("input[type=text]")
    field.send_keys(receipt + Keys.ENTER)
    browser.until_text("1 record found", "telematics.raw.v1 partition", "inserted into telematics.events")
    assert browser.run("return document.querySelectorAll('.timeline li').length") >= 5
    field.send_keys(Keys.CONTROL + "a")
    field.send_keys(SAMPLE["IMEI"] + Keys.ENTER)
    browser.until_text("An IMEI needs a time")
    assert browser.errors() == []


def test_a_dead_letter_is_repaired_and_replayed(stack: Stack, browser: Browser) -> None:
    """A repair is tried without sending; only the operator's token replays it; then the letter is resolved."""
    imei = "490154203237518"
    stack.pipeline.post(SAMPLE | {"IMEI": imei, "Device_Time": 1719597133})
    stack.pipeline.row(f"imei = '{imei}'", "telematics.dead_letters")
    browser.open(f"{stack.url}/dead-letters")
    row = "[...document.querySelectorAll('tr')].find(r => /wrong_type\\s+Device_Time/.test(r.innerText))"
    browser.until(f"return {row}", "the group")
    browser.run(f"{row}.querySelector('button').click()")
    letter = f"[...document.querySelectorAll('button.event')].find(e => e.innerText.includes('{imei}'))"
    browser.until(f"return {letter}", "the letter")
    browser.run(f"{letter}.click()")
    browser.click("Repair …")
    browser.find('input[aria-label="Field or regular expression"]').send_keys("Device_Time")
    browser.click("Try it: send nothing")
    browser.until_text("1 valid", "Keeps every rule", "2024-06-28T17:52:13")
    token = browser.find('input[aria-label="The operator\'s token"]')
    token.send_keys("guessed" + Keys.ENTER)
    browser.until_text("That is not the operator's token.")
    assert stack.pipeline.select(f"SELECT count() AS n FROM telematics.events WHERE imei = '{imei}'") == [{"n": 0}]
    token.send_keys(Keys.CONTROL + "a")
    token.send_keys(TOKEN + Keys.ENTER)
    browser.until_text("1 selected, 1 sent, 1 events")
    stack.pipeline.row(f"imei = '{imei}'")
    assert browser.errors() == []


@pytest.mark.parametrize("path", GROWING)
def test_a_page_keeps_up_with_the_fleet(stack: Stack, browser: Browser, path: str) -> None:
    """Map, dead letters and senders show more and more while they are open, without an error."""
    selector, pattern = GROWING[path]
    total = (
        f"[...document.querySelectorAll({selector!r})].map(e => e.innerText.match(/{pattern}/))"
        ".reduce((sum, found) => sum + Number(found ? found[1].replaceAll(',', '') : 0), 0)"
    )
    browser.open(f"{stack.url}{path}")
    before = browser.until(f"return {total}", "a number")
    browser.until(f"return {total} > {before}", f"more than {before}")
    assert browser.errors() == []


def test_an_event_of_the_fleet_is_found_while_it_sends(stack: Stack, browser: Browser) -> None:
    """By its link on the map: the trace follows it to its row."""
    browser.open(f"{stack.url}/map")
    browser.find(".latest button.event").click()
    link = browser.find(".dialog a")
    stack.pipeline.row(f"event_id = '{(link.get_attribute('href') or '').rpartition('=')[2]}'")
    link.send_keys(Keys.ENTER)  # the dialog may still be moving
    browser.until_text("telematics.raw.v1 partition", "inserted into telematics.events")
    assert browser.errors() == []


def test_kafka_and_clickhouse_away(stack: Stack, browser: Browser) -> None:
    """The pages say what is away, keep answering, and recover by themselves; so does a page that stays open."""
    kafka = f"Kafka at {stack.kafka.bootstrap} does not answer"
    clickhouse = f"ClickHouse at {stack.clickhouse.url} does not answer"
    browser.open(f"{stack.url}/")
    browser.until_text("Every stage is healthy.")
    stack.kafka.end(signal.SIGKILL)
    stack.clickhouse.end(signal.SIGKILL)
    browser.until_text(kafka, clickhouse)
    for path in PAGES:
        assert _status(f"{stack.url}{path}") == 200
    browser.open(f"{stack.url}/senders")
    browser.until_text(clickhouse)
    browser.open(f"{stack.url}/")
    browser.until_text(kafka, clickhouse)
    stack.kafka.start()
    stack.clickhouse.start()
    away = f"return ![{kafka!r}, {clickhouse!r}].some(part => document.body.innerText.includes(part))"
    browser.until(away, "Kafka and ClickHouse are back")
    browser.open(f"{stack.url}/senders")
    browser.until_text("(not named)")


def test_beyond_this_machine_it_needs_a_token(tmp_path: Path) -> None:
    """Without a token it does not start, and one line says why."""
    environ = {"EVENTPUSH_CONSOLE_HOST": "0.0.0.0", "EVENTPUSH_DATA_DIR": str(tmp_path)}  # noqa: S104 - refused
    refused = eventpush(environ, "console")
    assert refused.returncode == 1
    assert "EVENTPUSH_CONSOLE_HOST=0.0.0.0 is reached from other machines" in refused.stderr
    assert refused.stderr.count("\n") == 1
