"""The whole pipeline on one machine: its processes, their addresses, and the order in which they start and stop.

    kafka, clickhouse ──> topics ──> sink, streams, ingress ──ready──> console        stopped from right to left

`up` is `eventpush up`; `reset` removes its data from disk.
"""

import asyncio
import importlib.util
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from pydantic import SecretStr

from embedded import orphans, preflight
from embedded.kafka import broker as brokers
from embedded.kafka.aot import ensure_cache
from embedded.kafka.config import Broker
from embedded.kafka.installation import Installation, install
from embedded.supervisor import ChildSpec, Stage, Supervisor, SupervisorContext
from embedded.terminal_output import LineWriter, print_line
from runtime.kafka.raw_gate import GrowingError
from runtime.kafka.topic_admin import Finding, ensure_topics
from runtime.platform import clickhouse_key, directories
from runtime.platform.errors import OperatorError
from runtime.platform.secret_files import clickhouse_password, ensure_erasure_key
from runtime.platform.settings import Settings, variable

_ABOUT = "ABOUT.txt"
_ABOUT_TEXT = "Data of `eventpush up`: Kafka's topics, ClickHouse's tables, logs. `eventpush reset` removes it all.\n"
_HTTP_TIMEOUT_S = 2.0
_GROWING_PAUSE_S = 2.0


@dataclass(frozen=True)
class ListenAddress:
    """A host and port to listen on, and the setting that they come from."""

    use: str
    host: str
    port: int
    setting: str


def up(settings: Settings, write_line: LineWriter = print_line) -> int:
    """Run everything in the foreground until SIGINT, SIGTERM or SIGHUP; return the exit status.

    Raise `OperatorError` if it cannot start: another instance runs, a port is in use, the disk is full or not
    writable, a download fails, a jar has the wrong hash, there is no Java, or a child never becomes ready.
    """
    began = time.monotonic()
    home = settings.data_dir.absolute()
    addresses = addresses_of(settings)
    _require_engine()
    for directory in (home, home / "run", home / "logs"):
        directories.require_writable(directory)
    preflight.require_space(home)
    with orphans.exclusive_lock(home / "run", home), _interruptible():
        (home / _ABOUT).write_text(_ABOUT_TEXT)
        settings = _with_secrets(settings, home)
        for line in orphans.stop_all(home / "run"):
            write_line(line)
        for address in addresses.values():
            remedy = f"stop the process that uses it, or choose another port with {address.setting}"
            preflight.require_free_port(address.host, address.port, address.use, remedy)
        write_line(f"data in {home}, logs in {home / 'logs'}")
        broker = Broker(
            home / "kafka", addresses["kafka"].host, addresses["kafka"].port, addresses["controller"].port,
            retention_h=settings.topic_retention_h,
        )  # fmt: skip
        installation = install(settings.jars_dir or home / "jars", write_line)
        ensure_cache(installation, write_line)
        brokers.prepare(broker, installation, check_ports=False)
        stages = _stages(settings, broker, installation, addresses, write_line)
        context = SupervisorContext(home / "logs", home / "run", write_line)
        extras = [*_console(settings), *_event_stream(settings)]
        asyncio.run(_run(stages, extras, context, lambda: _announce(settings, write_line, began)))
    write_line("stopped")
    return 0


def reset(data_dir: Path) -> None:
    """Stop orphans of `up` and remove its data directory; raise `OperatorError` while `up` runs."""
    home = data_dir.absolute()
    if not home.exists():
        return
    if not (home / _ABOUT).exists():
        raise OperatorError(f"{home} was not made by `eventpush up`", "remove it yourself if its data is not needed")
    with orphans.exclusive_lock(home / "run", home):
        orphans.stop_all(home / "run")
        try:
            shutil.rmtree(home)
        except OSError as error:
            raise OperatorError(f"{home} cannot be removed ({error.strerror})", "remove it yourself") from None


