"""Runbook drills: for each page the fault is made and seen where the alert looks, and the page's commands repair it."""

import json
import os
import re
import shlex
import signal
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedded import preflight
from eventpush.console.metric_samples import Scrape, parse
from tests.integration.pipeline_support import Pipeline, clean_environ, post, until
from tests.integration.test_pipeline import SAMPLE, settled
from tests.stack import ROOT, ClickHouse, Kafka

SERVICES = ("ingress", "streams", "sink")
TOKEN = "token-of-fleet-f"
REPLIES = "eventpush_ingress_replies_total"
REPLAYED = 500  # letters: several pages of a replay
BURST = 11_000  # more than EventpushStreamsFallBehind tolerates


@dataclass
class Site:
    """A pipeline, its Kafka and its ClickHouse; the drills play the service manager, and restart what has ended."""

    pipeline: Pipeline
    kafka: Kafka
    clickhouse: ClickHouse

    def run_page(self, alert: str, **variables: str) -> str:
        """Run each command of a page as it stands there, then what `check` names beyond it; what they print."""
        page = (ROOT / "docs" / "runbooks" / f"{alert}.md").read_text()
        (block,) = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        printed = "".join(self.run(string.Template(line).substitute(variables)) for line in block.splitlines())
        remedies = [command for command in re.findall(r"run `(eventpush \w+)`", printed) if command not in block]
        return printed + "".join(map(self.run, remedies))

    def run(self, command: str) -> str:
        """Run one command line of a page; what it prints. Services are started, and stay."""
        words = shlex.split(command, comments=True)
        environ = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environ[name] = value
        program, *arguments = words
        if program == "systemctl":
            self.manage(*arguments)
            return ""
        assert program == "eventpush", command
        if arguments[0] in SERVICES:
            self.pipeline.start_process(arguments[0], **environ)
            return ""
        done = self.pipeline.run(*arguments)
        return done.stdout + done.stderr

    def manage(self, verb: str, unit: str) -> None:
        """Start or restart a unit, as `systemctl` does."""
        if unit == "kafka":
            if verb == "restart":
                self.kafka.end(signal.SIGKILL)
            self.kafka.start()
            return
        service = unit.removeprefix("eventpush-")
        if verb == "restart":
            self.kill(service)
        self.pipeline.start_process(service)

    def kill(self, service: str) -> None:
        """End a service with kill -9."""
        process = self.pipeline.processes.pop(service)
        process.kill()
        assert process.wait() == -signal.SIGKILL

    def restart_ended(self) -> None:
        """Start again what has ended by itself, as `Restart=always` does."""
        for name, process in list(self.pipeline.processes.items()):
            if process.poll() is not None:
                self.pipeline.start_process(name)

    def scrape(self, service: str) -> Scrape | None:
        """What Prometheus reads from a service; None if it does not answer, which is `up == 0`."""
        port = self.pipeline.environ[f"EVENTPUSH_{service.upper()}_METRICS_PORT"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                return parse(answer.read().decode(), time.monotonic())
        except OSError:
            return None

    def total(self, service: str, name: str, **labels: str) -> float:
        """The sum of a metric's samples, once the service answers."""
        return until(lambda: self.scrape(service), f"metrics of {service}").total(name, **labels)

    def status_of(self, event: dict[str, Any], token: str = TOKEN) -> int:
        """The status of a request with this event; 0 without an answer."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        try:
            with post(self.pipeline.url, json.dumps(event).encode(), headers) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def accepted(self, event: dict[str, Any]) -> None:
        """Send an event until it is accepted, as a sender does."""

        def sent() -> bool | None:
            self.restart_ended()
            return self.status_of(event) == 200 or None

        until(sent, "an event is accepted")

    def well(self) -> None:
        """Wait until `eventpush check` finds nothing, all events have their outcome, and the account closes."""

        def found_nothing() -> bool | None:
            self.restart_ended()
            found = json.loads(self.pipeline.run("check", "--json").stdout)
            return all(finding["state"] == "ok" for finding in found) or None

        until(found_nothing, f"all is well (logs in {self.pipeline.home})")
        settled(self.pipeline)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all drills: each leaves it well."""
    home = tmp_path_factory.mktemp("runbooks")
    kafka, clickhouse = Kafka.at(home / "kafka"), ClickHouse(home / "clickhouse")
    pipeline = Pipeline(kafka.bootstrap, clickhouse.url, home)
    tokens = home / "tokens"
    tokens.write_text(f"fleet-f {TOKEN}\nfleet-b token-that-has-expired until=2026-01-01\n")
    pipeline.environ["EVENTPUSH_INGRESS_TOKENS_FILE"] = str(tokens)
    pipeline.headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        kafka.start()
        clickhouse.start()
        pipeline.start()
        yield Site(pipeline, kafka, clickhouse)
    finally:
        pipeline.kill()
        kafka.end_if_running()
        clickhouse.end_if_running()


def event(number: int, **fields: Any) -> dict[str, Any]:
    """The sample of another device."""
    return SAMPLE | {"IMEI": f"{350612077000000 + number}"} | fields


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "alert"),
    [
        ("ingress", "EventpushIngressDown"),
        ("streams", "EventpushStreamsDown"),
        ("sink", "EventpushSinkDown"),
    ],
    ids=SERVICES,
)
def test_a_service_that_is_down(site: Site, service: str, alert: str) -> None:
    """Nothing answers on its metrics port, and `check` says so; started as the page says, it goes on."""
    sent = event(1 + SERVICES.index(service))
    site.kill(service)
    assert site.scrape(service) is None
    assert site.status_of(sent) == (0 if service == "ingress" else 200)
    printed = site.run_page(alert)
    assert re.search(rf"^warning +{service} +nothing answers", printed, re.MULTILINE), printed
    site.accepted(sent)
    site.pipeline.row(f"imei = '{sent['IMEI']}'")
    assert until(lambda: site.scrape(service), f"{service} is up")
    settled(site.pipeline)


