"""Every setting there is: one frozen object, read once from `EVENTPUSH_…` variables, checked at start.

`load()` gives the settings or raises a `OperatorError` that names each wrong variable, its value and the remedy.
`table()` gives them all as rows for the documentation, which a test compares with `docs/settings.md`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from runtime.platform import clickhouse_key
from runtime.platform.errors import OperatorError

PREFIX = "EVENTPUSH_"

Port = Annotated[int, Field(ge=1, le=65535)]
Compression = Literal["zstd", "snappy", "lz4", "gzip", "none"]
Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """All settings; each field's description is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # --- every process -------------------------------------------------------------------------------------------
    log_format: Literal["console", "json"] = Field("console", description="How log lines are written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least severe line shown.")
    metrics_host: str = Field(
        "127.0.0.1", description="Address that every `/metrics` port listens on; never one that strangers reach."
    )
    data_dir: Path = Field(Path(".eventpush"), description="Where the embedded stack and local state live.")
    jars_dir: Path | None = Field(
        None, description="Where `up` keeps Kafka's downloaded jars; `jars` in the data directory when not set."
    )

    # --- Kafka ---------------------------------------------------------------------------------------------------
    kafka_bootstrap: str = Field(
        "127.0.0.1:9092", description="Brokers to begin with, `host:port` separated by commas."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How connections to Kafka are secured."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, when the protocol is a SASL one."
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user name, for PLAIN and SCRAM.")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password, for PLAIN and SCRAM.")
    kafka_sasl_password_file: Path | None = Field(
        None, description="File that holds the SASL password; read again for each new client."
    )
    kafka_sasl_token_provider: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = Field(
        None,
        description="For OAUTHBEARER: `module:function` that returns an access token, called for each connection. A "
        "plain function runs in a thread; it may be a coroutine function.",
    )
    kafka_ssl_ca_file: Path | None = Field(
        None, description="CA certificates (PEM) that the brokers' are checked with; the system's when not set."
    )
    kafka_ssl_cert_file: Path | None = Field(
        None, description="Client certificate and its chain (PEM), for brokers that require one."
    )
    kafka_ssl_key_file: Path | None = Field(
        None, description="Private key (PEM) of the client certificate, when it is not in the same file."
    )
    kafka_client_rack: str | None = Field(
        None,
        description="Rack or availability zone of this process: consumers read from the replica there, if the brokers "
        "have a `replica.selector.class` (KIP-392).",
    )
    topic_partitions: Annotated[int, Field(ge=1, le=1024)] = Field(
        4,
        description="Partitions of every topic. The window's state is per partition, so `eventpush topics grow` comes "
        "before a greater number.",
    )
    topic_replication_factor: Annotated[int, Field(ge=1, le=9)] = Field(
        1, description="Replicas of every topic; 3 in production."
    )
    topic_min_insync_replicas: Annotated[int, Field(ge=1, le=9)] = Field(
        1, description="Replicas that must have a record before it counts as written; 2 in production."
    )
    topic_retention_h: Positive = Field(
        168, description="Hours that raw events, events and dead letters stay in Kafka."
    )
    event_topics_max: Annotated[int, Field(ge=8, le=10_000)] = Field(
        200, description="Bound on topics of event types; further types go to `telematics.event.other.v1`."
    )

    # --- streams -------------------------------------------------------------------------------------------------
    streams_app_id: str = Field(
        "eventpush-streams", description="Consumer group and transactional id prefix of the stream workers."
    )
    window_s: Positive = Field(
        86_400, description="How long after its first arrival an event's repeat is recognised, in seconds."
    )
    sender_retry_s: Positive = Field(
        86_400, description="How long the sender may retry, in seconds: the window must be at least this."
    )
    future_skew_s: Annotated[int, Field(ge=0)] = Field(
        300, description="How far an event's times may be ahead of its arrival without a warning, in seconds."
    )
    clock_lead_max_s: Annotated[int, Field(ge=0)] = Field(
        86_400,
        description="How far an event's times may be ahead of its arrival at most, in seconds; further ahead it is a "
        "dead letter.",
    )
    content_fields: Annotated[str, Field(pattern=r"^[^,\s][^,]*(,[^,\s][^,]*)*$")] = Field(
        "Changes,Coordinates",
        description="Fields of the sender's API that make up an event's content, separated by commas: the same "
        "identity with a different value is a conflict. May name `Server_Time`, `Location` and unknown fields too.",
    )
    window_store: Literal["memory", "rocksdb"] = Field(
        "memory",
        description="Where the window's identities live: in memory, or, when they do not fit there, on disk in "
        "`EVENTPUSH_DATA_DIR`, where a restart finds them again.",
    )
    streams_batch_max_events: Annotated[int, Field(ge=1, le=20_000)] = Field(
        16_000, description="Most raw events of one partition in one transaction."
    )
    streams_linger_ms: Annotated[int, Field(ge=5, le=10_000)] = Field(
        50,
        description="How long the broker lets raw events accumulate for a stream worker, in milliseconds, and how long "
        "a transaction waits for batches of other partitions; with a backlog neither waits.",
    )
    streams_compression: Compression = Field(
        "zstd",
        description="How events and dead letters are compressed for their subscribers. Every client reads gzip, which "
        "takes 45 % more space and broker time; for zstd some need another package (`docs/subscribers.md`).",
    )
    streams_metrics_port: Port = Field(
        9102, description="Port of the stream worker's `/metrics`, `/healthz`, `/readyz`."
    )
    session_timeout_s: Annotated[int, Field(ge=6, le=300)] = Field(
        6,
        description="Seconds without a heartbeat after which a worker counts as dead (the broker allows 6 to 300).",
    )
    transaction_timeout_s: Annotated[int, Field(ge=2, le=900)] = Field(
        10,
        description="Seconds after which the broker aborts a dead worker's transaction, if none has taken its "
        "partitions over by then; readers wait for it that long.",
    )
    stall_timeout_s: Annotated[int, Field(ge=10)] = Field(
        60, description="A worker with lag and no progress for this many seconds ends itself with a reason."
    )

    # --- sink ----------------------------------------------------------------------------------------------------
    sink_app_id: str = Field("eventpush-sink", description="Consumer group of the sink.")
    sink_batch_max_rows: Annotated[int, Field(ge=1, le=500_000)] = Field(20_000, description="Most rows in one insert.")
    sink_linger_ms: Annotated[int, Field(ge=5, le=10_000)] = Field(
        250,
        description="How long the broker lets records accumulate for the sink, in milliseconds; with a backlog it does "
        "not wait. The rows of all partitions are one insert: ClickHouse wants few.",
    )
    sink_metrics_port: Port = Field(9103, description="Port of the sink's `/metrics`, `/healthz`, `/readyz`.")
    clickhouse_url: str = Field(
        "http://127.0.0.1:8123",
        description="ClickHouse's HTTP interface. Several, separated by commas, are replicas of one cluster: one is "
        "used until it fails, then the next.",
    )
    clickhouse_user: str = Field("default", description="ClickHouse user.")
    clickhouse_password: SecretStr = Field(
        SecretStr(""),
        description="ClickHouse password. When not set and ClickHouse is on this machine: the one that `up` made, in "
        "`clickhouse-key` in the data directory.",
    )
    clickhouse_password_file: Path | None = Field(
        None, description="File that holds ClickHouse's password; read again for each new connection."
    )
    clickhouse_ssl_ca_file: Path | None = Field(
        None, description="CA certificates (PEM) that ClickHouse's is checked with, beside the system's."
    )
    clickhouse_ssl_cert_file: Path | None = Field(
        None,
        description="Client certificate and its chain (PEM). Without a password ClickHouse identifies the user by it.",
    )
    clickhouse_ssl_key_file: Path | None = Field(
        None, description="Private key (PEM) of the client certificate, when it is not in the same file."
    )
    clickhouse_cluster: str | None = Field(
        None, description="Cluster name: tables are made `ON CLUSTER` and replicated when it is set."
    )
    clickhouse_partition: Literal["month", "week", "day"] = Field(
        "month",
        description="Length of a partition of the events, by device time. Only the first migration of a new "
        "installation reads it; `docs/deploying.md` says which length suits which volume.",
    )
    clickhouse_retention_d: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None,
        description="Days after their arrival that ClickHouse keeps events and dead letters; for ever when not set. At "
        "least as long as Kafka keeps them and as the window. `eventpush migrate` and each sink's start apply it: set "
        "it the same for all.",
    )

    # --- erasure -------------------------------------------------------------------------------------------------
    erasure_key: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        None,
        description="Secret key of the deny list of erased devices, at least 16 characters: the same for `erase`, "
        "every stream worker and every sink, and never changed. Needed once a device was erased.",
    )
    erasure_key_file: Path | None = Field(
        None,
        description="File that holds the erasure key. When neither is set: `erasure-key` in the data directory, where "
        "`up` makes one.",
    )

    # --- ingress -------------------------------------------------------------------------------------------------
    ingress_host: str = Field("127.0.0.1", description="Address that the ingress listens on.")
    ingress_port: Port = Field(8080, description="Port that the ingress listens on.")
    ingress_processes: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Ingress processes on the one port.")
    ingress_metrics_port: Port = Field(9101, description="Port of the ingress's `/metrics`; the public port has none.")
    ingress_body_max_bytes: Annotated[int, Field(ge=1_024, le=64 * 1024 * 1024)] = Field(
        1_048_576, description="Largest request body as it is sent (compressed, if it is), in bytes; above it 413."
    )
    ingress_decompressed_max_bytes: Annotated[int, Field(ge=1_024, le=256 * 1024 * 1024)] = Field(
        4_194_304, description="Largest request body after decompression, in bytes; above it 413."
    )
    ingress_event_max_bytes: Annotated[int, Field(ge=1_024, le=900_000)] = Field(
        262_144, description="Largest single event, in bytes; above it 413. A Kafka record must hold it (1 MiB)."
    )
    ingress_request_max_events: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1_000, description="Most events in one request (JSON array or NDJSON); above it 413."
    )
    ingress_nesting_max: Annotated[int, Field(ge=1, le=100)] = Field(
        32, description="How deep the objects and arrays of an event may be nested; deeper is answered 400."
    )
    ingress_headers_max: Annotated[int, Field(ge=8, le=1_000)] = Field(
        64, description="Most headers of a request; above it 400."
    )
    ingress_header_max_bytes: Annotated[int, Field(ge=512, le=65_536)] = Field(
        8_190, description="Longest request line and longest header, in bytes; above it 400."
    )
    ingress_header_timeout_s: Annotated[float, Field(gt=0, le=300)] = Field(
        20, description="Time for a request's headers to arrive, in seconds; then 408."
    )
    ingress_body_timeout_s: Annotated[float, Field(gt=0, le=300)] = Field(
        10, description="Time for a request's body to arrive, in seconds; then 408."
    )
    ingress_keepalive_s: Annotated[float, Field(gt=0, le=7_200)] = Field(
        75, description="How long an idle connection stays open, in seconds; more than the proxy in front keeps it."
    )
    ingress_connections_max: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        4_096, description="Most open connections of one ingress process; a further one is answered 503."
    )
    ingress_inflight_max_requests: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        8_192, description="Most requests that one ingress process works on at once; above it 503 at once."
    )
    ingress_inflight_max_bytes: Annotated[int, Field(ge=1_048_576)] = Field(
        67_108_864,
        description="Most bytes that one ingress process holds for Kafka, and as many of bodies that are still coming "
        "in; above it 503 at once.",
    )
    ingress_linger_ms: Annotated[int, Field(ge=0, le=100)] = Field(
        1,
        description="Under load, one write to Kafka each this many milliseconds; after a pause, at once.",
    )
    ingress_publish_timeout_ms: Annotated[int, Field(ge=100, le=1_900)] = Field(
        1_500, description="Time for Kafka to acknowledge, in milliseconds; then 503. The sender waits 2 s in all."
    )
    ingress_compression: Compression = Field(
        "zstd", description="How raw events are compressed on their way into Kafka and on its disks."
    )
    ingress_tokens: SecretStr | None = Field(
        None,
        description="Bearer tokens that may send, separated by commas: `name token`, where the token may be given as "
        "`sha256:…` and followed by `from=2026-01-01` and `until=2026-06-30`. The name is stored with the events as "
        "`sender`. None here and in the file: no check.",
    )
    ingress_tokens_file: Path | None = Field(
        None, description="File of bearer tokens, one a line as in EVENTPUSH_INGRESS_TOKENS; read again on change."
    )
    ingress_allow: str = Field(
        "", description="Addresses that may send, CIDRs (IPv4 and IPv6) separated by commas; empty: all."
    )
    ingress_trusted_proxies: str = Field(
        "", description="CIDRs of the proxies in front, separated by commas: only their word on the sender counts."
    )
    ingress_forwarded_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for", description="The header in which the trusted proxies name the sender's address."
    )
    ingress_verifier: Literal["none", "standard-webhooks", "hmac-sha256"] = Field(
        "none", description="How requests are signed."
    )
    ingress_signature_secrets: SecretStr | None = Field(
        None,
        description="Secrets that requests may be signed with, separated by commas: `secret` or `secret name=NAME`. "
        "The name (default: `secret-1`, `secret-2`, …) is stored with the events as `sender`.",
    )
    ingress_signature_secrets_file: Path | None = Field(
        None,
        description="File of signature secrets, one per line as in EVENTPUSH_INGRESS_SIGNATURE_SECRETS; reloaded on "
        "change.",
    )
    ingress_signature_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] = Field(
        "X-Signature", description="Header with the signature, for hmac-sha256."
    )
    ingress_signature_encoding: Literal["hex", "base64"] = Field(
        "hex", description="How the signature is written, for hmac-sha256; a prefix `sha256=` is allowed."
    )
    ingress_tls_cert_file: Path | None = Field(
        None, description="Certificate chain (PEM): the ingress speaks TLS 1.2 and newer itself; read again on change."
    )
    ingress_tls_key_file: Path | None = Field(None, description="Private key (PEM) of the certificate.")
    ingress_tls_client_ca_file: Path | None = Field(
        None, description="CA certificates (PEM): senders must show a certificate that one of these has signed."
    )
    ingress_rate_per_token: Annotated[int, Field(ge=0)] = Field(
        0, description="Most requests per second with one token, in one process; above it 429. 0: no bound."
    )
    ingress_rate_per_address: Annotated[int, Field(ge=0)] = Field(
        0, description="Most requests per second from one address (IPv6: /64), in one process; 0: no bound."
    )
    ingress_strict: bool = Field(
        False, description="Whether events that break a rule are refused with 422, not stored and dead-lettered."
    )
    ingress_drain_s: Annotated[float, Field(ge=0, le=300)] = Field(
        10, description="How long a stopping ingress finishes what it has begun, in seconds."
    )

    # --- event stream --------------------------------------------------------------------------------------------
    sse_port: Port = Field(
        9104, description="Port of the event stream: `/events/stream`, `/metrics`, `/healthz`, `/readyz`."
    )
    sse_tokens: SecretStr | None = Field(
        None,
        description="Bearer tokens that may read the event stream, in the form of EVENTPUSH_INGRESS_TOKENS. Without "
        "one here or in the file it does not start.",
    )
    sse_tokens_file: Path | None = Field(
        None, description="File of bearer tokens, one a line as in EVENTPUSH_SSE_TOKENS; read again on change."
    )
    sse_clients_max: Annotated[int, Field(ge=1, le=1_000)] = Field(
        20, description="Most clients of the event stream at once; a further one is answered 503."
    )
    sse_send_timeout_s: Annotated[float, Field(gt=0, le=300)] = Field(
        10, description="Seconds in which a client must take what was sent; a slower one is disconnected."
    )

    # --- console -------------------------------------------------------------------------------------------------
    console_host: str = Field(
        "127.0.0.1",
        description="Address that the console listens on. Beyond this machine it needs `EVENTPUSH_CONSOLE_TOKEN`.",
    )
    console_port: Port = Field(8090, description="Port of the console.")
    console_token: SecretStr | None = Field(
        None,
        description="The operator's token: the console asks for it before a replay and, when it listens beyond this "
        "machine, before any page.",
    )
    console_token_file: Path | None = Field(None, description="File with the operator's token, instead of it.")
    console_stages: Annotated[
        str, Field(pattern=r"^((ingress|streams|sink)=https?://[^,\s]+(,(ingress|streams|sink)=https?://[^,\s]+)*)?$")
    ] = Field(
        "",
        description="Where the console finds the metrics of each process, `ingress=http://host:9101` and so on, "
        "separated by commas; empty: the ports of this machine.",
    )

    @model_validator(mode="after")
    def _secrets_are_given_once(self) -> "Settings":
        for field in ("kafka_sasl_password", "clickhouse_password", "console_token", "erasure_key"):
            if field in self.model_fields_set and getattr(self, f"{field}_file") is not None:
                raise ValueError(f"{variable(field)} and {variable(field)}_FILE are both set: unset one of them")
        return self

    @model_validator(mode="after")
    def _window_covers_retries(self) -> "Settings":
        if self.window_s < self.sender_retry_s:
            msg = (
                f"{PREFIX}WINDOW_S={self.window_s} is smaller than {PREFIX}SENDER_RETRY_S={self.sender_retry_s}: "
                "a late retry would be taken for a new event; make the window at least as long as the sender retries"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _rows_outlive_records(self) -> "Settings":
        longest_s, name = max(
            (self.topic_retention_h * 3_600, f"{PREFIX}TOPIC_RETENTION_H={self.topic_retention_h}"),
            (self.window_s, f"{PREFIX}WINDOW_S={self.window_s}"),
        )
        if self.clickhouse_retention_d is not None and self.clickhouse_retention_d * 86_400 < longest_s:
            msg = (
                f"{PREFIX}CLICKHOUSE_RETENTION_D={self.clickhouse_retention_d} is shorter than {name}: rows would go "
                f"while their records can still be read and repeated; make it at least {-(-longest_s // 86_400)}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _replicas_suffice(self) -> "Settings":
        if self.topic_min_insync_replicas > self.topic_replication_factor:
            msg = (
                f"{PREFIX}TOPIC_MIN_INSYNC_REPLICAS={self.topic_min_insync_replicas} is more than "
                f"{PREFIX}TOPIC_REPLICATION_FACTOR={self.topic_replication_factor}: nothing could ever be written"
            )
            raise ValueError(msg)
        return self


def variable(field: str) -> str:
    """Return the environment variable of a field: `window_s` → `EVENTPUSH_WINDOW_S`."""
    return PREFIX + field.upper()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Load the settings from `environ`; raise `OperatorError` naming every invalid variable.

    By default those of this process, with the password that `eventpush up` made in the data directory.
    """
    if environ is None:
        return _with_made_password(load(os.environ))
    given = {name[len(PREFIX) :].lower(): value for name, value in environ.items() if name.startswith(PREFIX)}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise OperatorError("; ".join(_complaint(e) for e in error.errors()), "") from None


def _with_made_password(settings: Settings) -> Settings:
    given = {"clickhouse_password", "clickhouse_password_file"} & settings.model_fields_set
    if given or not clickhouse_key.is_local(settings.clickhouse_url):
        return settings
    return settings.model_copy(update={"clickhouse_password": SecretStr(clickhouse_key.read(settings.data_dir))})


def _complaint(error: Any) -> str:
    if not error["loc"]:
        return str(error["ctx"]["error"])
    name = variable(str(error["loc"][0]))
    if error["type"] == "extra_forbidden":
        return f"{name} is not a setting of eventpush: see docs/settings.md for the list"
    secret = "PASSWORD" in name or "TOKEN" in name or "SECRET" in name or name.endswith("_KEY")
    found = "(hidden)" if secret else repr(error["input"])
    return f"{name}={found}: {error['msg'].lower()}; see docs/settings.md"


def table() -> list[tuple[str, str, str]]:
    """Return one row a setting: variable, default, description."""
    return [
        (variable(name), _shown(field.get_default(call_default_factory=True)), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _shown(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    return str(default)
