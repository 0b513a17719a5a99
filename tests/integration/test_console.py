"""The console in a real browser, before the real stack under load."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from selenium.webdriver.common.keys import Keys

from embedded import preflight
from eventpush.console.feed import CAPACITY
from schemas import topics
from tests.integration.browser import Browser, headless
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
GROWTH_MAX_BYTES = 24 * 1024 * 1024


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
    browser.find("button.link").click()
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
    browser.until_text("1 of the newest")
    browser.find("button.event").send_keys(Keys.ENTER)
    browser.until_text(f"{MARKUP}d", "Trace this event")
    _no_markup(browser)
    browser.open(f"{stack.url}/senders")
    browser.until_text("(not named)")
    _no_markup(browser)


def _no_markup(browser: Browser) -> None:
    assert browser.run("return [window.pwned, document.querySelectorAll('img[src=x]').length]") == [None, 0]
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
    _click(browser, "Repair …")
    browser.find('input[aria-label="Field or regular expression"]').send_keys("Device_Time")
    _click(browser, "Try it: send nothing")
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


def _click(browser: Browser, label: str) -> None:
    button = f"[...document.querySelectorAll('button')].find(e => e.innerText.trim() == {label!r})"
    browser.until(f"return {button}", label)
    browser.run(f"{button}.click()")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_every_screen_and_name_every_control(stack: Stack, browser: Browser, path: str, width: int) -> None:
    """Nothing needs scrolling sideways; every control has a name; the first Tab leads past the navigation."""
    browser.resize(width, 800)
    browser.open(f"{stack.url}{path}")
    browser.until("return document.querySelector('h1') && document.querySelectorAll('main').length == 1", "the page")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.unnamed() == []
    browser.run("document.activeElement.blur()")
    browser.find("body").send_keys(Keys.TAB)
    if path != "/find":  # which has its field in focus
        assert browser.run("return document.activeElement.innerText") == "Skip to content"
    assert browser.errors() == []


def test_the_theme_follows_the_system_and_the_button(stack: Stack, browser: Browser) -> None:
    """Dark if the system is; the button overrides it, and the next page remembers."""
    browser.resize(1280, 900)
    for scheme in ("dark", "light"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.open(f"{stack.url}/senders")
        browser.until(f"return document.body.classList.contains('body--{scheme}')", scheme)
    for theme in ("light", "dark"):
        browser.find("button.theme").click()
        browser.until(f"return document.body.innerText.includes('Theme: {theme}')", theme)
    browser.until("return document.cookie.includes('dark')", "the cookie")
    browser.open(f"{stack.url}/find")
    browser.until("return document.body.classList.contains('body--dark')", "dark")
    browser.driver.delete_all_cookies()


def test_other_sites_get_nothing(stack: Stack, browser: Browser) -> None:
    """A page of another origin can neither frame the console, nor read it, nor open its live connection."""
    for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Host": "evil.example"}):
        assert _status(f"{stack.url}/", **headers) == 403
    live = stack.url.replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    page = f"""<!doctype html><title>evil</title><iframe src="{stack.url}/"></iframe><script>
        const socket = new WebSocket("{live}"); window.outcome = "waiting";
        socket.onopen = () => window.outcome = "open"; socket.onerror = () => window.outcome = "refused";
        fetch("{stack.url}/").then(() => window.read = "read", () => window.read = "refused");</script>"""
    with _served(page) as address:
        browser.driver.get(address)
        browser.until("return window.outcome != 'waiting' && window.read", "an outcome")
        assert browser.run("return [window.outcome, window.read]") == ["refused", "refused"]
    browser.errors()  # the browser reports what it refused


class _served:  # noqa: N801 - reads as a function
    """Serve one page from another origin."""

    def __init__(self, page: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://localhost:{self._server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_memory_is_flat(stack: Stack, browser: Browser) -> None:
    """Pages that are opened and closed, under load, leave nothing behind in the console."""

    def visit(rounds: int) -> int:
        for _ in range(rounds):
            for path in PAGES:
                browser.open(f"{stack.url}{path}")
                browser.until("return document.querySelector('h1')", path)
        time.sleep(12)  # a page that was left is kept for ten seconds, in case its connection only broke
        return psutil.Process(stack.console.pid).memory_info().rss

    before = visit(3)
    after = visit(9)
    assert after - before < GROWTH_MAX_BYTES, f"{before:,} bytes before, {after:,} after 45 more pages"


def test_fifty_thousand_events_on_the_map(stack: Stack, browser: Browser) -> None:
    """They are clusters that open with the keyboard; the page answers all the time, and its markup stays small."""
    asyncio.run(_produce(stack.kafka.bootstrap, CAPACITY))
    browser.resize(1280, 900)
    browser.open(f"{stack.url}/map")
    browser.until_text(f"of the newest {CAPACITY:,} events are in view")
    browser.run("""window.longest = 0; let last = performance.now();
        (function tick() { const now = performance.now(); window.longest = Math.max(window.longest, now - last);
        last = now; requestAnimationFrame(tick); })();""")
    assert 1 < browser.until("return document.querySelectorAll('.cluster').length", "clusters") < 500
    first = browser.run("return [...document.querySelectorAll('.cluster')].map(e => e.ariaLabel).sort().join()")
    browser.find(".cluster").send_keys(Keys.ENTER)
    browser.until(
        f"return [...document.querySelectorAll('.cluster')].map(e => e.ariaLabel).sort().join() != {first!r}",
        "the zoom",
    )
    for _ in range(4):
        browser.find(".event-map").send_keys("-")
    browser.until_text(f"of the newest {CAPACITY:,} events are in view")
    print(f"longest frame: {browser.run('return window.longest'):.0f} ms")  # noqa: T201 - shown with -s
    assert browser.run("return document.querySelectorAll('*').length") < 3_000
    assert browser.errors() == []


async def _produce(bootstrap: str, count: int) -> None:
    """Write events all over the world straight to the topic: the map shows what the streams would publish."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=50) as producer:
        for at in range(count):
            event = {
                "event_id": f"{at:08x}-0000-0000-0000-000000000000", "event": "overspeed", "imei": f"{at:015d}",
                "device_time": "2026-11-26T02:14:00.000000Z", "severity": ("info", "warning", "critical")[at % 3],
                "latitude": (at * 7919 % 12_000) / 100 - 60, "longitude": (at * 104_729 % 36_000) / 100 - 180,
            }  # fmt: skip
            await producer.send(topics.EVENTS, json.dumps(event).encode(), partition=at % 4)


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
