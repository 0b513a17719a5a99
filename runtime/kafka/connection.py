"""How every process reaches Kafka: the connection arguments of aiokafka's clients, made from the settings."""

import ssl
from typing import Any

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings


def connection(settings: Settings) -> dict[str, Any]:
    """Return keyword arguments for aiokafka's clients; raise `OperatorError` for unusable settings."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
    }
    if "SSL" in settings.kafka_security_protocol.replace("SASL", ""):
        arguments["ssl_context"] = _ssl_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        arguments |= _sasl(settings)
    return arguments


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.kafka_ssl_ca_file)
    except OSError as error:
        raise OperatorError(
            f"EVENTPUSH_KAFKA_SSL_CA_FILE={settings.kafka_ssl_ca_file} cannot be read ({error})",
            "name a readable file of PEM certificates",
        ) from None


def _sasl(settings: Settings) -> dict[str, Any]:
    if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
        raise OperatorError(
            f"EVENTPUSH_KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} needs a user and a password",
            "set EVENTPUSH_KAFKA_SASL_USERNAME and EVENTPUSH_KAFKA_SASL_PASSWORD",
        )
    return {
        "sasl_mechanism": settings.kafka_sasl_mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
    }