def test_a_service_that_restarts_often(site: Site) -> None:
    """Four starts within minutes; the page's commands show that all is well since, and that nothing is missing."""
    started = set()
    for number in range(4):
        site.kill("sink")
        site.pipeline.post(event(10 + number))
        site.pipeline.start_process("sink")
        started.add(site.total("sink", "process_start_time_seconds"))
    assert len(started) == 4
    site.well()
    printed = site.run_page("EventpushRestartsOften")
    assert not re.search("^(failed|warning)", printed, re.MULTILINE), printed
    assert re.search(r"^all \d+ accepted .*are accounted for$", printed, re.MULTILINE), printed


def test_a_worker_that_stands_still(site: Site) -> None:
    """Events are accepted and none is committed: `check` and the account name the stage; restarted, it goes on."""
    accepted = site.total("ingress", "eventpush_ingress_events_total")
    site.pipeline.processes["streams"].send_signal(signal.SIGSTOP)
    sent = event(20)
    site.pipeline.post(sent)
    assert site.total("ingress", "eventpush_ingress_events_total") == accepted + 1
    printed = site.run_page("EventpushStreamsStalled")
    assert re.search("^failed +streams +no answer", printed, re.MULTILINE), printed
    assert "in flight: 1 to be processed" in printed
    site.pipeline.row(f"imei = '{sent['IMEI']}'")
    settled(site.pipeline)


