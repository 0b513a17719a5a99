"""Whether Kafka lets this user do what the services do; on a cluster without ACLs everybody may do everything."""

from collections.abc import Mapping, Sequence

from eventpush.checking.result import Finding
from eventpush.contract.acls import SERVICES, Right, of_a_service
from runtime.adapters import aiokafka_admin
from runtime.kafka.topic_admin import admin
from runtime.platform.settings import Settings
from schemas.topics import PREFIX, all_topics

Granted = Mapping[tuple[str, str], frozenset[str]]  # the operations on a resource, by its kind and name


async def check(settings: Settings) -> Finding:
    """Ask Kafka what this user may do with each topic, group and transactional id."""
    needed = {service: of_a_service(service, settings) for service in SERVICES}
    granted = dict[tuple[str, str], frozenset[str]]()
    async with admin(settings) as client:
        known = {topic["topic"] for topic in await client.describe_topics() if topic["topic"].startswith(PREFIX)}
        names = sorted(known | {topic.name for topic in all_topics()})
        for topic, operations in (await aiokafka_admin.topic_operations(client, names)).items():
            granted["topic", topic] = operations
        for right in (right for rights in needed.values() for right in rights):
            if right.resource == "group":
                granted["group", right.name] = await aiokafka_admin.group_operations(client, right.name)
            elif right.resource == "transactional-id":
                may_write = await aiokafka_admin.may_write_transactions(client, f"{right.name}0")
                granted["transactional-id", right.name] = frozenset({"Write"} if may_write else ())
    return access_finding(_principal(settings), needed, granted, settings)


def _principal(settings: Settings) -> str:
    """Return this user as the brokers name it; a certificate's or a token's name is theirs to derive."""
    if settings.kafka_security_protocol == "PLAINTEXT":
        return "User:ANONYMOUS"
    return f"User:{settings.kafka_sasl_username or 'NAME'}"


def access_finding(user: str, needed: Mapping[str, Sequence[Right]], granted: Granted, settings: Settings) -> Finding:
    """Say what this user lacks, by service, and the commands that grant it. Pure.

    A service of which the user may do nothing that no other service does is another user's: that is a warning, as
    long as there is a service that this user can run.
    """
    lacking = {
        service: list(filter(None, (_lacking(r, granted) for r in rights))) for service, rights in needed.items()
    }
    if not any(lacking.values()):
        return "ok", f"{user} may do what {', '.join(needed)} do"
    own = [service for service in needed if _is_begun(service, needed, granted)]
    is_failed = not own or any(lacking[service] for service in own)
    said = [f"{service} lacks {'; '.join(map(str, rights))}" for service, rights in lacking.items() if rights]
    missing = dict.fromkeys(right for rights in lacking.values() for right in rights)
    commands = ", ".join(f"`{right.command(user, settings.kafka_bootstrap)}`" for right in missing)
    return "failed" if is_failed else "warning", (
        f"{user}: {'. '.join(said)}: ACLs are missing, unless another user runs that service; run {commands}"
    )


def _lacking(right: Right, granted: Granted) -> Right | None:
    """Return what of a right is not granted on some resource; None if nothing."""
    found = _found(right, granted)
    operations = tuple(operation for operation in right.operations if not all(operation in of for of in found))
    return right._replace(operations=operations) if operations else None


def _found(right: Right, granted: Granted) -> list[frozenset[str]]:
    """Return the operations on each of a right's resources that exist."""
    is_many = right.prefixed and right.resource == "topic"
    return [
        operations
        for (resource, name), operations in granted.items()
        if resource == right.resource and (name.startswith(right.name) if is_many else name == right.name)
    ]


def _is_begun(service: str, needed: Mapping[str, Sequence[Right]], granted: Granted) -> bool:
    """Return whether something is granted that this service alone needs."""
    others = {_key(right, operation) for other, rights in needed.items() if other != service
              for right in rights for operation in right.operations}  # fmt: skip
    return any(
        _key(right, operation) not in others and any(operation in of for of in _found(right, granted))
        for right in needed[service]
        for operation in right.operations
    )


def _key(right: Right, operation: str) -> tuple[str, str, str]:
    return right.resource, right.name, operation
