"""Whether Kafka lets this user see its topics and groups."""

from collections.abc import Mapping

from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from eventpush.checking.result import Finding
from runtime.kafka.topic_admin import admin
from runtime.platform.settings import Settings
from schemas.topics import FIXED


async def check(settings: Settings) -> Finding:
    """Ask for each topic by its name, and for the groups' offsets."""
    names = [topic.name for topic in FIXED]
    refused = dict[str, str]()
    async with admin(settings) as client:
        for found in await client.describe_topics(names):
            if found["error_code"] == TopicAuthorizationFailedError.errno:
                refused[found["topic"]] = "topic"
        for group in (settings.streams_app_id, settings.sink_app_id):
            try:
                await client.list_consumer_group_offsets(group)
            except GroupAuthorizationFailedError:
                refused[group] = "group"
    return access_finding(refused, settings)


def access_finding(refused: Mapping[str, str], settings: Settings) -> Finding:
    """Say which topics and groups this user may not use, by what each is. Pure."""
    user = f"User:{settings.kafka_sasl_username or 'ANONYMOUS'}"
    if not refused:
        return "ok", f"{user} may use every topic and group"
    topics = any(kind == "topic" for kind in refused.values())
    resource = "--topic telematics. " if topics else f"--group {min(refused)} "
    operations = "--operation Read --operation Write" if topics else "--operation Read"
    named = ", ".join(f"{kind} {name}" for name, kind in sorted(refused.items()))
    return "failed", (
        f"{user} may not use {named}: an ACL is missing; run"
        f" `kafka-acls.sh --bootstrap-server {settings.kafka_bootstrap} --add --allow-principal {user} {operations}"
        f" {resource}--resource-pattern-type prefixed`"
    )
