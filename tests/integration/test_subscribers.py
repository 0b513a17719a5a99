"""What a subscriber reads from a real Kafka: headers and values, with clients that share no code with ours."""

import itertools
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from schemas.contract import headers_schema, schemas
from schemas.event_types import TYPES
from schemas.sent_schema import example
from schemas.topics import EVENTS, of_type
from tests.browser import Browser, headless
from tests.integration.pipeline_support import until
from tests.integration.subscriber_fixture import (
    TRACEPARENT,
    Publisher,
    event_id,
    events_of_type,
    lines_of,
    publisher,
)
from tests.sse_proxy import StreamProxy, proxy_of
from tests.sse_reader import Message, SseReader
from tests.stack import ROOT
from tests.toolchain import require

__all__ = ["publisher"]


def test_records_of_every_type_keep_the_contract(publisher: Publisher) -> None:
    """Headers and value are valid by the contract of the type's topic and of that of all events."""
    for event in TYPES:
        publisher.post(example(event), traceparent=TRACEPARENT)
    for event in TYPES:
        (record,) = publisher.wait_for_records(of_type(event))
        value, headers = json.loads(record.value()), {name: text.decode() for name, text in record.headers()}
        for topic in (EVENTS, of_type(event)):
            Draft202012Validator(schemas()[topic], format_checker=FormatChecker()).validate(value)
            Draft202012Validator(headers_schema(topic), format_checker=FormatChecker()).validate(headers)
        assert (headers["ce_id"], headers["ce_time"]) == (value["event_id"], value["device_time"])
        assert headers["ce_subject"] == record.key().decode() == value["imei"]
        assert headers["traceparent"] == TRACEPARENT


def test_kcat_shows_the_headers(publisher: Publisher) -> None:
    """And the value, from topics with the default compression."""
    require("kcat", "kcat (apt-get install kcat)")
    publisher.post(example("sos"), traceparent=TRACEPARENT)
    topic = of_type("sos")
    publisher.wait_for_records(topic)
    kcat = ["kcat", "-C", "-q", "-b", publisher.bootstrap, "-t", topic, "-e", "-X", "isolation.level=read_committed"]
    (line,) = lines_of([*kcat, "-f", "%h %s\n"])
    headers, value = line.split(" ", 1)
    assert "ce_type=telematics.event.sos.v1" in headers.split(",")
    assert f"traceparent={TRACEPARENT}" in headers.split(",")
    assert f"ce_id={json.loads(value)['event_id']}" in headers.split(",")


def test_tail_chooses_records_and_shows_their_headers(publisher: Publisher) -> None:
    """By age and by an expression; as JSON with headers and as CSV; a wrong expression is refused before anything."""
    for event in ("sos", "overspeed"):
        publisher.post(example(event), traceparent=TRACEPARENT)
    where = 'severity == "critical" and event == "sos"'
    chosen = ("tail", "--since", "10m", "--where", where, "--max", "1", "--headers")
    shown = publisher.run(*chosen, "--json")
    found = json.loads(shown.stdout)
    assert (found["value"]["event"], found["headers"]["ce_type"]) == ("sos", of_type("sos"))
    heading, row = publisher.run(*chosen, "--csv").stdout.splitlines()
    assert (heading.split(",")[0], heading.split(",")[-1]) == ("event_id", "traceparent")
    assert row.split(",")[-1] == TRACEPARENT
    refused = publisher.run("tail", "--where", "severty == 1")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no field severty" in refused.stderr


@pytest.fixture(scope="module")
def stream(publisher: Publisher) -> Publisher:
    """The publisher with the event stream running."""
    publisher.start_event_stream()
    return publisher


