"""How every process reaches Kafka: the connection arguments of aiokafka's clients, made from the settings."""

from typing import Any

from runtime.kafka.token_provider import TokenProvider
from runtime.platform.client_tls import client_context
from runtime.platform.errors import OperatorError
from runtime.platform.secret_files import kafka_sasl_password
from runtime.platform.settings import Settings


def connection(settings: Settings) -> dict[str, Any]:
    """Return keyword arguments for aiokafka's clients; raise `OperatorError` for unusable settings."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol in {"SSL", "SASL_SSL"}:
        arguments["ssl_context"] = client_context(settings, "kafka_ssl")
    if settings.kafka_security_protocol.startswith("SASL"):
        arguments |= _sasl(settings)
    return arguments


def consumer_connection(settings: Settings) -> dict[str, Any]:
    """Return the arguments for a consumer: those of `connection`, and the rack that it prefers to read from."""
    return connection(settings) | {"client_rack": settings.kafka_client_rack}


def _sasl(settings: Settings) -> dict[str, Any]:
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        if settings.kafka_sasl_token_provider is None:
            raise OperatorError(
                "EVENTPUSH_KAFKA_SASL_MECHANISM=OAUTHBEARER needs a source of tokens",
                "set EVENTPUSH_KAFKA_SASL_TOKEN_PROVIDER to the `module:function` that returns one",
            )
        provider = TokenProvider(settings.kafka_sasl_token_provider)
        return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": provider}
    password = kafka_sasl_password(settings)
    if settings.kafka_sasl_username is None or password is None:
        raise OperatorError(
            f"EVENTPUSH_KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} needs a user and a password",
            "set EVENTPUSH_KAFKA_SASL_USERNAME and EVENTPUSH_KAFKA_SASL_PASSWORD or _PASSWORD_FILE",
        )
    return {
        "sasl_mechanism": settings.kafka_sasl_mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": password,
    }
