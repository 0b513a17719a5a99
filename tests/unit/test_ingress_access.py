"""Who may send: tokens, addresses, signatures, rates, TLS; and that none of it shows in a log."""

import asyncio
import base64
import hashlib
import hmac
import io
import json
import logging as stdlib_logging
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
import structlog
import trustme
from aiohttp import ClientConnectorCertificateError, ClientError, ClientSession
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import REGISTRY, generate_latest
from standardwebhooks.webhooks import Webhook

from ingress.access import signatures, tokens
from ingress.access.addresses import Addresses, parsed
from ingress.access.file_watcher import FileWatcher
from ingress.errors import Rejection, RequestError, unavailable
from ingress.http.tls import Tls
from ingress.rejection_log import RejectionLog
from runtime.platform import logging
from runtime.platform.errors import OperatorError
from runtime.platform.settings import load
from schemas import topics
from tests.unit.ingress_support import BODY, request, running, settings
from tests.unit.memory_publisher import MemoryPublisher

TOKEN = "ep_a-token-that-is-secret"
OTHER = "ep_another-token.that_is~secret"


def bearer(token: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {token}"}


# --- tokens ------------------------------------------------------------------------------------------------------


async def test_only_a_good_token_comes_in():
    """Missing, wrong, doubled or of another scheme: 401 with WWW-Authenticate; several good ones side by side."""
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    async with running(ingress_tokens=f"one {TOKEN}, two sha256:{digest}") as ingress:
        for token in (TOKEN, OTHER):
            assert (await ingress.post(**bearer(token))).status == 200
        assert (await ingress.post(Authorization=f"bearer   {TOKEN}")).status == 200
        wrong = [None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {digest}"]
        for authorization in wrong:
            answer = await ingress.post(Authorization=authorization)
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith('Bearer realm="eventpush"')
            assert TOKEN not in answer.message
        twice = request(Authorization=f"Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}")
        assert (await ingress.send(twice)).status in {400, 401}
        assert (await ingress.send(request(Authorization="Bearer \xff"))).status == 401
        assert len(ingress.publisher.records) == 3


async def test_a_wrong_token_is_refused_before_the_body():
    """401 comes while the body is still to come, and the connection ends: nothing more is read."""
    async with running(ingress_tokens=f"one {TOKEN}") as ingress:
        answer = await ingress.send(request(b"", Content_Length="1000000", **bearer("wrong")))
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        invited = await ingress.send(request(b"", Content_Length="100", Expect="100-continue", **bearer("wrong")))
        assert invited.status == 401


async def test_health_and_docs_need_no_token():
    """What says nothing about events is open."""
    async with running(ingress_tokens=f"one {TOKEN}") as ingress:
        for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
            assert (await ingress.send(request(b"", method="GET", path=path))).status == 200
        assert (await ingress.post(path="/api/events/validate")).status == 401


async def test_tokens_have_dates():
    """A token is good from its first date until its last, so two can be valid while one replaces the other."""
    now = datetime.now(UTC)
    past, future = (now - timedelta(days=1)).isoformat(), (now + timedelta(days=1)).isoformat()
    entries = {
        f"a {TOKEN} from={past} until={future}": 200,
        f"a {TOKEN} until={past}": 401,
        f"a {TOKEN} from={future}": 401,
        f"a {TOKEN} from=2020-01-01": 200,
    }
    for entry, status in entries.items():
        async with running(ingress_tokens=entry) as ingress:
            assert (await ingress.post(**bearer(TOKEN))).status == status


async def test_tokens_change_without_a_restart(tmp_path):
    """The file is read again: the new token is good, the old one no longer."""
    file = tmp_path / "tokens"
    file.write_text(f"# tokens\none {TOKEN}\n")
    async with running(ingress_tokens_file=str(file)) as ingress:
        assert (await ingress.post(**bearer(TOKEN))).status == 200
        file.write_text(f"two {OTHER}\n")
        async with asyncio.timeout(5):
            while (await ingress.post(**bearer(OTHER))).status != 200:
                await asyncio.sleep(0.1)
        assert (await ingress.post(**bearer(TOKEN))).status == 401


async def test_a_rotation_refuses_no_request(tmp_path):
    """Old, then both, then the old one with a last day: who sends with either one meanwhile is never refused."""
    file = tmp_path / "tokens"
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    file.write_text(f"old {TOKEN}\n")
    statuses = []
    async with running(ingress_tokens_file=str(file)) as ingress:

        async def sent(token):
            statuses.append((await ingress.post(**bearer(token))).status)
            return statuses[-1]

        assert await sent(TOKEN) == 200
        file.write_text(f"old {TOKEN} until={tomorrow}\nnew {OTHER}\n")
        async with asyncio.timeout(5):
            while (await ingress.post(**bearer(OTHER))).status != 200:
                assert await sent(TOKEN) == 200
                await asyncio.sleep(0.05)
        for _ in range(5):
            assert await sent(TOKEN) == await sent(OTHER) == 200
        file.write_text(f"old {TOKEN} until={yesterday}\nnew {OTHER}\n")
        async with asyncio.timeout(5):
            while (await ingress.post(**bearer(TOKEN))).status != 401:
                assert await sent(OTHER) == 200
                await asyncio.sleep(0.05)
        assert set(statuses) == {200}


async def test_tokens_are_compared_in_constant_time_as_bytes(monkeypatch):
    """Every token's digest is compared, whichever is presented, by `hmac.compare_digest` on bytes of one length."""
    compared = []

    def compare(ours, theirs):
        compared.append((ours, theirs))
        return ours == theirs

    monkeypatch.setattr(hmac, "compare_digest", compare)
    async with running(ingress_tokens=f"one {TOKEN}, two {OTHER}, three {OTHER}x") as ingress:
        for presented, status in ((TOKEN, 200), (OTHER, 200), ("wrong", 401), ("", 401)):
            compared.clear()
            assert (await ingress.post(**bearer(presented))).status == status
            assert len(compared) == 3
            assert {(type(one), len(one)) for pair in compared for one in pair} == {(bytes, 32)}


def test_an_unknown_verifier_is_refused_at_start():
    """The message names the variable and the value."""
    with pytest.raises(OperatorError) as caught:
        load({"EVENTPUSH_INGRESS_VERIFIER": "rot13"})
    assert "EVENTPUSH_INGRESS_VERIFIER" in str(caught.value)
    assert "rot13" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"ingress_tokens": ""},
        {"ingress_tokens": "nameless-token"},
        {"ingress_tokens": f"one {TOKEN} until=tomorrow"},
        {"ingress_tokens": f"one {TOKEN} forever=yes"},
        {"ingress_tokens": "one sha256:abc"},
        {"ingress_tokens": "one t%ken"},
        {"ingress_tokens_file": "/nonexistent/tokens"},
        {"ingress_allow": "10.0.0.0/33"},
        {"ingress_trusted_proxies": "everybody"},
        {"ingress_verifier": "hmac-sha256"},
        {"ingress_verifier": "hmac-sha256", "ingress_signature_secrets_file": "/nonexistent/secrets"},
        {"ingress_verifier": "standard-webhooks", "ingress_signature_secrets": "whsec_!"},
        {"ingress_tls_cert_file": "/nonexistent/cert.pem"},
        {"ingress_tls_key_file": "/nonexistent/key.pem"},
    ],
)
async def test_what_cannot_be_checked_does_not_start(given):
    """Unreadable or invalid tokens, addresses, secrets, certificates: an OperatorError at start, without secrets."""
    with pytest.raises(OperatorError) as caught:
        async with running(**given):
            pass
    assert TOKEN not in str(caught.value)
    assert caught.value.remedy


