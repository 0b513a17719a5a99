"""The console's guard: foreign pages, sign-in, security headers."""

import re
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from eventpush.console import guard
from eventpush.console.guard import Guard
from eventpush.console.sessions import COOKIE, Sessions
from runtime.platform.origin import is_loopback

PAGE = b'<html><head><script>one()</script></head><body><script type="module">two("&lt;script>")</script></body></html>'


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers every path with a page, in two pieces."""
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(PAGE)).encode())]
    if any(name == b"accept-encoding" for name, _ in scope["headers"]):
        headers.append((b"x-may-compress", b"1"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE[:20], "more_body": True})
    await send({"type": "http.response.body", "body": PAGE[20:]})


def client(host: str = "127.0.0.1", token: str | None = None, base: str = "http://127.0.0.1:8090") -> httpx.AsyncClient:
    application = Guard(page, host, Sessions(token))
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url=base)


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_WRONG_TOKEN_DELAY_S", 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8090", "Origin": "http://evil.example:8090", "Sec-Fetch-Site": "same-origin"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_requests_of_other_pages_are_refused(headers: dict[str, str], method: str) -> None:
    """A foreign Origin or Host (DNS rebinding) and a request marked as another site's get 403 and no page."""
    async with client() as http:
        answer = await http.request(method, "/", headers=headers)
    assert answer.status_code == 403
    assert "one()" not in answer.text


@pytest.mark.parametrize("name", ["127.0.0.1:8090", "localhost:8090", "[::1]:8090"])
async def test_own_pages_are_answered(name: str) -> None:
    """Loopback names and addresses, with the headers that a browser sends from the console's own page."""
    headers = {"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}
    async with client() as http:
        assert (await http.get("/", headers=headers)).status_code == 200


async def test_each_script_gets_a_fresh_nonce() -> None:
    """The policy allows scripts by nonce alone; every script of the page has it, and no two pages share one."""
    nonces = set()
    for _ in range(2):
        async with client() as http:
            answer = await http.get("/")
        policy = answer.headers["content-security-policy"]
        (nonce,) = re.findall(r"script-src 'self' 'nonce-([^']+)' 'unsafe-eval';", policy)
        assert re.findall(r'<script nonce="([^"]+)"', answer.text) == [nonce, nonce]
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert "&lt;script>" in answer.text
        nonces.add(nonce)
    assert len(nonces) == 2


async def test_the_headers_of_every_answer() -> None:
    """No other origin may frame, embed or sniff an answer; pages are not kept in caches."""
    async with client() as http:
        answers = [await http.get("/"), await http.get("/", headers={"Origin": "null"}), await http.get("/healthz")]
    for answer in answers:
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "'unsafe-inline'" not in answer.headers["content-security-policy"].split("style-src")[0]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answers[0].headers["cache-control"] == "no-store"


async def test_beyond_this_machine_every_page_needs_a_session() -> None:
    """Without a cookie every path leads to the sign-in; a wrong token gives none; the right one opens the pages."""
    async with client("::", "right", "http://console.example") as http:
        answer = await http.get("/find")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
        assert 'name="token"' in (await http.get("/sign-in")).text
        wrong = await http.post("/sign-in", data={"token": "wrong"})
        assert (wrong.status_code, COOKIE in http.cookies) == (403, False)
        right = await http.post("/sign-in", data={"token": "right"})
        assert (right.status_code, right.headers["location"]) == (303, "/")
        assert "HttpOnly; SameSite=Strict" in right.headers["set-cookie"]
        assert (await http.get("/find")).status_code == 200
    async with client("::", "right", "http://console.example") as http:
        assert (await http.get("/", headers={"Cookie": f"{COOKIE}=guessed"})).status_code == 303


async def test_health_needs_no_session() -> None:
    """A probe can ask whether the console runs."""
    async with client("::", "right") as http:
        assert (await http.get("/healthz")).text == "ok\n"


async def test_a_foreign_websocket_is_closed() -> None:
    """The live connection is refused like a page: it carries everything that the pages show."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    headers = [(b"host", b"127.0.0.1:8090"), (b"origin", b"http://evil.example")]
    scope = {"type": "websocket", "path": "/_nicegui_ws/socket.io/", "headers": headers}
    await Guard(page, "127.0.0.1", Sessions(None))(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_sessions_end_and_are_bounded() -> None:
    """A session ends after twelve hours; the hundred-and-first ends the oldest; no token means no session."""
    now = 0.0
    sessions = Sessions("t", lambda: now)
    first, *rest = [sessions.sign_in("t") or "" for _ in range(101)]
    assert not sessions.is_signed_in(first)
    assert all(sessions.is_signed_in(session) for session in rest)
    now = 12 * 3600 + 1.0
    assert not sessions.is_signed_in(rest[-1])
    assert Sessions(None).sign_in("") is None
    assert not Sessions(None).is_token("")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("::", False), ("10.0.0.1", False), ("ops", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    """Only loopback addresses and localhost are reached from this machine alone."""
    assert is_loopback(host) is expected
