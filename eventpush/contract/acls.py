"""The commands that let a team read one topic, and nothing else, on a cluster with ACLs."""

from schemas.topics import Topic


def allow_reading(topic: Topic, user: str, group: str, bootstrap: str) -> list[str]:
    """Return the commands of Kafka's own tool: read and describe the topic, and use groups that begin with `group`."""
    tool = f"kafka-acls.sh --bootstrap-server {bootstrap} --command-config admin.properties --add"
    who = f"--allow-principal User:{user}"
    return [
        f"{tool} {who} --operation Read --operation Describe --topic {topic.name}",
        f"{tool} {who} --operation Read --resource-pattern-type prefixed --group {group}",
    ]
