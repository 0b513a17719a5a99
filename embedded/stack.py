"""The whole pipeline on one machine: which processes there are, where they listen, in which order they start and stop.

    kafka, clickhouse ──> topics ──> sink, streams, ingress        stopped from right to left

`up` is `eventpush up`; `reset` removes what it left on disk.
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

from embedded import leftovers, preflight
from embedded.console import Say, say
from embedded.kafka import broker as brokers
from embedded.kafka.aot import ensure_cache
from embedded.kafka.config import Broker
from embedded.kafka.installation import Installation, install
from embedded.supervisor import Child, Place, Stage, Supervisor
from runtime import clickhouse_key, directories
from runtime.errors import Problem
from runtime.settings import Settings, variable
from runtime.topics_admin import ensure_topics

_ABOUT = "ABOUT.txt"
_ABOUT_TEXT = "Data of `eventpush up`: Kafka's topics, ClickHouse's tables, logs. `eventpush reset` removes it all.\n"
_HTTP_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Address:
    """A host and a port, and the setting that they come from."""

    use: str
    host: str
    port: int
    setting: str


def up(settings: Settings, say: Say = say) -> int:
    """
    Runs everything in the foreground until SIGINT, SIGTERM or SIGHUP; gives the exit status.

    Raises `Problem` for whatever keeps it from starting: another one runs, a port is taken, the disk is full or not
    writable, a download is refused, a jar has the wrong hash, there is no Java, a child never becomes ready.
    """
    began = time.monotonic()
    home = settings.data_dir.absolute()
    addresses = addresses_of(settings)
    _require_engine()
    for directory in (home, home / "run", home / "logs"):
        directories.require_writable(directory)
    preflight.require_space(home)
    with leftovers.only_one(home / "run", home), _interruptible():
        (home / _ABOUT).write_text(_ABOUT_TEXT)
        settings = _with_password(settings, home)
        for line in leftovers.stop_all(home / "run"):
            say(line)
        for address in addresses.values():
            remedy = f"stop what uses it, or choose another with {address.setting}"
            preflight.require_free_port(address.host, address.port, address.use, remedy)
        say(f"data in {home}, logs in {home / 'logs'}")
        broker = Broker(
            home / "kafka", addresses["kafka"].host, addresses["kafka"].port, addresses["controller"].port,
            retention_h=settings.topic_retention_h,
        )  # fmt: skip
        installation = install(settings.jars_dir or home / "jars", say)
        ensure_cache(installation, say)
        brokers.prepare(broker, installation, check_ports=False)
        stages = _stages(settings, broker, installation, addresses, say)
        asyncio.run(_run(stages, Place(home / "logs", home / "run", say), lambda: _announce(settings, say, began)))
    say("stopped")
    return 0


def reset(data_dir: Path) -> None:
    """Removes the data directory of `up`, after ending what is left running in it; raises `Problem` while `up` runs."""
    home = data_dir.absolute()
    if not home.exists():
        return
    if not (home / _ABOUT).exists():
        raise Problem(f"{home} was not made by `eventpush up`", "remove it yourself if nothing in it is needed")
    with leftovers.only_one(home / "run", home):
        leftovers.stop_all(home / "run")
        try:
            shutil.rmtree(home)
        except OSError as error:
            raise Problem(f"{home} cannot be removed ({error.strerror})", "remove it yourself") from None


def addresses_of(settings: Settings) -> dict[str, Address]:
    """Where everything will listen, by name; raises `Problem` for settings that name another machine's Kafka."""
    kafka = _address("Kafka", f"kafka://{settings.kafka_bootstrap}", "kafka_bootstrap")
    if settings.kafka_security_protocol != "PLAINTEXT":
        raise Problem(
            f"{variable('kafka_security_protocol')}={settings.kafka_security_protocol}, but the Kafka of `up` has none",
            "unset it; for a Kafka elsewhere run `eventpush ingress`, `streams` and `sink`",
        )
    controller = Address("Kafka's controller", kafka.host, kafka.port + 1, f"{kafka.setting} (its port plus one)")
    metrics = {
        name: Address(f"the {use}'s metrics", settings.metrics_host, getattr(settings, field), variable(field))
        for name, use, field in (
            ("ingress_metrics", "ingress", "ingress_metrics_port"),
            ("streams_metrics", "stream worker", "streams_metrics_port"),
            ("sink_metrics", "sink", "sink_metrics_port"),
        )
    }
    clickhouse = _address("ClickHouse", settings.clickhouse_url, "clickhouse_url")
    ingress = Address("the ingress", settings.ingress_host, settings.ingress_port, variable("ingress_port"))
    return {"kafka": kafka, "controller": controller, "clickhouse": clickhouse, "ingress": ingress, **metrics}


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables that give a process exactly these settings."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {variable(name): _text(value) for name, value in values.items() if value is not None}


