"""Fixtures of the drills. They need an engine and the images: `make containers` has both."""

from collections.abc import Callable

import pytest

from tests.containers.docker_cli import IMAGE, docker

_FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if figures := config.stash[_FIGURES]:
        terminalreporter.section("measured")
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a line to what the run measured, which is shown at its end."""
    return request.config.stash[_FIGURES].append


@pytest.fixture(scope="session", autouse=True)
def image() -> str:
    """The image under test."""
    if not docker("image", "ls", "--quiet", IMAGE):
        pytest.fail(f"this Docker Engine has no image {IMAGE}: run `make containers`")
    return IMAGE