def test_workers_that_fall_behind(site: Site) -> None:
    """More is accepted than is processed, by more than 10,000; with one more worker everything is."""
    site.kill("streams")
    accepted = site.total("ingress", "eventpush_ingress_events_total")
    headers = {"Content-Type": "application/json"} | site.pipeline.headers
    for first in range(0, BURST, 1_000):
        events = [event(100_000 + first + number) for number in range(1_000)]
        post(site.pipeline.url, json.dumps(events).encode(), headers).close()
    assert site.total("ingress", "eventpush_ingress_events_total") - accepted == BURST > 10_000
    assert in_flight(site) == BURST
    site.pipeline.start_process("streams")
    first_worker = site.pipeline.processes.pop("streams")
    (port,) = preflight.free_ports(1)
    site.run_page("EventpushStreamsFallBehind", PORT=str(port))
    second_worker = site.pipeline.processes["streams"]
    settled(site.pipeline)
    assert site.pipeline.select("SELECT count() AS n FROM telematics.events WHERE imei LIKE '3506120771%'") == [
        {"n": BURST}
    ]
    second_worker.send_signal(signal.SIGTERM)
    assert second_worker.wait(30) == 0
    site.pipeline.processes["streams"] = first_worker
    site.well()


def in_flight(site: Site) -> int:
    """How many events the account says are to be processed."""
    return int(json.loads(site.pipeline.run("account", "--json").stdout)["in_flight"]["streams"])


# --- Kafka ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alert", ["EventpushIngressKafkaAway", "EventpushAcceptanceBurnsFast", "EventpushAcceptanceBurnsSlowly"]
)
def test_brokers_that_are_away(site: Site, alert: str) -> None:
    """No ingress is connected, and answers are 503, which uses the error budget; with the brokers started none is."""
    before = site.total("ingress", REPLIES, status="503")
    site.kafka.end(signal.SIGKILL)
    assert site.status_of(event(30)) == 503
    until(lambda: site.total("ingress", "eventpush_ingress_kafka_up") == 0 or None, "the ingress has noticed")
    assert site.status_of(event(30)) == 503
    assert site.total("ingress", REPLIES, status="503") == before + 2
    printed = site.run_page(alert)
    assert re.search("^failed +kafka .*start it", printed, re.MULTILINE), printed
    assert printed.splitlines()[-1].endswith(": unchanged"), printed  # `eventpush topics` finds all of them again
    site.accepted(event(31))
    assert site.total("ingress", "eventpush_ingress_kafka_up") == 1
    site.well()  # what has been started again needs the processors no more
    refused = site.total("ingress", REPLIES, status="503")
    assert [site.status_of(event(32 + number)) for number in range(10)] == [200] * 10
    assert site.total("ingress", REPLIES, status="503") == refused
    site.well()


def test_a_broker_that_is_slow(site: Site) -> None:
    """One that stops for a second delays the answer; `check` gets none from it, and restarted it is quick again."""
    before, quick = acknowledged(site)
    with ThreadPoolExecutor(1) as senders:
        os.kill(site.kafka.pid, signal.SIGSTOP)
        answer = senders.submit(site.status_of, event(50))
        time.sleep(1.25)  # how long the fault lasts: above the alert's second, below what the ingress waits
        os.kill(site.kafka.pid, signal.SIGCONT)
        assert answer.result() == 200
    assert acknowledged(site) == (before + 1, quick)
    os.kill(site.kafka.pid, signal.SIGSTOP)
    printed = site.run_page("EventpushAcknowledgementSlow")
    assert re.search("^failed +kafka +no answer", printed, re.MULTILINE), printed
    site.accepted(event(51))
    site.well()
    before, quick = acknowledged(site)
    site.pipeline.post(event(52))
    assert acknowledged(site) == (before + 1, quick + 1)


def acknowledged(site: Site) -> tuple[float, float]:
    """How many answers there were, and how many of them came within a second."""
    name = "eventpush_ingress_acknowledge_seconds"
    return site.total("ingress", f"{name}_count"), site.total("ingress", f"{name}_bucket", le="1.0")


