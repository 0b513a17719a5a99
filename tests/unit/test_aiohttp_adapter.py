"""What the adapter uses of aiohttp's private parts exists: an upgrade that takes it away fails here first."""

import ast
import asyncio
from collections import deque
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_parser import HttpRequestParserC
from aiohttp.web_protocol import RequestHandler

from runtime.adapters import aiohttp as adapter

#: Private names of `RequestHandler` and its base, and what they must be on a new connection.
PRIVATE: dict[str, Any] = {
    "_buffer_paused": bool,
    "_current_request": type(None),
    "_drain_helper": object,
    "_force_close": bool,
    "_handler_waiter": type(None),
    "_messages": deque,
    "_msg_queue_resume_size": int,
    "_parser": HttpRequestParserC,
    "_reading_paused": bool,
    "_request_count": int,
    "_request_in_progress": bool,
    "_resume_reading_if_drained": object,
    "_task_handler": type(None),
}


def used() -> set[str]:
    """Private attributes that the adapter's source reads or sets."""
    tree = ast.parse(Path(adapter.__file__).read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_the_list_of_private_names_is_complete():
    """Every private name that the adapter uses is in the list, and nothing else is."""
    assert used() == set(PRIVATE)


async def test_every_private_name_exists():
    """On a connection of the installed aiohttp, each one is of the expected kind."""

    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError

    connection = RequestHandler(web.Server(handler), loop=asyncio.get_running_loop())
    for name, kind in PRIVATE.items():
        assert isinstance(getattr(connection, name), kind), name
    assert connection._parser is not None
    assert callable(connection._parser.message_consumed)
    assert adapter.has_c_parser()


def test_nothing_else_of_ours_uses_private_names_of_aiohttp():
    """Outside of the adapter, no module of the ingress imports from aiohttp's protocol or parser."""
    root = Path(adapter.__file__).parents[2]
    for module in (root / "ingress").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiohttp"):
                assert node.module in {"aiohttp", "aiohttp.http"}, module
