"""A hostile sender that invents event types: neither topics nor memory grow without end."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.platform.settings import Settings
from schemas import topics
from streams import type_topics
from streams.type_topics import TypeTopics


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the topics that were made, in a Kafka that has none of types before."""
    names: list[str] = []

    async def existing() -> list[str]:
        return [topics.RAW, *names]

    @contextlib.asynccontextmanager
    async def admin(_settings: Settings) -> AsyncIterator[Any]:
        yield SimpleNamespace(list_topics=existing)

    async def create(_client: Any, _settings: Settings, wanted: Sequence[topics.Topic]) -> None:
        names.extend(topic.name for topic in wanted)

    monkeypatch.setattr(type_topics, "admin", admin)
    monkeypatch.setattr(type_topics, "create", create)
    return names


async def test_topics_are_bounded(made: list[str]) -> None:
    """The first types get topics of their own, up to the bound; all further ones share `other`."""
    routes = TypeTopics(Settings.model_validate({"event_topics_max": 10}))
    await routes.start()
    invented = [f"type {number}" for number in range(1_000)]
    for event in invented:
        await routes.ensure([event])
    assert made == [topics.of_type(event) for event in invented[:10]]
    assert {routes.route(event) for event in invented[10:]} == {topics.OTHER}


async def test_routes_are_bounded_and_those_of_the_batch_are_there(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of invented types is forgotten at a bound, and a batch's own types are routed all the same."""
    monkeypatch.setattr(type_topics, "_ROUTES_MAX", 100)
    routes = TypeTopics(Settings.model_validate({"event_topics_max": 10}))
    await routes.start()
    for number in range(500):
        await routes.ensure(["sos", f"type {number}"])
        assert routes.route("sos") == topics.of_type("sos")
        assert len(routes._routes) <= 102
