"""The guard in front of every page: refuses foreign web pages, asks for the token, and sets the security headers.

NiceGUI sends pages with inline scripts. The guard gives each of them the page's nonce, so that the content security
policy needs no `unsafe-inline` for scripts: markup that reached a page could still run nothing.
"""

import asyncio
import contextlib
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventpush.console.sessions import COOKIE, Sessions
from runtime.platform.origin import foreign_host, is_cross_site, is_loopback

_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_ASSETS = ("/_nicegui/", "/outlines.json")
_SIGN_IN = "/sign-in"
_FORM_MAX_BYTES = 4_096
_WRONG_TOKEN_DELAY_S = 1.0
_WEBSOCKET_REFUSED = 1008  # policy violation (RFC 6455, section 7.4.1)

_SIGN_IN_PAGE = """<!doctype html>
<html lang="en"><head><title>eventpush console: sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>body{{font:1rem system-ui,sans-serif;display:grid;place-items:center;min-height:90vh}}
form{{display:grid;gap:.75rem;width:min(20rem,90vw)}}input,button{{font:inherit;padding:.5rem}}</style></head>
<body><main><form method="post" action="/sign-in"><h1>eventpush console</h1>
<p role="alert">{problem}</p>
<label for="token">The operator's token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button></form></main></body></html>
"""


class Guard:
    """An ASGI application around the pages."""

    def __init__(self, app: ASGIApp, host: str, sessions: Sessions) -> None:
        self.app = app  # NiceGUI looks for the application under this name
        self._host = host
        self._sessions = sessions
        self._needs_sign_in = not is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it through."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if problem := self._refusal(headers):
            await _refuse(scope, send, 403, problem)
        elif scope["path"] == "/healthz":
            await _reply(send, 200, b"ok\n")
        elif self._needs_sign_in and scope["path"] == _SIGN_IN:
            await self._sign_in(scope, receive, send)
        elif self._needs_sign_in and not self._sessions.is_signed_in(_session(headers)):
            await _refuse(scope, send, 303, "sign in first", location=_SIGN_IN)
        elif scope["type"] == "http":
            await _with_headers(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        """Return why a request is not answered; None if it is."""
        if is_cross_site(headers):
            return "requests of other web pages are not answered; open this address from the address bar"
        # With a sign-in, a foreign name only means a proxy: the cookie belongs to the name it was set under.
        if not self._needs_sign_in and (host := foreign_host(headers, self._host)) is not None:
            return f"requests for the host {host[:100]!r} are not answered"
        return None

    async def _sign_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await _page(send, 200, "")
            return
        form = parse_qs(await _body(receive), max_num_fields=2)
        session = self._sessions.sign_in(form.get("token", [""])[0])
        if session is None:
            await asyncio.sleep(_WRONG_TOKEN_DELAY_S)
            await _page(send, 403, "That is not the token.")
            return
        cookie = f"{COOKIE}={session}; HttpOnly; SameSite=Strict; Path=/" + (
            "; Secure" if scope.get("scheme") == "https" else ""
        )
        await _reply(send, 303, b"", ((b"location", b"/"), (b"set-cookie", cookie.encode())))


def _session(headers: Headers) -> str:
    cookies = SimpleCookie()
    with contextlib.suppress(CookieError):
        cookies.load(headers.get("cookie", ""))
    return str(cookies[COOKIE].value) if COOKIE in cookies else ""


async def _body(receive: Receive) -> str:
    body = bytearray()
    while len(body) <= _FORM_MAX_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body.decode("ascii", "replace")
    return ""


async def _refuse(scope: Scope, send: Send, status: int, why: str, *, location: str | None = None) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _WEBSOCKET_REFUSED, "reason": why[:100]})
        return
    extra = ((b"location", location.encode()),) if location else ()
    await _reply(send, status, f"{why}\n".encode(), extra)


async def _page(send: Send, status: int, problem: str) -> None:
    body = _SIGN_IN_PAGE.format(problem=problem).encode()
    await _reply(send, status, body, ((b"content-type", b"text/html; charset=utf-8"),))


async def _reply(send: Send, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    headers = [*_HEADERS, _policy(secrets.token_urlsafe(16)), (b"content-length", str(len(body)).encode()), *extra]
    if not any(name == b"content-type" for name, _ in extra):
        headers.append((b"content-type", b"text/plain; charset=utf-8"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _policy(nonce: str) -> tuple[bytes, bytes]:
    return b"content-security-policy", _POLICY.format(nonce=nonce).encode()


async def _with_headers(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the application answer; add headers, and the nonce to the scripts of a page."""
    if not scope["path"].startswith(_ASSETS):  # a compressed page could not be given its nonce
        kept = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        scope = {**scope, "headers": kept}
    page: Message | None = None
    body = bytearray()

    async def forward(message: Message) -> None:
        nonlocal page
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *_HEADERS]}
            if _is_page(message):
                page = message
                return
        elif page is not None and message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                await _send_page(send, page, bytes(body))
            return
        await send(message)

    await app(scope, receive, forward)


def _is_page(start: Message) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in start["headers"])


async def _send_page(send: Send, start: dict[str, Any] | Message, body: bytes) -> None:
    nonce = secrets.token_urlsafe(16)
    # Data inside the page cannot match: NiceGUI writes `<` in it as `&lt;`.
    body = body.replace(b"<script", f'<script nonce="{nonce}"'.encode())
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    headers += [(b"content-length", str(len(body)).encode()), _policy(nonce), (b"cache-control", b"no-store")]
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
