"""Rights on a cluster with ACLs: what a team needs to read one topic, and what each service needs."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from runtime.platform.settings import Settings
from schemas.topics import EVENT_PREFIX, FIXED, OTHER, PREFIX, Topic, type_topic

SERVICES = ("ingress", "streams", "sink")


class Right(NamedTuple):
    """Operations on a resource, or on all whose names begin with `name`; by the words of Kafka's own tool."""

    operations: tuple[str, ...]
    resource: Literal["topic", "group", "transactional-id"]
    name: str
    prefixed: bool = False

    def __str__(self) -> str:
        return f"{', '.join(self.operations)} on {self.resource} {self.name}{'…' * self.prefixed}"

    def command(self, user: str, bootstrap: str) -> str:
        """Return the command that grants it to a principal, such as `User:dispatch`."""
        operations = " ".join(f"--operation {operation}" for operation in self.operations)
        pattern = " --resource-pattern-type prefixed" if self.prefixed else ""
        return (
            f"kafka-acls.sh --bootstrap-server {bootstrap} --command-config admin.properties --add"
            f" --allow-principal {user} {operations}{pattern} --{self.resource} {self.name}"
        )


def of_a_team(topic: Topic, group: str) -> list[Right]:
    """Return what lets a team read one topic, in groups that begin with `group`, and nothing else."""
    return [Right(("Read", "Describe"), "topic", topic.name), Right(("Read",), "group", group, prefixed=True)]


def of_a_service(service: str, settings: Settings) -> list[Right]:
    """Return what a service's user needs; Read and Write include Describe."""
    return [*_of_topics(service), *_of_ids(service, settings)]


def _of_topics(service: str) -> Iterator[Right]:
    for topic in (*FIXED, type_topic(OTHER)):
        is_of_type = topic.name == OTHER  # stands for all types: new ones come, and their topics are created
        reads, writes = service in topic.consumers, service in topic.producers
        operations = ["Read"] * reads + ["Write"] * writes + ["Create"] * (writes and is_of_type)
        if operations:
            yield Right(tuple(operations), "topic", EVENT_PREFIX if is_of_type else topic.name, prefixed=is_of_type)
    if service != "ingress":  # a stage compares all topics with the settings before it begins
        yield Right(("Describe", "DescribeConfigs"), "topic", PREFIX, prefixed=True)


def _of_ids(service: str, settings: Settings) -> Iterator[Right]:
    stages = {"streams": settings.streams_app_id, "sink": settings.sink_app_id}
    if service in stages:
        yield Right(("Read",), "group", stages[service])
        yield Right(("Write",), "transactional-id", f"{stages[service]}-", prefixed=True)
