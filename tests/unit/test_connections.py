"""Connections to Kafka and ClickHouse: certificates, secrets from files, tokens, and messages for unusable ones."""

import ssl
from pathlib import Path

import pytest
import trustme
from aiokafka.errors import SaslAuthenticationFailed

from runtime.kafka.connection import connection, consumer_connection
from runtime.kafka.token_provider import TokenProvider
from runtime.platform.errors import OperatorError
from runtime.platform.secret_files import clickhouse_password, kafka_sasl_password
from runtime.platform.settings import Settings, load, variable


def environ(**values: object) -> dict[str, str]:
    """Variables from the names of settings."""
    return {variable(name): str(value) for name, value in values.items()}


def settings(**values: object) -> Settings:
    """Settings from their names."""
    return load(environ(**values))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, cert.pem, key.pem, and both.pem, which has the certificate and the key."""
    home, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    issued = authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(home / "ca.pem")
    issued.private_key_pem.write_to_path(home / "key.pem")
    issued.cert_chain_pems[0].write_to_path(home / "cert.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(home / "both.pem")
    return home


def test_every_secret_can_be_a_file() -> None:
    """Each secret setting has a sibling `…_file`."""
    secrets = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert len(secrets) >= 4
    assert [name for name in secrets if f"{name}_file" not in Settings.model_fields] == []


def test_a_password_file_is_read_each_time(tmp_path: Path) -> None:
    """The password is the file's text without the line end, as it is at the moment."""
    file = tmp_path / "password"
    given = settings(kafka_sasl_password_file=file, clickhouse_password_file=file)
    for text in (" one ", "two"):
        file.write_text(text + "\r\n")
        assert kafka_sasl_password(given) == clickhouse_password(given) == text


def test_a_password_of_the_environment() -> None:
    """Without a file the setting's value counts; ClickHouse's password may be empty."""
    given = settings(kafka_sasl_password="one", clickhouse_password="two")
    assert (kafka_sasl_password(given), clickhouse_password(given)) == ("one", "two")
    assert (kafka_sasl_password(settings()), clickhouse_password(settings())) == (None, "")


@pytest.mark.parametrize("name", ["kafka_sasl_password", "clickhouse_password"])
def test_a_secret_is_given_once(name: str, tmp_path: Path) -> None:
    """A secret and its file at once are refused, without the secret."""
    with pytest.raises(OperatorError) as caught:
        settings(**{name: "hidden", f"{name}_file": tmp_path / "password"})
    assert f"{variable(name)} and {variable(name)}_FILE are both set" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_the_made_password_does_not_replace_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a password file, the password that `up` made in the data directory is not used."""
    (tmp_path / "clickhouse-key").write_text("X-ClickHouse-Key: made\n")
    (tmp_path / "password").write_text("given")
    monkeypatch.setenv("EVENTPUSH_DATA_DIR", str(tmp_path))
    assert clickhouse_password(load()) == "made"
    monkeypatch.setenv("EVENTPUSH_CLICKHOUSE_PASSWORD_FILE", str(tmp_path / "password"))
    assert clickhouse_password(load()) == "given"


def test_mutual_tls(certificate: Path) -> None:
    """The context checks the broker's name against the given authority only, and holds the client's certificate."""
    for files in (
        {"kafka_ssl_cert_file": certificate / "both.pem"},
        {"kafka_ssl_cert_file": certificate / "cert.pem", "kafka_ssl_key_file": certificate / "key.pem"},
    ):
        given = settings(kafka_security_protocol="SSL", kafka_ssl_ca_file=certificate / "ca.pem", **files)
        context = connection(given)["ssl_context"]
        assert isinstance(context, ssl.SSLContext)
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
        assert len(context.get_ca_certs()) == 1


def test_scram_password_from_a_file(tmp_path: Path) -> None:
    """User and password reach aiokafka's arguments; without TLS there is no context."""
    (tmp_path / "password").write_text("secret\n")
    arguments = connection(
        settings(
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_sasl_username="user",
            kafka_sasl_password_file=tmp_path / "password",
        )
    )
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("user", "secret")
    assert "ssl_context" not in arguments


def test_consumers_name_their_rack() -> None:
    """The rack goes to consumers, and producers do not know it."""
    given = settings(kafka_client_rack="zone-a")
    assert consumer_connection(given)["client_rack"] == "zone-a"
    assert "client_rack" not in connection(given)


def plain_token() -> str:
    """Return a token: a provider."""
    return "plain"


async def async_token() -> str:
    """Return a token: a provider."""
    return "async"


def failing_token() -> str:
    """Fail: a provider."""
    raise RuntimeError("no network")


def no_token() -> None:
    """Return nothing: a provider."""


@pytest.mark.parametrize("name", ["plain", "async"])
async def test_a_token_comes_from_the_function(name: str) -> None:
    """Plain functions and coroutine functions are called for each connection."""
    given = settings(
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_sasl_token_provider=f"{__name__}:{name}_token",
    )
    assert await connection(given)["sasl_oauth_token_provider"].token() == name


@pytest.mark.parametrize(("name", "why"), [("failing_token", "RuntimeError: no network"), ("no_token", "no token")])
async def test_no_token_is_a_failed_authentication(name: str, why: str) -> None:
    """A provider that fails, or returns no text, fails the connection with its name and reason."""
    with pytest.raises(SaslAuthenticationFailed, match=why) as caught:
        await TokenProvider(f"{__name__}:{name}").token()
    assert f"{__name__}:{name}" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kafka_security_protocol": "SSL", "kafka_ssl_ca_file": "/none"}, "EVENTPUSH_KAFKA_SSL_CA_FILE=/none"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_cert_file": "/none"}, "EVENTPUSH_KAFKA_SSL_CERT_FILE=/none"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_key_file": "/none"}, "set without its certificate"),
        ({"kafka_security_protocol": "SASL_SSL"}, "needs a user and a password"),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "u", "kafka_sasl_password_file": "/none"},
            "EVENTPUSH_KAFKA_SASL_PASSWORD_FILE=/none cannot be read",
        ),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"},
            "OAUTHBEARER needs a source of tokens",
        ),
        (
            {
                "kafka_security_protocol": "SASL_SSL",
                "kafka_sasl_mechanism": "OAUTHBEARER",
                "kafka_sasl_token_provider": "no.such.module:token",
            },
            "EVENTPUSH_KAFKA_SASL_TOKEN_PROVIDER=no.such.module:token cannot be imported",
        ),
    ],
)
def test_what_is_unusable_is_said(given: dict[str, str], said: str) -> None:
    """An unusable connection setting is one message with its variable, value and remedy."""
    with pytest.raises(OperatorError) as caught:
        connection(settings(**given))
    assert said in str(caught.value)
    assert caught.value.remedy


def test_a_certificate_needs_its_own_key(certificate: Path) -> None:
    """A certificate with another one's key is refused."""
    other = trustme.CA().issue_cert("other@example.org")
    other.private_key_pem.write_to_path(certificate / "other.pem")
    with pytest.raises(OperatorError, match="matching certificate and key"):
        connection(
            settings(
                kafka_security_protocol="SSL",
                kafka_ssl_cert_file=certificate / "cert.pem",
                kafka_ssl_key_file=certificate / "other.pem",
            )
        )
