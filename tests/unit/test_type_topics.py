"""A hostile sender that invents event types: neither topics nor memory grow without end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.platform.settings import Settings
from schemas import topics
from streams import type_topics
from streams.type_topics import TypeTopics


class Made(list[str]):
    """The names of the topics that were made, and how many in each request."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once: list[int] = []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """What was made in a Kafka that has no topics of types before."""
    names = Made()

    async def existing() -> list[str]:
        return [topics.RAW, *names]

    @contextlib.asynccontextmanager
    async def admin(_settings: Settings) -> AsyncIterator[Any]:
        yield SimpleNamespace(list_topics=existing)

    async def create(_client: Any, _settings: Settings, wanted: Sequence[topics.Topic]) -> None:
        await asyncio.sleep(0)
        names.extend(topic.name for topic in wanted)
        names.at_once.append(len(wanted))

    monkeypatch.setattr(type_topics, "admin", admin)
    monkeypatch.setattr(type_topics, "create", create)
    return names


async def test_topics_are_bounded(made: Made) -> None:
    """The first types get topics of their own, up to the bound; all further ones share `other`."""
    routes = TypeTopics(Settings.model_validate({"event_topics_max": 10}))
    await routes.start()
    invented = [f"type {number}" for number in range(1_000)]
    for event in invented:
        await routes.ensure([event])
    assert made == [topics.of_type(event) for event in invented[:10]]
    assert {routes.route(event) for event in invented[10:]} == {topics.OTHER}


async def test_routes_are_bounded_and_those_of_the_batch_are_there(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of invented types is forgotten at a bound, and a batch's own types are routed all the same."""
    monkeypatch.setattr(type_topics, "_ROUTES_MAX", 100)
    routes = TypeTopics(Settings.model_validate({"event_topics_max": 10}))
    await routes.start()
    for number in range(500):
        await routes.ensure(["sos", f"type {number}"])
        assert routes.route("sos") == topics.of_type("sos")
        assert len(routes._routes) <= 102


async def test_partitions_make_a_topic_once_and_not_too_many_at_a_time(made: Made) -> None:
    """Two partitions that see the same 150 types ask the broker for each topic once, some at a time."""
    routes = TypeTopics(Settings.model_validate({"topic_partitions": 64}))
    await routes.start()
    types = [f"type {number}" for number in range(150)]
    await asyncio.gather(routes.ensure(types), routes.ensure(types[::-1]))
    assert sorted(made) == sorted(topics.of_type(event) for event in types)
    assert {routes.route(event) for event in types} == set(made)
    assert max(made.at_once) * 64 <= 500