def sse_metric(publisher: Publisher, name: str) -> float:
    """A metric of the event stream, from the port that serves it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{publisher.stream_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    (value,) = (line.split()[-1] for line in text.splitlines() if line.startswith(f"eventpush_sse_{name} "))
    return float(value)


def ids(messages: list[Message]) -> list[str]:
    """The ids of the events that were sent."""
    return [json.loads(message.data)["event_id"] for message in messages]


def test_a_client_of_the_event_stream_gets_each_event_once_though_it_reconnects(stream: Publisher) -> None:
    """It disconnects after each few events and resumes by Last-Event-ID; meanwhile a stream worker is killed."""
    warm_up, *events, last = events_of_type("sse_resume", 302)
    stream.post(warm_up)
    stream.wait_for_records(of_type("sse_resume"))  # the topic exists
    found = list[Message]()
    with SseReader(stream.stream_port, type="sse_resume") as reader:
        assert reader.response.headers["Content-Type"] == "text/event-stream"
        for number in range(3):
            stream.post(*events[number * 100 : number * 100 + 100])
            if number == 1:
                stream.replace_streams()
        found += itertools.islice(reader, 30)
    while len(found) < len(events):
        with SseReader(stream.stream_port, found[-1].last_id, type="sse_resume") as reader:
            found += itertools.islice(reader, min(90, len(events) - len(found)))
    assert len(ids(found)) == len(set(ids(found)))
    assert set(ids(found)) == {event_id(sent) for sent in events}
    with SseReader(stream.stream_port, found[-1].last_id, type="sse_resume") as reader:
        stream.post(last)  # nothing was left over
        assert ids(list(itertools.islice(reader, 1))) == [event_id(last)]


def test_a_slow_client_is_disconnected_and_another_gets_every_event(stream: Publisher) -> None:
    """The one that takes nothing is dropped with a reason in the metrics; the pipeline and the other do not wait."""
    events = [event | {"Note": "x" * 100_000} for event in events_of_type("sse_slow", 60)]
    found = list[Message]()

    def read(reader: SseReader) -> None:
        found.extend(itertools.islice(reader, len(events)))

    slow_before = sse_metric(stream, 'disconnects_total{reason="slow"}')
    where = 'event == "sse_slow"'
    with (
        SseReader(stream.stream_port, receive_bytes=4_096, where=where) as slow,
        SseReader(stream.stream_port, where=where) as quick,
    ):
        assert slow.response.status == 200
        until(lambda: sse_metric(stream, "clients") == 2 or None, "two clients: those before have left")
        thread = threading.Thread(target=read, args=(quick,))
        thread.start()
        for n in range(0, len(events), 5):
            stream.post(*events[n : n + 5])
        thread.join(60)
        assert set(ids(found)) == {event_id(sent) for sent in events}
        until(lambda: sse_metric(stream, 'disconnects_total{reason="slow"}') > slow_before or None, "disconnected")


@pytest.mark.parametrize(
    ("options", "status", "why"),
    [
        ({"token": "wrong"}, 401, "unknown or expired bearer token"),
        ({"where": "severty == 1"}, 400, "no field severty"),
        ({"type": "never_seen"}, 404, "has no topic telematics.event.never_seen.v1"),
        ({"last_id": "999999-0-0-0"}, 410, "partition 0 does not have the events after Last-Event-ID"),
    ],
)
def test_the_event_stream_refuses_with_a_reason(
    stream: Publisher, options: dict[str, Any], status: int, why: str
) -> None:
    """A wrong token, a wrong filter, a type that never came, an id that Kafka does not have."""
    with SseReader(stream.stream_port, **options) as reader:
        assert reader.response.status == status
        assert why in reader.response.read().decode()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, or the tests are skipped."""
    with headless() as found:
        yield found


@dataclass
class Page:
    """The page of docs/subscribers.md in the browser, and events of the type that it shows."""

    browser: Browser
    proxy: StreamProxy
    events: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """What the page shows, the newest first."""
        found: list[str] = self.browser.run(f"return {_LINES}")
        return found

    def wait_for(self, count: int) -> None:
        """Wait until the page shows this many events."""
        self.browser.until(f"return {_LINES}.length >= {count}", f"{count} events on the page")


_LINES = "[...document.querySelectorAll('#alarms li')].map(item => item.innerText)"


@pytest.fixture
def page(browser: Browser, stream: Publisher, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page behind its proxy, open and connected; its type's first event came before."""
    warm_up, *events = events_of_type(request.param, 401)
    stream.post(warm_up)
    stream.wait_for_records(of_type(request.param))
    subscribers = (ROOT / "docs" / "subscribers.md").read_text()
    (text,) = re.findall(r"^```html\n(.*?)^```$", subscribers, re.MULTILINE | re.DOTALL)
    with proxy_of(stream.stream_port, text.replace("type=sos", f"type={request.param}")) as proxy:
        browser.driver.get(proxy.url)
        browser.until("return events.readyState === EventSource.OPEN", "the connection of the page")
        yield Page(browser, proxy, events)
        browser.driver.get("about:blank")


def as_shown(events: list[dict[str, Any]]) -> list[str]:
    """The lines of the page for these events, sorted."""
    times = (datetime.strptime(event["Device_Time"], "%Y-%m-%dT%H:%M:%S.%f%z") for event in events)
    texts = (f"{time:%Y-%m-%dT%H:%M:%S.%fZ}" for time in times)
    return sorted(f"{text} {event['IMEI']}" for text, event in zip(texts, events, strict=True))


@pytest.mark.parametrize("page", ["sse_open"], indirect=True)
def test_a_page_shows_an_event_that_is_published_while_it_is_open(page: Page, stream: Publisher) -> None:
    """With the browser's own EventSource, without a reload, and nothing that was there before."""
    event = page.events[:1]
    stream.post(*event)
    page.wait_for(1)
    assert page.lines() == as_shown(event)
    assert page.browser.errors() == []


@pytest.mark.parametrize("page", ["sse_resumed"], indirect=True)
def test_a_page_resumes_by_itself_and_shows_each_event_once(page: Page, stream: Publisher) -> None:
    """The connection breaks at work, then the event stream is replaced; the browser sends Last-Event-ID on its own."""
    for begin in range(0, 300, 100):
        stream.post(*page.events[begin : begin + 50])
        page.wait_for(begin + 1)
        page.proxy.cut()
        stream.post(*page.events[begin + 50 : begin + 100])
    page.wait_for(300)
    stream.stop_event_stream()
    stream.post(*page.events[300:])
    until(lambda: page.proxy.unanswered or None, "the browser tries again")
    stream.start_event_stream()
    page.wait_for(len(page.events))
    assert sorted(page.lines()) == as_shown(page.events)
    assert len(page.proxy.resumed_at) >= 4