def addresses_of(settings: Settings) -> dict[str, ListenAddress]:
    """Return all listen addresses, by name; raise `OperatorError` if the settings name another machine's Kafka."""
    kafka = _address("Kafka", f"kafka://{settings.kafka_bootstrap}", "kafka_bootstrap")
    if settings.kafka_security_protocol != "PLAINTEXT":
        raise OperatorError(
            f"{variable('kafka_security_protocol')}={settings.kafka_security_protocol}, "
            "but the Kafka of `up` supports only PLAINTEXT",
            "unset it; for another Kafka run `eventpush ingress`, `streams` and `sink`",
        )
    controller = ListenAddress("Kafka's controller", kafka.host, kafka.port + 1, f"{kafka.setting} (its port plus one)")
    metrics = {
        name: ListenAddress(f"the {use}'s metrics", settings.metrics_host, getattr(settings, field), variable(field))
        for name, use, field in (
            ("ingress_metrics", "ingress", "ingress_metrics_port"),
            ("streams_metrics", "stream worker", "streams_metrics_port"),
            ("sink_metrics", "sink", "sink_metrics_port"),
        )
    }
    clickhouse = _address("ClickHouse", settings.clickhouse_url, "clickhouse_url")
    ingress = ListenAddress("the ingress", settings.ingress_host, settings.ingress_port, variable("ingress_port"))
    found = {"kafka": kafka, "controller": controller, "clickhouse": clickhouse, "ingress": ingress, **metrics}
    if _has_console():
        console = ListenAddress("the console", settings.console_host, settings.console_port, variable("console_port"))
        found["console"] = console
    if _has_event_stream(settings):
        found["sse"] = ListenAddress("the event stream", settings.metrics_host, settings.sse_port, variable("sse_port"))
    return found


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables that give a process exactly these settings."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {variable(name): _text(value) for name, value in values.items() if value is not None}


