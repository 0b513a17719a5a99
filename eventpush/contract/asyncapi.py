"""The AsyncAPI 3.1 document of the topics that subscribers read, with Kafka bindings."""

from importlib.metadata import version
from typing import Any

from runtime.kafka.topic_admin import configuration
from runtime.platform.settings import Settings
from schemas.contract import headers_schema, schemas
from schemas.topics import Topic, all_topics

_BINDING = "0.5.0"  # version of AsyncAPI's Kafka bindings
_IMEI = {"type": "string", "description": "IMEI of the reporting device, in ASCII"}
#: Of Kafka's own settings, those that the channel binding of AsyncAPI names as numbers.
_NUMBERS = ("retention.ms", "max.message.bytes")


def described_topics() -> list[Topic]:
    """Return the topics with a published schema, in the order of the registry."""
    described = schemas()
    return [topic for topic in all_topics() if topic.name in described]


def document(settings: Settings) -> dict[str, Any]:
    """Return the document: one channel, message and operation for each topic, configured as these settings say."""
    topics = described_topics()
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "eventpush",
            "version": version("eventpush"),
            "description": "Read with isolation.level=read_committed. Events and dead letters are compressed with "
            f"{settings.streams_compression}, raw events with {settings.ingress_compression}: every client reads gzip, "
            "for zstd some need another package. Ignore fields and headers that you do not know: a release may add "
            "some.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic, settings) for topic in topics},
        "operations": {
            f"publish {topic.name}": {"action": "send", "channel": {"$ref": f"#/channels/{topic.name}"}}
            for topic in topics
        },
    }


def _channel(topic: Topic, settings: Settings) -> dict[str, Any]:
    config = configuration(topic, settings)
    binding = {
        "topic": topic.name,
        "partitions": settings.topic_partitions,
        "replicas": settings.topic_replication_factor,
        "topicConfiguration": {
            "cleanup.policy": [config["cleanup.policy"]],
            **{name: int(config[name]) for name in _NUMBERS if name in config},
        },
        "bindingVersion": _BINDING,
    }
    message: dict[str, Any] = {
        "contentType": "application/json",
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./{topic.name}.schema.json"},
        },
    }
    if headers := headers_schema(topic.name):
        message["headers"] = headers
    if topic.key:
        message["bindings"] = {"kafka": {"key": _IMEI, "bindingVersion": _BINDING}}
    return {
        "address": topic.name,
        "description": topic.description,
        "messages": {"record": message},
        "bindings": {"kafka": binding},
    }
