"""The topics of event types: which topic a type's events go to, made when the type is first seen, up to a bound."""

from collections.abc import Iterable

import structlog

from runtime.kafka.topic_admin import admin, create
from runtime.platform.settings import Settings
from schemas import topics

log = structlog.get_logger()

_ROUTES_MAX = 100_000


class TypeTopics:
    """The router from event types to topics that exist."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._existing: set[str] = set()
        self._routes: dict[str, str] = {}

    async def start(self) -> None:
        """See which topics there are."""
        async with admin(self._settings) as client:
            self._existing = {name for name in await client.list_topics() if topics.is_of_type(name)}

    def route(self, event: str) -> str:
        """Return the topic of an event type for which `ensure` has been awaited."""
        return self._routes[event]

    async def ensure(self, events: Iterable[str]) -> None:
        """Make the topics of types that have none yet; past the bound, types share the topic `other`."""
        if len(self._routes) > _ROUTES_MAX:  # a hostile sender invents types: the memory of them is bounded
            self._routes.clear()
        unseen = {event for event in events if event not in self._routes}
        if not unseen:
            return
        wanted = {topics.of_type(event) for event in unseen} - self._existing
        room = max(0, self._settings.event_topics_max - len(self._existing))
        new = sorted(wanted)[:room]
        if new:
            await self._create(new)
        for event in unseen:
            topic = topics.of_type(event)
            self._routes[event] = topic if topic in self._existing else topics.OTHER

    async def _create(self, names: list[str]) -> None:
        async with admin(self._settings) as client:
            await create(client, self._settings, [topics.type_topic(name) for name in names])
        self._existing.update(names)
        log.info("topics made for new event types", topics=names)