async def http_ok(host: str, port: int, path: str) -> bool:
    """Return whether a GET is answered with status 200."""
    try:
        async with asyncio.timeout(_HTTP_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(_reachable(host), port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _stages(
    settings: Settings,
    broker: Broker,
    installation: Installation,
    addresses: Mapping[str, ListenAddress],
    write_line: LineWriter,
) -> list[Stage]:
    env = environment(settings)

    async def kafka_ready() -> bool:
        return await brokers.brokers_up(broker.bootstrap) > 0

    async def topics() -> None:
        findings = await _topics_at_rest(settings, write_line)
        created = sum(finding.state == "created" for finding in findings)
        write_line(f"{len(findings)} topics exist" + (f", {created} of them new" if created else ""))

    clickhouse = addresses["clickhouse"]
    return [
        [
            ChildSpec("kafka", brokers.command(broker, installation), ready=kafka_ready, stop_timeout_s=20),
            ChildSpec(
                "clickhouse",
                _clickhouse_command(settings, clickhouse),
                env,
                lambda: http_ok(clickhouse.host, clickhouse.port, "/ping"),
                stop_timeout_s=20,
            ),
        ],
        topics,
        [_service(name, addresses[f"{name}_metrics"], env) for name in ("sink", "streams", "ingress")],
    ]


async def _topics_at_rest(settings: Settings, write_line: LineWriter) -> list[Finding]:
    """Create and check the topics; while they grow, wait: the growth can only go on if this Kafka runs."""
    is_said = False
    while True:
        try:
            return await ensure_topics(settings)
        except GrowingError as problem:
            if not is_said:
                write_line(str(problem))
                is_said = True
        await asyncio.sleep(_GROWING_PAUSE_S)


def _service(name: str, metrics: ListenAddress, env: Mapping[str, str]) -> ChildSpec:
    command = [sys.executable, "-m", "eventpush", name]
    return ChildSpec(name, command, env, lambda: http_ok(metrics.host, metrics.port, "/readyz"), stop_timeout_s=20)


def _console(settings: Settings) -> list[ChildSpec]:
    """Return the console, which starts once the rest is ready; none if its extra is not installed."""
    if not _has_console():
        return []
    command = [sys.executable, "-m", "eventpush", "console"]
    host, port = settings.console_host, settings.console_port
    return [ChildSpec("console", command, environment(settings), lambda: http_ok(host, port, "/healthz"))]


def _event_stream(settings: Settings) -> list[ChildSpec]:
    """Return the event stream, which starts beside the console; none without a token for it."""
    if not _has_event_stream(settings):
        return []
    command = [sys.executable, "-m", "eventpush", "sse"]
    host, port = settings.metrics_host, settings.sse_port
    return [ChildSpec("sse", command, environment(settings), lambda: http_ok(host, port, "/readyz"))]


def _has_event_stream(settings: Settings) -> bool:
    return bool(settings.sse_tokens or settings.sse_tokens_file)


def _has_console() -> bool:
    return importlib.util.find_spec("nicegui") is not None


def _with_secrets(settings: Settings, home: Path) -> Settings:
    """Make the secrets; return the settings with ClickHouse's: the one that is set, of the last start, or new."""
    ensure_erasure_key(settings)
    password = clickhouse_key.ensure(home, settings.clickhouse_user, clickhouse_password(settings))
    return settings.model_copy(update={"clickhouse_password": SecretStr(password), "clickhouse_password_file": None})


def _clickhouse_command(settings: Settings, address: ListenAddress) -> list[str]:
    command = [sys.executable, "-m", "embedded.clickhouse", "--host", address.host, "--port", str(address.port)]
    command += ["--data-dir", str(settings.data_dir.absolute() / "clickhouse"), "--user", settings.clickhouse_user]
    if settings.clickhouse_password.get_secret_value():
        command += ["--password-from-env", variable("clickhouse_password")]
    return command


async def _run(
    stages: list[Stage], extras: list[ChildSpec], context: SupervisorContext, on_ready: Callable[[], None]
) -> None:
    supervisor = Supervisor(context)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    await supervisor.run(stages, on_ready, extras)


def _announce(settings: Settings, write_line: LineWriter, began: float) -> None:
    ingress = f"{'https' if settings.ingress_tls_cert_file else 'http'}://{_reachable(settings.ingress_host)}"
    metrics = (settings.ingress_metrics_port, settings.streams_metrics_port, settings.sink_metrics_port)
    address = f"http://{_reachable(settings.console_host)}:{settings.console_port}"
    console = f"  console     {address}\n" if _has_console() else ""
    stream = f"http://{_reachable(settings.metrics_host)}:{settings.sse_port}/events/stream"
    stream = f"  stream      {stream}\n" if _has_event_stream(settings) else ""
    write_line(
        f"\nready after {time.monotonic() - began:.1f} s\n"
        f"  events      POST {ingress}:{settings.ingress_port}/api/events\n"
        f"  Kafka       {settings.kafka_bootstrap}\n"
        f"  ClickHouse  {settings.clickhouse_url}, database telematics\n"
        f"  password    curl -H @{clickhouse_key.path(settings.data_dir)} {settings.clickhouse_url}\n"
        f"{console}{stream}"
        f"  metrics     {', '.join(f'http://{_reachable(settings.metrics_host)}:{port}/metrics' for port in metrics)}\n"
        "Ctrl-C stops everything; the data stays.\n"
    )


def _address(use: str, url: str, field: str) -> ListenAddress:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.hostname and parts.port and parts.scheme in {"kafka", "http"} and "," not in url:
            return ListenAddress(use, parts.hostname, parts.port, variable(field))
    raise OperatorError(
        f"{variable(field)}={url.removeprefix('kafka://')} is not one address that `up` can listen on",
        "set it to one host of this machine with a port, such as the default",
    )


def _require_engine() -> None:
    if importlib.util.find_spec("chdb") is None:
        raise OperatorError(
            "chdb, the ClickHouse engine, is not installed", "install eventpush with its extra `embedded`"
        )


def _reachable(host: str) -> str:
    """Return the host at which a server that listens on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP interrupt the preparations as Ctrl-C does, so that they clean up."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
