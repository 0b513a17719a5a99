"""The console's pages in a real browser, with doubles for Kafka, ClickHouse and the stages."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from embedded import preflight
from eventpush.console.feed import CAPACITY
from tests.browser import Browser, headless
from tests.integration.quiet import assert_quiet
from tests.stack import ROOT
from tests.unit.console_process import EVENT_ID, MARKUP

PAGES = ("/", "/map", "/find", "/dead-letters", "/senders")
TOKEN = "the-operators-token"
READY_S = 60.0
GROWTH_MAX_BYTES = 16 * 1024 * 1024


@dataclass
class Console:
    """A running console, and the file that makes its sources away."""

    port: int
    away: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status(self, path: str = "/", **headers: str) -> int:
        """The status of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with headless() as found:
        yield found


@pytest.fixture(scope="module")
def console(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One console for all tests; it logs nothing above INFO, whatever they do."""
    home = tmp_path_factory.mktemp("console")
    [port] = preflight.free_ports(1)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EVENTPUSH_")}
    environ |= {"EVENTPUSH_CONSOLE_PORT": str(port), "EVENTPUSH_CONSOLE_TOKEN": TOKEN}
    away = home / "away"
    with (home / "log").open("wb") as log:
        command = [sys.executable, "-m", "tests.unit.console_process", str(away), str(CAPACITY)]
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=log)
    running = Console(port, away, process)
    try:
        deadline = time.monotonic() + READY_S
        while not _answers(running):
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, "the console does not answer"
            time.sleep(0.1)
        yield running
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert_quiet(home / "log")
    finally:
        process.kill()
        process.wait()


def _answers(console: Console) -> bool:
    try:
        return console.status("/healthz") == 200
    except OSError:
        return False


def no_markup(browser: Browser) -> None:
    """Nothing that a sender wrote has become an element or has run, and the browser reports no error."""
    assert browser.run("return [window.pwned ?? null, document.querySelectorAll('img[src=x]').length]") == [None, 0]
    assert browser.errors() == []


def test_the_overview_is_live(console: Console, browser: Browser) -> None:
    """Rates, what waits, the account; the figures move on without a reload."""
    browser.open(f"{console.url}/")
    browser.until_text("Every stage is healthy.", "100/s", "Waiting for sink", "Closed: all 12 accepted events")
    stored = "return document.querySelector('.node.clickhouse dd').innerText"
    before = browser.run(stored)
    browser.until(f"return document.querySelector('.node.clickhouse dd').innerText != {before!r}", "a newer count")
    assert browser.run("return performance.getEntriesByType('navigation').length") == 1
    no_markup(browser)


def test_markup_stays_text_on_the_map(console: Console, browser: Browser) -> None:
    """In filters, in the list, and in the event that a key opens."""
    browser.open(f"{console.url}/map")
    browser.find('input[aria-label="Fleet"]').click()
    browser.until_text(f"{MARKUP}fleet")
    browser.run("[...document.querySelectorAll('.q-item')].find(e => e.innerText.includes('onerror')).click()")
    browser.find("body").send_keys(Keys.ESCAPE)
    browser.until_text("1 of the newest", f"{MARKUP}event")
    browser.find(".cluster.single.critical").send_keys(Keys.ENTER)
    browser.until_text(
        f"{MARKUP}vehicle", f"{MARKUP}driver", f"{MARKUP}location", f"{MARKUP}sender", "Trace this event"
    )
    no_markup(browser)


def test_markup_stays_text_in_a_trace(console: Console, browser: Browser) -> None:
    """In every part of a trace, in the row, in what was asked for, and in the error of a command."""
    browser.open(f"{console.url}/find?q={EVENT_ID}")
    browser.until_text(*(f"{MARKUP}{part}" for part in ("summary", "detail", "note", "receipt", "sender", "location")))
    no_markup(browser)
    browser.open(f"{console.url}/find?q=%22%3E%3Cscript%3Ewindow.pwned%3D1%3C/script%3E&around=%3C/script%3E")
    browser.until_text("1 record found")
    no_markup(browser)
    browser.open(f"{console.url}/find")
    browser.find("input[type=text]").send_keys("none" + Keys.ENTER)
    browser.until_text(f"no trace of {MARKUP}none")
    no_markup(browser)


def test_markup_stays_text_in_dead_letters_and_senders(console: Console, browser: Browser) -> None:
    """In the groups, a letter's fields and payload, and the table of senders."""
    browser.open(f"{console.url}/dead-letters")
    browser.until_text(f"{MARKUP}f", f"{MARKUP}s")
    browser.find("button.link").click()
    browser.until_text(f"{MARKUP}e", f"{MARKUP}i")
    browser.find("button.event").click()
    browser.until_text("Broken rule", *(f"{MARKUP}{part}" for part in ("c: found", "name", "value", "receipt")))
    no_markup(browser)
    browser.open(f"{console.url}/senders")
    browser.until_text(f"{MARKUP}s", "(not named)", "7")
    no_markup(browser)


def test_a_replay_needs_the_token(console: Console, browser: Browser) -> None:
    """A wrong token is refused before anything runs; an incomplete repair says what is missing."""
    browser.open(f"{console.url}/dead-letters")
    browser.find("button.link").click()
    browser.click("Repair this group …")
    browser.click("Try it: send nothing")
    browser.until_text("name the field")
    token = browser.find('input[aria-label="The operator\'s token"]')
    token.send_keys("guessed" + Keys.ENTER)
    browser.until_text("That is not the operator's token.")
    no_markup(browser)


def test_the_focus_stays_while_figures_change(console: Console, browser: Browser) -> None:
    """What has the focus keeps it over a refresh: a page that is live can be used with the keyboard."""
    refreshed = (("/dead-letters", "button.link", 5.5), ("/map", "button.event", 1.5), ("/", ".account button", 1.5))
    for path, selector, wait_s in refreshed:
        browser.open(f"{console.url}{path}")
        browser.find(selector)
        browser.run("window.focused = document.querySelector(arguments[0]); window.focused.focus()", selector)
        time.sleep(wait_s)  # longer than the page's refresh
        assert browser.run("return document.activeElement === window.focused && window.focused.isConnected"), path
    no_markup(browser)


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_every_screen_and_name_every_control(
    console: Console, browser: Browser, path: str, width: int
) -> None:
    """Nothing needs scrolling sideways; every control has a name; the first Tab leads past the navigation."""
    browser.resize(width, 800)
    browser.open(f"{console.url}{path}")
    browser.until("return document.querySelector('h1') && document.querySelectorAll('main').length == 1", "the page")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.unnamed() == []
    browser.run("document.activeElement.blur()")
    browser.find("body").send_keys(Keys.TAB)
    if path != "/find":  # its field has the focus from the beginning
        assert browser.run("return document.activeElement.innerText") == "Skip to content"
    no_markup(browser)


def test_the_theme_follows_the_system_and_the_button(console: Console, browser: Browser) -> None:
    """Dark if the system is; the button overrides it, and the next page remembers."""
    browser.resize(1280, 900)
    for scheme in ("dark", "light"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.open(f"{console.url}/senders")
        browser.until(f"return document.body.classList.contains('body--{scheme}')", scheme)
    for theme in ("light", "dark"):
        browser.find("button.theme").click()
        browser.until_text(f"Theme: {theme}")
    browser.until("return document.cookie.includes('dark')", "the cookie")
    browser.open(f"{console.url}/find")
    browser.until("return document.body.classList.contains('body--dark')", "dark")
    browser.driver.delete_all_cookies()


def test_other_sites_get_nothing(console: Console, browser: Browser) -> None:
    """A page of another origin can neither frame the console, nor read it, nor open its live connection."""
    assert console.status() == 200
    for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Host": "evil.example"}):
        assert console.status(**headers) == 403
    live = console.url.replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    page = f"""<!doctype html><title>evil</title><iframe src="{console.url}/"></iframe><script>
        const socket = new WebSocket("{live}"); window.outcome = "waiting";
        socket.onopen = () => window.outcome = "open"; socket.onerror = () => window.outcome = "refused";
        fetch("{console.url}/").then(() => window.read = "read", () => window.read = "refused");</script>"""
    with served(page) as address:
        browser.driver.get(address)
        browser.until("return window.outcome != 'waiting' && window.read", "an outcome")
        assert browser.run("return [window.outcome, window.read]") == ["refused", "refused"]
    browser.errors()  # the browser reports what it refused


@contextmanager
def served(page: str) -> Iterator[str]:
    """Serve one page from another origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_what_is_away_is_said_until_it_is_back(console: Console, browser: Browser) -> None:
    """Pages that stay open say that Kafka and ClickHouse are away, and recover by themselves."""
    browser.open(f"{console.url}/")
    browser.until_text("Every stage is healthy.")
    console.away.touch()
    try:
        browser.until_text("Kafka at nowhere does not answer", "ClickHouse at nowhere does not answer")
        for path in PAGES:
            assert console.status(path) == 200
        browser.open(f"{console.url}/map")
        browser.until_text("Kafka at nowhere does not answer")
    finally:
        console.away.unlink()
    browser.until_text("events are in view")
    browser.open(f"{console.url}/")
    browser.until_text("Every stage is healthy.")
    no_markup(browser)


def test_fifty_thousand_events_on_the_map(console: Console, browser: Browser) -> None:
    """They are a few hundred clusters at most, which open with the keyboard; the page goes on answering."""
    browser.resize(1280, 900)
    browser.open(f"{console.url}/map")
    browser.until_text(f"of the newest {CAPACITY:,} events are in view")
    assert 1 < browser.until("return document.querySelectorAll('.cluster').length", "clusters") < 500
    counted = (
        "[...document.querySelectorAll('.cluster')].map(e => parseFloat(e.ariaLabel.replace(',', ''))).filter(Number)"
    )
    assert browser.run(f"return Math.max(...{counted})") > 100
    zoom = "document.querySelector('.event-map').__vue__?.zoom"
    labels = "[...document.querySelectorAll('.cluster')].map(e => e.ariaLabel).sort().join()"
    before = browser.run(f"return {labels}, {zoom}")
    browser.run("window.frames_ = 0; (function tick() { window.frames_ += 1; requestAnimationFrame(tick); })()")
    # The first cluster may lie beyond the map's edge: only one that is in view takes the focus and a key.
    browser.until(
        "const map = document.querySelector('.event-map').getBoundingClientRect();"
        "const shown = [...document.querySelectorAll('.cluster:not(.single)')].find(e => {"
        "  const r = e.getBoundingClientRect();"
        "  return r.left > map.left && r.right < map.right && r.top > map.top && r.bottom < map.bottom; });"
        "shown?.focus(); return shown != null && document.activeElement == shown",
        "a cluster in view",
    )
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    browser.until(f"return {labels} != {before!r}", "the clusters of the next zoom")
    frames = browser.run("return window.frames_")
    browser.until(f"return window.frames_ > {frames} + 10", "further frames")
    assert browser.run("return document.querySelectorAll('*').length") < 3_000
    no_markup(browser)


@pytest.mark.load
def test_memory_is_flat(console: Console, browser: Browser) -> None:
    """Pages that were opened and left leave nothing behind in the console."""

    def visit(rounds: int) -> int:
        for _ in range(rounds):
            for path in PAGES:
                browser.open(f"{console.url}{path}")
        time.sleep(12)  # a page that was left is kept for ten seconds, in case its connection only broke
        return int(psutil.Process(console.process.pid).memory_info().rss)

    before = visit(2)
    after = visit(8)
    assert after - before < GROWTH_MAX_BYTES, f"{before:,} bytes before, {after:,} after 40 more pages"