async def http_ok(host: str, port: int, path: str) -> bool:
    """Whether a GET is answered with status 200."""
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
    settings: Settings, broker: Broker, installation: Installation, addresses: Mapping[str, Address], say: Say
) -> list[Stage]:
    env = environment(settings)

    async def kafka_ready() -> bool:
        return await brokers.brokers_up(broker.bootstrap) > 0

    async def topics() -> None:
        findings = await ensure_topics(settings)
        created = sum(finding.state == "created" for finding in findings)
        say(f"{len(findings)} topics are there" + (f", {created} of them new" if created else ""))

    clickhouse = addresses["clickhouse"]
    return [
        [
            Child("kafka", brokers.command(broker, installation), ready=kafka_ready, stop_timeout_s=20),
            Child(
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


def _service(name: str, metrics: Address, env: Mapping[str, str]) -> Child:
    command = [sys.executable, "-m", "eventpush", name]
    return Child(name, command, env, lambda: http_ok(metrics.host, metrics.port, "/readyz"), stop_timeout_s=20)


def _with_password(settings: Settings, home: Path) -> Settings:
    """The settings with ClickHouse's password: the one that is set, that of the last start, or a new one."""
    given = settings.clickhouse_password.get_secret_value()
    password = clickhouse_key.ensure(home, settings.clickhouse_user, given)
    return settings.model_copy(update={"clickhouse_password": SecretStr(password)})


def _clickhouse_command(settings: Settings, address: Address) -> list[str]:
    command = [sys.executable, "-m", "embedded.clickhouse", "--host", address.host, "--port", str(address.port)]
    command += ["--data-dir", str(settings.data_dir.absolute() / "clickhouse"), "--user", settings.clickhouse_user]
    if settings.clickhouse_password.get_secret_value():
        command += ["--password-from-env", variable("clickhouse_password")]
    return command


async def _run(stages: list[Stage], place: Place, on_ready: Callable[[], None]) -> None:
    supervisor = Supervisor(place)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    await supervisor.run(stages, on_ready)


def _announce(settings: Settings, say: Say, began: float) -> None:
    ingress = f"{'https' if settings.ingress_tls_cert_file else 'http'}://{_reachable(settings.ingress_host)}"
    metrics = (settings.ingress_metrics_port, settings.streams_metrics_port, settings.sink_metrics_port)
    say(
        f"\nready after {time.monotonic() - began:.1f} s\n"
        f"  events      POST {ingress}:{settings.ingress_port}/api/events\n"
        f"  Kafka       {settings.kafka_bootstrap}\n"
        f"  ClickHouse  {settings.clickhouse_url}, database telematics\n"
        f"  password    curl -H @{clickhouse_key.path(settings.data_dir)} {settings.clickhouse_url}\n"
        f"  metrics     {', '.join(f'http://{_reachable(settings.metrics_host)}:{port}/metrics' for port in metrics)}\n"
        "Ctrl-C stops everything; the data stays.\n"
    )


def _address(use: str, url: str, field: str) -> Address:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.hostname and parts.port and parts.scheme in {"kafka", "http"} and "," not in url:
            return Address(use, parts.hostname, parts.port, variable(field))
    raise Problem(
        f"{variable(field)}={url.removeprefix('kafka://')} is not one address that `up` can listen on",
        "set it to a host of this machine with a port, such as the default",
    )


def _require_engine() -> None:
    if importlib.util.find_spec("chdb") is None:
        raise Problem("chdb, the ClickHouse engine, is not installed", "install eventpush with its extra `embedded`")


def _reachable(host: str) -> str:
    """Where a server that listens on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the preparations as Ctrl-C does, so that nothing half done stays."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