# --- ClickHouse -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alert",
    ["EventpushSinkStalled", "EventpushInsertsFail", "EventpushFreshnessBurnsFast", "EventpushFreshnessBurnsSlowly"],
)
def test_a_schema_that_is_behind(site: Site, alert: str) -> None:
    """Inserts fail and are retried, records wait, and complete-through stands; the page's commands add the column."""
    step = "name = 'replays of dead letters'"
    for change in (
        "telematics.dead_letters_store DROP COLUMN attempt",
        f"telematics.schema_migrations DELETE WHERE {step}",
    ):
        site.pipeline.execute(f"ALTER TABLE {change} SETTINGS mutations_sync = 2")
    retries, rows = sink_counts(site)
    receipt = site.pipeline.post(event(60, Changes="many", Location=alert))
    until(lambda: sink_counts(site)[0] > retries or None, "a failed insert")
    stands_at_s = complete_through(site)
    retries, rows_then = sink_counts(site)
    until(lambda: sink_counts(site)[0] > retries or None, "another one")
    assert (complete_through(site), rows_then) == (stands_at_s, rows)
    printed = site.run_page(alert)
    assert re.search("^failed +schema .*run `eventpush migrate`", printed, re.MULTILINE), printed
    site.pipeline.row(f"receipt_id = '{receipt}'", "telematics.dead_letters")
    until(lambda: (complete_through(site) > stands_at_s and sink_counts(site)[1] > rows) or None, "rows are stored")
    settled(site.pipeline)


def sink_counts(site: Site) -> tuple[float, float]:
    """How many inserts of dead letters were retried, and how many rows are stored."""
    names = ("eventpush_sink_retries_total", "eventpush_sink_rows_total")
    retries, rows = (site.total("sink", name, table="dead_letters") for name in names)
    return retries, rows


def complete_through(site: Site) -> float:
    """Up to which arrival everything is stored, in seconds since the epoch."""
    scrape = until(lambda: site.scrape("sink"), "metrics of the sink")
    return min(scrape.samples["eventpush_sink_complete_through_seconds"].values())


def test_rows_that_clickhouse_refuses(site: Site) -> None:
    """Somebody added a constraint: the dead letters show it, `check` names it and the statement that drops it."""
    store = "telematics.events_store"
    site.pipeline.execute(f"ALTER TABLE {store} ADD CONSTRAINT no_poison CHECK changes != 666")
    refused = site.total("sink", "eventpush_sink_refused_total", table="events")
    receipt = site.pipeline.post(event(70, Changes=666))
    site.pipeline.row(f"receipt_id = '{receipt}' AND stage = 'sink'", "telematics.dead_letters")
    assert site.total("sink", "eventpush_sink_refused_total", table="events") == refused + 1
    printed = site.run_page("EventpushClickHouseRefusesRows")
    assert re.search(r"^1 +\d{4}-\d\d-\d\d ", printed, re.MULTILINE), printed
    (statement,) = re.findall(r"^failed +schema .*`(ALTER TABLE [^`]*)`", printed, re.MULTILINE)
    site.pipeline.execute(statement)
    receipt = site.pipeline.post(event(71, Changes=666))
    site.pipeline.row(f"receipt_id = '{receipt}'")
    assert site.total("sink", "eventpush_sink_refused_total", table="events") == refused + 1
    site.well()


# --- senders ----------------------------------------------------------------------------------------------------------


def test_a_sender_whose_token_has_expired(site: Site) -> None:
    """More than 5 % of the requests are answered 401; with the token that the page's command makes, none is."""
    unauthorized = {"status": "401", "reason": "unauthorized"}
    refused = site.total("ingress", REPLIES, **unauthorized)
    assert {site.status_of(event(80), "token-that-has-expired") for _ in range(20)} == {401}
    assert site.total("ingress", REPLIES, **unauthorized) == refused + 20
    printed = site.run_page("EventpushSenderIsWrong", SENDER="fleet-b")
    (token,) = re.findall("Bearer (.+)", printed)
    (line,) = re.findall("_TOKENS_FILE: +(.+)", printed)
    with Path(site.pipeline.environ["EVENTPUSH_INGRESS_TOKENS_FILE"]).open("a") as file:
        file.write(f"{line}\n")
    until(lambda: site.status_of(event(81), token) == 200 or None, "the new token is known")
    refused = site.total("ingress", REPLIES, **unauthorized)
    assert {site.status_of(event(82), token) for _ in range(20)} == {200}
    assert site.total("ingress", REPLIES, **unauthorized) == refused
    assert site.pipeline.row(f"imei = '{event(81)['IMEI']}'")["sender"] == "fleet-b"


