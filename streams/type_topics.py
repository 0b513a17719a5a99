"""The topics of event types: which topic a type's events go to, made when the type is first seen, up to a bound."""

import asyncio
from collections.abc import Iterable

import structlog

from runtime.kafka.topic_admin import admin, create
from runtime.platform.settings import Settings
from schemas import topics

log = structlog.get_logger()

_ROUTES_MAX = 100_000
#: A broker needs milliseconds for each partition, and has some seconds to make what is asked for at once.
_PARTITIONS_AT_ONCE = 500


class TypeTopics:
    """The router from event types to topics that exist."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._existing: set[str] = set()
        self._routes: dict[str, str] = {}
        self._creating = asyncio.Lock()

    async def start(self) -> None:
        """See which topics there are."""
        async with admin(self._settings) as client:
            self._existing = {name for name in await client.list_topics() if topics.is_of_type(name)}

    def route(self, event: str) -> str:
        """Return the topic of an event type for which `ensure` has been awaited."""
        return self._routes[event]

    async def ensure(self, events: Iterable[str]) -> None:
        """Make the topics of types that have none yet; past the bound, types share the topic `other`."""
        of_batch = set(events)
        if of_batch <= self._routes.keys():
            return
        async with self._creating:  # partitions that see a type at the same time make its topic once
            if len(self._routes) > _ROUTES_MAX:  # a hostile sender invents types: the memory of them is bounded
                self._routes.clear()
            await self._create_missing({topics.of_type(event) for event in of_batch} - self._existing)
            for event in of_batch:
                topic = topics.of_type(event)
                self._routes[event] = topic if topic in self._existing else topics.OTHER

    async def _create_missing(self, wanted: set[str]) -> None:
        names = sorted(wanted)[: max(0, self._settings.event_topics_max - len(self._existing))]
        if not names:
            return
        at_once = max(1, _PARTITIONS_AT_ONCE // self._settings.topic_partitions)
        async with admin(self._settings) as client:
            for begin in range(0, len(names), at_once):
                some = names[begin : begin + at_once]
                await create(client, self._settings, [topics.type_topic(name) for name in some])
                self._existing.update(some)
                log.info("topics made for new event types", topics=some)