def test_a_new_token():
    """A new token is good with the line that was made with it, which holds only its hash; no two are alike."""
    token, line = tokens.new("fleet-a")
    assert token not in line
    [entry] = tokens.parse(line, "here")
    assert (entry.name, entry.digest) == ("fleet-a", hashlib.sha256(token.encode()).digest())
    assert tokens.new("fleet-a")[0] != token
    with pytest.raises(OperatorError):
        tokens.new("two words")


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7:4711 ", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ('"[2001:db8::1]:4711"', "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
        ("203.0.113.7.8", None),
        ("0x7f.1", None),
    ],
)
def test_addresses_in_headers(text, address):
    """Addresses are understood with port, brackets and quotes; what is none is none."""
    assert parsed(text) == (ip_address(address) if address else None)


@pytest.mark.parametrize(
    ("peer", "header", "value", "sender"),
    [
        ("198.51.100.1", "x-forwarded-for", "203.0.113.7", "198.51.100.1"),  # not a proxy of ours: its word is nothing
        ("10.0.0.1", "x-forwarded-for", None, "10.0.0.1"),
        ("10.0.0.1", "x-forwarded-for", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "x-forwarded-for", "6.6.6.6, 203.0.113.7", "203.0.113.7"),  # what the sender wrote is left of it
        ("10.0.0.1", "x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "x-forwarded-for", "203.0.113.7, nonsense", None),
        ("10.0.0.1", "x-forwarded-for", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "forwarded", "for=203.0.113.7;proto=https", "203.0.113.7"),
        ("10.0.0.1", "forwarded", 'for=6.6.6.6, For="[2001:db8::1]:80";by=10.0.0.1', "2001:db8::1"),
        ("10.0.0.1", "forwarded", "proto=https", None),
        ("10.0.0.1", "forwarded", "for=unknown", None),
        ("::ffff:10.0.0.1", "x-forwarded-for", "203.0.113.7", "203.0.113.7"),
    ],
)
def test_the_senders_address(peer, header, value, sender):
    """Headers count only from trusted proxies: the rightmost hop that is not one of them is the sender."""
    addresses = Addresses(settings(ingress_trusted_proxies="10.0.0.0/8", ingress_forwarded_header=header))
    other = "forwarded" if header == "x-forwarded-for" else "x-forwarded-for"
    headers = CIMultiDict({other: "for=9.9.9.9"})
    if value is not None:
        headers[header] = value
    assert addresses.sender(peer, CIMultiDictProxy(headers)) == (ip_address(sender) if sender else None)


async def test_the_allowlist():
    """Who is not on it gets 403, whatever it writes in headers; behind a trusted proxy the proxy's word counts."""
    async with running(ingress_allow="203.0.113.0/24, 2001:db8::/32") as ingress:
        assert (await ingress.post()).status == 403
        assert (await ingress.post(X_Forwarded_For="203.0.113.7")).status == 403
    async with running(ingress_allow="203.0.113.0/24", ingress_trusted_proxies="127.0.0.1") as ingress:
        assert (await ingress.post(X_Forwarded_For="203.0.113.7")).status == 200
        assert (await ingress.post(X_Forwarded_For="203.0.113.7, 198.51.100.1")).status == 403
        assert (await ingress.post()).status == 403
    async with running(ingress_allow="127.0.0.0/8") as ingress:
        assert (await ingress.post()).status == 200


# --- signatures --------------------------------------------------------------------------------------------------

SECRETS = (
    "whsec_" + base64.b64encode(b"first secret of all").decode(),
    "whsec_" + base64.b64encode(b"second").decode(),
)


def signed(secret: str, body: bytes, at: datetime | None = None) -> dict[str, Any]:
    at = at or datetime.now(UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": "v1,bm90IHRoaXM= " + Webhook(secret).sign("msg_1", at, body.decode()),
    }


async def test_standard_webhooks():
    """Signed with any of the secrets within five minutes: in. Anything else about it: 401, and nothing is stored."""
    now = datetime.now(UTC)
    async with running(ingress_verifier="standard-webhooks", ingress_signature_secrets=",".join(SECRETS)) as ingress:
        for secret in SECRETS:
            assert (await ingress.post(**signed(secret, BODY))).status == 200
        good = signed(SECRETS[0], BODY)
        wrong = [
            {},
            signed(SECRETS[0], BODY + b" "),
            signed("whsec_" + base64.b64encode(b"third").decode(), BODY),
            signed(SECRETS[0], BODY, now - timedelta(minutes=6)),
            signed(SECRETS[0], BODY, now + timedelta(minutes=6)),
            good | {"webhook-id": "msg_2"},
            good | {"webhook-timestamp": str(int(now.timestamp()) - 1)},
            good | {"webhook-timestamp": "nan"},
            good | {"webhook-signature": "v1"},
            good | {"webhook-signature": "v1,not base64 at all, really"},
            good | {"webhook-signature": "v2,AAAA"},
        ]
        for headers in wrong:
            answer = await ingress.post(**headers)
            assert (answer.status, bool(answer.message)) == (401, True)
            assert "www-authenticate" in answer.headers
        assert (await ingress.post(b"\xff\xfe", **good)).status == 401
        assert len(ingress.publisher.records) == 2


@pytest.mark.parametrize("encoding", ["hex", "base64"])
async def test_hmac_of_the_body(encoding):
    """HMAC-SHA256 of the bytes as sent, in the configured header, with or without `sha256=`."""
    digest = hmac.digest(b"a secret", BODY, "sha256")
    written = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    given: dict[str, Any] = {
        "ingress_verifier": "hmac-sha256",
        "ingress_signature_secrets": "another, a secret",
        "ingress_signature_header": "X-Hub-Signature",
        "ingress_signature_encoding": encoding,
    }
    async with running(**given) as ingress:
        assert (await ingress.post(X_Hub_Signature=written)).status == 200
        assert (await ingress.post(X_Hub_Signature=f"sha256={written}")).status == 200
        for wrong in (None, "", written[:-2], "ü" * 8, written + "00", hmac.digest(b"x", BODY, "sha256").hex()):
            assert (await ingress.post(X_Hub_Signature=wrong)).status in {400, 401}
        assert (await ingress.post(BODY + b" ", X_Hub_Signature=written)).status == 401
        assert len(ingress.publisher.records) == 2


def sender_of(record) -> bytes | None:
    return dict(record.headers).get(topics.HEADER_SENDER)


async def test_the_sender_is_the_name_of_the_token():
    """Each record carries the name of the token that its request was sent with."""
    async with running(ingress_tokens=f"fleet-a {TOKEN}, fleet.b {OTHER}") as ingress:
        for token in (TOKEN, OTHER):
            assert (await ingress.post(b"[{},{}]", **bearer(token))).status == 200
        assert [sender_of(record) for record in ingress.publisher.records] == [b"fleet-a"] * 2 + [b"fleet.b"] * 2


async def test_the_sender_is_the_name_of_the_signature_secret(tmp_path):
    """Each record carries the name of the secret that signed its request, `secret-` and a number by default."""
    file = tmp_path / "secrets"
    file.write_text(f"{SECRETS[1]}   name=fleet-b\n")
    given: dict[str, Any] = {"ingress_verifier": "standard-webhooks", "ingress_signature_secrets_file": str(file)}
    async with running(ingress_signature_secrets=SECRETS[0], **given) as ingress:
        for secret in SECRETS:
            assert (await ingress.post(**signed(secret, BODY))).status == 200
        assert [sender_of(record) for record in ingress.publisher.records] == [b"secret-1", b"fleet-b"]


async def test_the_token_names_the_sender_of_a_signed_request():
    """A request with both checks carries the token's name."""
    both: dict[str, Any] = {"ingress_tokens": f"one {TOKEN}", "ingress_verifier": "standard-webhooks"}
    async with running(ingress_signature_secrets=SECRETS[0], **both) as ingress:
        assert (await ingress.post(**bearer(TOKEN), **signed(SECRETS[0], BODY))).status == 200
        assert (await ingress.post(**bearer(TOKEN))).status == 401
        assert [sender_of(record) for record in ingress.publisher.records] == [b"one"]


@pytest.mark.parametrize(
    ("entry", "parsed_as"),
    [
        ("a secret", ("secret-1", "a secret")),
        ("a secret name=fleet-a", ("fleet-a", "a secret")),
        ("name=fleet-a", ("secret-1", "name=fleet-a")),
        ("whsec_YQ==", ("secret-1", "whsec_YQ==")),
        ("x\tname=a_b.c-1", ("a_b.c-1", "x")),
    ],
)
def test_an_entry_of_signature_secrets(entry, parsed_as):
    """An entry is a secret, which may hold blanks, and optionally its name."""
    assert signatures.parse(f" {entry} ,") == [signatures.Secret(*parsed_as)]


@pytest.mark.parametrize("name", ["", "ä", "a/b", "x" * 65])
def test_an_invalid_name_of_a_signature_secret(name):
    """It does not start, and the message says which secret without showing it."""
    with pytest.raises(OperatorError) as caught:
        signatures.parse(f"good\nhush name={name}")
    assert caught.value.what == "signature secret 2 has an invalid name"
    assert "hush" not in str(caught.value)


async def test_messages_to_the_sender_and_to_the_operator():
    """What was wrong with token, signature and secret, in the words of the documentation."""
    async with running(ingress_tokens=f"one {TOKEN}") as ingress:
        assert (await ingress.post()).message == "Authorization header missing; send `Authorization: Bearer <token>`"
        assert (await ingress.post(**bearer("wrong"))).message == "unknown or expired bearer token"
    async with running(ingress_verifier="hmac-sha256", ingress_signature_secrets="x") as ingress:
        assert (await ingress.post()).message == "request not signed; missing X-Signature"
        assert (await ingress.post(X_Signature="00")).message == "signature does not match the body (hmac-sha256)"
    with pytest.raises(OperatorError) as caught:
        async with running(ingress_verifier="standard-webhooks", ingress_signature_secrets="whsec_!"):
            pass
    assert caught.value.what == "signature secret 1 is not a valid standard-webhooks secret"


# --- rates -------------------------------------------------------------------------------------------------------


async def test_rates():
    """Beyond the rate of an address or a token: 429 with Retry-After; another token is not touched."""
    async with running(ingress_tokens=f"one {TOKEN}, two {OTHER}", ingress_rate_per_token=3) as ingress:
        answers = [await ingress.post(**bearer(TOKEN)) for _ in range(20)]
        assert {answer.status for answer in answers} == {200, 429}
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.headers["retry-after"] == "1"
        assert "token" in refused.message
        assert (await ingress.post(**bearer(OTHER))).status == 200
    async with running(ingress_rate_per_address=3, ingress_trusted_proxies="127.0.0.1") as ingress:
        near = [await ingress.post(X_Forwarded_For=f"2001:db8::{n}") for n in range(20)]
        assert {answer.status for answer in near} == {200, 429}  # one /64 is one sender
        far = [await ingress.post(X_Forwarded_For=f"2001:db8:{n}::1") for n in range(1, 20)]
        assert {answer.status for answer in far} == {200}


# --- TLS ---------------------------------------------------------------------------------------------------------


async def test_tls_and_a_new_certificate(tmp_path):
    """The process speaks TLS, not below 1.2; a new certificate is in force without a restart."""
    first, second = trustme.CA(), trustme.CA()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def issue(ca):
        issued = ca.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(str(cert))
        issued.private_key_pem.write_to_path(str(key))

    async def trusted(ca):
        context = ssl.create_default_context()
        ca.configure_trust(context)
        try:
            async with (
                ClientSession() as session,
                session.get(f"https://localhost:{ingress.port}/healthz", ssl=context) as answer,
            ):
                return answer.status == 200
        except (ClientConnectorCertificateError, ClientError):
            return False

    issue(first)
    context = Tls(settings(ingress_tls_cert_file=str(cert), ingress_tls_key_file=str(key))).context
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    async with running(ingress_tls_cert_file=str(cert), ingress_tls_key_file=str(key)) as ingress:
        assert await trusted(first)
        assert not await trusted(second)
        issue(second)
        async with asyncio.timeout(5):
            while not await trusted(second):
                await asyncio.sleep(0.1)
        assert not await trusted(first)


async def test_client_certificates(tmp_path):
    """When a client CA is set, only who shows a certificate of it comes in."""
    server_ca, client_ca = trustme.CA(), trustme.CA()
    issued = server_ca.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client_ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    given: dict[str, Any] = {
        f"ingress_tls_{n}_file": str(tmp_path / f"{f}.pem")
        for n, f in (("cert", "cert"), ("key", "key"), ("client_ca", "ca"))
    }

    async def comes_in(certificate):
        context = ssl.create_default_context()
        server_ca.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        try:
            async with (
                ClientSession() as session,
                session.get(f"https://localhost:{ingress.port}/healthz", ssl=context) as answer,
            ):
                return answer.status == 200
        except ClientError:
            return False

    async with running(**given) as ingress:
        assert await comes_in(client_ca.issue_cert("sender@example.org"))
        assert not await comes_in(None)
        assert not await comes_in(trustme.CA().issue_cert("stranger@example.org"))


# --- logs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def captured():
    """All logs of the test, as JSON lines."""
    stream = io.StringIO()
    root = stdlib_logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.setup(settings(log_format="json", log_level="debug"), "test", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_logs_hold_no_secret_and_no_event(captured):
    """Refusals, faults and reloads are logged without a token, a secret, a signature or an event's content."""

    class Broken(MemoryPublisher):
        def publish(self, records, callback):
            raise RuntimeError("a fault")

    given: dict[str, Any] = {
        "ingress_tokens": f"one {TOKEN}",
        "ingress_verifier": "hmac-sha256",
        "ingress_signature_secrets": "the-secret-of-signatures",
    }
    signature = hmac.digest(b"the-secret-of-signatures", BODY, "sha256").hex()
    async with running(publisher=Broken(), **given) as ingress:
        assert (await ingress.post(**bearer(TOKEN), X_Signature=signature)).status == 503
        assert (await ingress.post(**bearer("a-wrong-token"), X_Signature=signature)).status == 401
        assert (await ingress.post(**bearer(TOKEN), X_Signature="00ff")).status == 401
        got = request(b"", method="GET", path=f"/metrics?token={TOKEN}", Content_Length=None)
        assert TOKEN.encode() not in (await ingress.send(got)).body
        assert (await ingress.send(request(X_Nul=f"{TOKEN}\x00", **bearer(TOKEN)))).status == 400
    logged = captured.getvalue() + generate_latest().decode()
    assert "request failed" in logged
    assert "request rejected" in logged
    for secret in (TOKEN, "a-wrong-token", "the-secret-of-signatures", signature, "350612075195931", "Ingoriya"):
        assert secret not in logged


async def test_a_problem_is_one_line_with_its_receipt_id(captured):
    """A fault and a refusal are one line each, with the receipt id of the answer; an accepted event is none."""

    class Fragile(MemoryPublisher):
        def publish(self, records, callback):
            if records[0].key == b"bad":
                raise RuntimeError("a fault")
            super().publish(records, callback)

    async with running(publisher=Fragile()) as ingress:
        captured.truncate(0)
        assert [(await ingress.post()).status for _ in range(20)] == [200] * 20
        fault, refusal = await ingress.post(b'{"IMEI":"bad"}'), await ingress.post(b"[7]")
        lines = [json.loads(line) for line in captured.getvalue().strip("\0").splitlines()]
        assert [(line["receipt_id"], line["level"]) for line in lines] == [
            (fault.headers["x-receipt-id"], "error"),
            (refusal.headers["x-receipt-id"], "info"),
        ]
        assert lines[1]["reason"] == "not_object"
        assert lines[1]["address"] == "127.0.0.1"


def test_a_flood_of_refusals_is_no_flood_of_lines(captured):
    """Ten lines a second, then a number; what the sender cannot fix is not logged at all."""
    now = 100.0
    rejections = RejectionLog(lambda: now)
    for _ in range(1_000):
        rejections.log(RequestError(Rejection.NOT_JSON, "m"), "r", "192.0.2.1")
        rejections.log(unavailable(Rejection.KAFKA_AWAY, "m"), "r", "192.0.2.1")
    now = 101.0
    rejections.log(RequestError(Rejection.NOT_JSON, "m"), "r", "192.0.2.1")
    lines = [json.loads(line) for line in captured.getvalue().splitlines()]
    assert len(lines) == 12
    assert lines[10]["count"] == 990


def test_masked_fields(captured):
    """Fields named like secrets are masked, whoever passes them."""
    structlog.get_logger("x").warning("oops", token=TOKEN, Authorization="x", authorization="y" * 20)
    assert TOKEN not in captured.getvalue()
    assert "y" * 20 not in captured.getvalue()


def test_reloading_looks_at_changes_only(tmp_path):
    """A file is read once at start and once for each change, also when it is replaced by another; not while it still
    changes from one look to the next.
    """
    file, reads = tmp_path / "file", []
    file.write_text("a")
    watcher = FileWatcher([file], lambda: reads.append(file.read_text()))
    watcher.poll()
    replacement = tmp_path / "new"
    replacement.write_text("b")
    replacement.rename(file)
    for _ in range(3):
        watcher.poll()
    assert reads == ["a", "b"]
    for half_written in ("c", "cd", "cde"):
        file.write_text(half_written)
        watcher.poll()
    assert reads == ["a", "b"]
    watcher.poll()
    watcher.poll()
    assert reads == ["a", "b", "cde"]


@pytest.mark.parametrize("text", ["", "# nothing\n", f"one {TOKEN}\ntwo sha256:12", "two\n"])
def test_a_file_without_good_tokens_changes_nothing(tmp_path, captured, text):
    """Emptied or half-written: the old tokens stay in force, and one line says so, without the file's content."""
    file = tmp_path / "tokens"
    file.write_text(f"one {TOKEN}\n")
    held = tokens.Tokens(settings(ingress_tokens_file=str(file)))
    file.write_text(text)
    for _ in range(4):
        held.watcher.poll()
    assert held.check([f"Bearer {TOKEN}"]) == "one"
    [line] = captured.getvalue().splitlines()
    assert "changed files are unusable; the old content stays in force" in line
    assert TOKEN not in line


async def test_refusals_are_counted_by_sender():
    """A refused request of a known sender counts by its reason; one of a stranger counts for nobody.

    With tokens and signatures, a good token does not make up for a bad signature.
    """
    name = "eventpush_ingress_refusals_total"

    def refused(reason: str) -> float:
        return REGISTRY.get_sample_value(name, {"sender": "counted", "reason": reason}) or 0.0

    before = refused("not_json"), refused("bad_signature")
    async with running(ingress_tokens=f"counted {TOKEN}") as door:
        assert (await door.post(b"{", **bearer(TOKEN))).status == 400
        assert (await door.post(b"{", **bearer("wrong"))).status == 401
        assert (await door.post(**bearer(TOKEN))).status == 200
    assert refused("not_json") == before[0] + 1
    both: dict[str, Any] = {"ingress_verifier": "standard-webhooks", "ingress_signature_secrets": SECRETS[0]}
    async with running(ingress_tokens=f"counted {TOKEN}", **both) as door:
        assert (await door.post(**bearer(TOKEN))).status == 401  # unsigned: not attributed to the sender
        assert (await door.post(**bearer(TOKEN), **signed(SECRETS[0], BODY + b" "))).status == 401
        assert (await door.post(**bearer(TOKEN), **signed(SECRETS[0], BODY))).status == 200
    assert refused("bad_signature") == before[1] + 1