def test_a_sender_that_changes_its_time_format(site: Site) -> None:
    """More than 5 % of the events are dead-lettered; the page's commands, as they are, make events of them."""
    dead = {"outcome": "dead_lettered"}
    before = site.total("streams", "eventpush_streams_events_total", **dead)
    for number in range(20):
        site.pipeline.post(event(200 + number, Device_Time="2024-06-28 17:52:13"))
    query = "SELECT count() AS letters FROM telematics.dead_letters WHERE imei LIKE '3506120770002%' AND"
    until(lambda: site.pipeline.select(f"{query} attempt = 0") == [{"letters": 20}] or None, "20 dead letters")
    assert site.total("streams", "eventpush_streams_events_total", **dead) == before + 20
    assert "fleet-f" in site.run_page("EventpushManyDeadLetters")
    assert site.pipeline.select(f"{query} resolved_by_event_id IS NOT NULL") == [{"letters": 20}]
    settled(site.pipeline)


def test_a_replay_whose_workers_are_killed(site: Site) -> None:
    """Stages end with kill -9 while a replay goes through them: the account closes at each moment, nothing is lost."""
    headers = {"Content-Type": "application/json"} | site.pipeline.headers
    letters = [event(4_000 + number, Device_Time="2024-06-28 17:52:13") for number in range(REPLAYED)]
    post(site.pipeline.url, json.dumps(letters).encode(), headers).close()
    query = "SELECT count() AS letters FROM telematics.dead_letters WHERE imei LIKE '350612077004%'"
    until(lambda: site.pipeline.select(query) == [{"letters": REPLAYED}] or None, "the letters")
    repair = ("--field", "Device_Time", "--cast", "Device_Time", "--cast", "Server_Time")
    with subprocess.Popen(
        [sys.executable, "-m", "eventpush", "dead-letters", "replay", *repair],
        env=clean_environ(site.pipeline.environ), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as replay:  # fmt: skip
        assert replay.stderr is not None
        assert "has begun" in replay.stderr.readline()
        for service in ("streams", "sink", "streams"):
            site.kill(service)
            site.pipeline.start_process(service)
            account = site.pipeline.run("account", "--json")
            assert (account.returncode, json.loads(account.stdout)["discrepancies"]) == (0, []), account
        printed, _ = replay.communicate(timeout=120)
    assert replay.returncode == 0, printed
    assert f"{REPLAYED} are events now" in printed
    settled(site.pipeline)


def test_an_emergency_that_is_dead_lettered(site: Site) -> None:
    """An SOS with a broken time reaches its subscribers through the page's commands, with its first arrival."""
    emergencies = {"category": "emergency", "reason": "wrong_type"}
    before = site.total("streams", "eventpush_streams_dead_letters_total", **emergencies)
    receipt = site.pipeline.post(event(300, Event="sos", Changes=1, Device_Time=1719597133))
    letter = site.pipeline.row(f"receipt_id = '{receipt}'", "telematics.dead_letters")
    assert site.total("streams", "eventpush_streams_dead_letters_total", **emergencies) == before + 1
    printed = site.run_page("EventpushEmergencyDeadLettered", LETTER=letter["dead_letter_id"])
    assert "^ wrong_type" in printed
    row = site.pipeline.row(f"receipt_id = '{receipt}'")
    assert (row["event"], row["received_at"]) == ("sos", letter["received_at"])
    assert [message["event_id"] for message in site.pipeline.messages("sos", count=1)] == [row["event_id"]]
