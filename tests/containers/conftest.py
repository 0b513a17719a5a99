"""Fixtures of the drills. They need an engine and the images: `make containers` has both."""

from collections.abc import Callable

import pytest

from tests.containers.docker_cli import IMAGE, docker


@pytest.fixture(scope="session")
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Show what the run measured, a line at a time and at once: a run that is cut off has shown what it had."""
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert reporter is not None
    assert capture is not None

    def show(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"  {line}")

    return show


@pytest.fixture(scope="session", autouse=True)
def image() -> str:
    """The image under test."""
    if not docker("image", "ls", "--quiet", IMAGE):
        pytest.fail(f"this Docker Engine has no image {IMAGE}: run `make containers`")
    return IMAGE
