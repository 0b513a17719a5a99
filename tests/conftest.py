"""Fixtures for all tests: `kafka_bootstrap` and `clickhouse_url`, started once a session when a test asks for them."""

from collections.abc import Iterator

import hypothesis
import pytest

from tests import stack

# Time is no claim of these tests: a busy machine fails no example.
hypothesis.settings.register_profile("eventpush", deadline=None)
# `make soak` asks for this one; tests with a number of their own take it in proportion.
hypothesis.settings.register_profile("soak", deadline=None, max_examples=5_000)
hypothesis.settings.load_profile("eventpush")

_DOCKER_PROBLEM = pytest.StashKey[str | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        choices=("embedded", "containers"),
        default="embedded",
        help="what Kafka and ClickHouse run on: processes of this machine, or the official images (needs Docker)",
    )


def pytest_configure(config: pytest.Config) -> None:
    asked = config.getoption("--stack") == "containers"
    config.stash[_DOCKER_PROBLEM] = stack.docker_problem() if asked else "not asked for with --stack=containers"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Said at the end, where it is seen with -q too."""
    problem = config.stash[_DOCKER_PROBLEM]
    if config.getoption("--stack") == "containers":
        used = f"embedded, because no Docker engine answers ({problem})" if problem else "containers"
        terminalreporter.write_line(f"stack: {used}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the drills in containers, unless -m asks for them."""
    if "containers" not in config.option.markexpr:
        drills = [item for item in items if item.get_closest_marker("containers") is not None]
        config.hook.pytest_deselected(items=drills)
        items[:] = [item for item in items if item not in drills]


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where Kafka is, `host:port`: one broker for the whole session, to share, not to stop."""
    if request.config.stash[_DOCKER_PROBLEM] is None:
        with stack.kafka_container() as bootstrap:
            yield bootstrap
        return
    kafka = stack.Kafka.at(tmp_path_factory.mktemp("kafka"))
    kafka.start()
    yield kafka.bootstrap
    kafka.end_if_running()


@pytest.fixture(scope="session")
def clickhouse_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where ClickHouse is, `http://host:port`: one for the whole session, to share, not to stop."""
    if request.config.stash[_DOCKER_PROBLEM] is None:
        with stack.clickhouse_container() as url:
            yield url
        return
    clickhouse = stack.ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    clickhouse.start()
    yield clickhouse.url
    clickhouse.end_if_running()
