"""A broker's configuration: `server.properties` and log4j's, rendered from a `Broker`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Broker:
    """One node, broker and controller combined. `home` holds its data, configuration and logs.

    `controllers` lists all nodes of the cluster as (node id, host, controller port); empty means a single node.
    `replication_factor` and `min_insync_replicas` apply to Kafka's internal topics and are the default for others.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 9092
    controller_port: int = 9093
    node_id: int = 1
    controllers: tuple[tuple[int, str, int], ...] = ()
    replication_factor: int = 1
    min_insync_replicas: int = 1
    heap_mb: int = 512
    message_max_bytes: int = 8 * 1024 * 1024
    retention_h: int = 168
    cluster_id: str = "eventpush-embedded-kfk"
    overrides: tuple[tuple[str, str], ...] = ()

    @property
    def bootstrap(self) -> str:
        """Bootstrap address for clients: `host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def data_dir(self) -> Path:
        """Directory of the topics."""
        return self.home / "data"

    @property
    def logs_dir(self) -> Path:
        """Directory of the broker's log files."""
        return self.home / "logs"

    @property
    def properties_file(self) -> Path:
        """The broker's configuration file, rewritten by each `prepare`."""
        return self.home / "server.properties"

    @property
    def log4j_file(self) -> Path:
        """Log4j's configuration file, rewritten by each `prepare`."""
        return self.home / "log4j2.properties"


def cluster(
    home: Path, ports: Sequence[tuple[int, int]], *, host: str = "127.0.0.1", heap_mb: int = 256
) -> list[Broker]:
    """Return brokers that form one cluster, one per (port, controller port).

    Topics are replicated to every node; writes need all but one of them in sync.
    """
    controllers = tuple((number, host, controller) for number, (_, controller) in enumerate(ports, 1))
    return [
        Broker(
            home / f"node-{number}",
            host,
            port,
            controller_port,
            node_id=number,
            controllers=controllers,
            replication_factor=len(ports),
            min_insync_replicas=max(1, len(ports) - 1),
            heap_mb=heap_mb,
        )
        for number, (port, controller_port) in enumerate(ports, 1)
    ]


def server_properties(broker: Broker) -> str:
    """Return the text of `server.properties`."""
    voters = broker.controllers or ((broker.node_id, broker.host, broker.controller_port),)
    replicas, in_sync = str(broker.replication_factor), str(broker.min_insync_replicas)
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(broker.node_id),
        "controller.quorum.voters": ",".join(f"{number}@{host}:{port}" for number, host, port in voters),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{broker.bootstrap},CONTROLLER://{broker.host}:{broker.controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(broker.data_dir),
        # `eventpush topics` creates topics with the partition count that the deduplication window needs.
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        # Few partitions for Kafka's internal topics: each is a log to open at start, and there are few groups.
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # A joining worker gets its partitions at once. A dead node is detected, and can rejoin, quickly:
        "group.initial.rebalance.delay.ms": "0",
        # after kill -9 the controller refuses a node until its old session has expired.
        "broker.session.timeout.ms": "6000" if broker.controllers else "4000",
        "broker.heartbeat.interval.ms": "1000" if broker.controllers else "500",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "message.max.bytes": str(broker.message_max_bytes),
        "replica.fetch.max.bytes": str(broker.message_max_bytes),
        "log.retention.hours": str(broker.retention_h),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "2",
        # The default of 128 MB is a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    } | dict(broker.overrides)
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def log4j_properties(broker: Broker) -> str:
    """Return log4j's configuration: everything to a bounded file, errors also to standard error.

    Two loggers report transient conditions as errors when a broker starts after a kill; they log to the file only.
    """
    return f"""\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {_escaped(str(broker.logs_dir / "server.log"))}
appender.file.filePattern = {_escaped(str(broker.logs_dir / "server.log.%i"))}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %m (%c{{1}})%n%ex{{1}}
appender.console.filter.level.type = ThresholdFilter
appender.console.filter.level.level = error
logger.controller.name = kafka.server.ControllerApis
logger.controller.additivity = false
logger.controller.appenderRef.file.ref = file
logger.coordinator.name = org.apache.kafka.coordinator.common.runtime
logger.coordinator.additivity = false
logger.coordinator.appenderRef.file.ref = file
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
rootLogger.appenderRef.console.ref = console
"""


def _escaped(value: str) -> str:
    """Escape a value for a Java properties file."""
    return value.replace("\\", "\\\\")
