"""The OpenAPI document is valid, complete, and true: what it says is what the ingress does."""

import asyncio
import json
import re
import threading
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from openapi_spec_validator import validate
from schemathesis.specs.openapi.checks import positive_data_acceptance

from ingress.docs_page import page
from ingress.errors import STATUS
from ingress.openapi import document, examples
from schemas.event_types import TYPES
from schemas.validation import ClockLimits, ValidEvent
from schemas.validation import validate as validate_event
from tests.unit.ingress_support import request, running, settings

EXAMPLES = hypothesis_settings().max_examples * 40 // 100
EVERYTHING = {
    "ingress_strict": True,
    "ingress_tokens": "one a-token",
    "ingress_verifier": "hmac-sha256",
    "ingress_signature_secrets": "x",
    "ingress_allow": "127.0.0.0/8",
    "ingress_rate_per_token": 5,
}


@pytest.mark.parametrize("configured", [{}, {"ingress_strict": True}, EVERYTHING])
def test_the_document_is_valid(configured):
    """It is OpenAPI 3.1, whatever the settings."""
    validate(document(settings(**configured)))


def test_every_reason_is_documented():
    """With everything switched on, each reason has an example: at /api/events, or where no operation is met."""
    described = document(settings(**EVERYTHING))
    responses = described["paths"]["/api/events"]["post"]["responses"]
    documented = {
        reason
        for status, response in [*responses.items(), *described["components"]["responses"].items()]
        if status != "200"
        for reason in response["content"]["application/json"]["examples"]
    }
    assert documented == {reason.value for reason in STATUS}


def test_examples_are_valid_events():
    """There is an example for every event type that the API names, and each keeps every rule."""
    schema = document(settings())["components"]["schemas"]["Event"]
    assert set(examples()) == set(TYPES)
    for example in examples().values():
        jsonschema.validate(example["value"], schema)
        assert isinstance(validate_event(json.dumps(example["value"]).encode(), 2**60, ClockLimits(0, 0)), ValidEvent)


async def test_the_ingress_shows_both():
    """/openapi.json is the document; /docs is a page that loads nothing from anywhere."""
    async with running() as ingress:
        get = request(b"", method="GET", path="/openapi.json")
        assert json.loads((await ingress.send(get)).body) == document(settings())
        answer = await ingress.send(get.replace(b"/openapi.json", b"/docs"))
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        html = answer.body.decode()
        assert not re.search(r"(src|href)=.?(https?:)?//|@import|url\(|<script", html)
        for path in ("/api/events", "/api/events/validate", "Retry-After", "Device_Time"):
            assert path in html


async def test_the_page_says_how_to_get_in():
    """The first request on the page carries what these settings ask for: token, signature, and how that one is made."""
    html = page(document(settings(**EVERYTHING))).decode()
    for said in ("Authorization: Bearer $TOKEN", "X-Signature: $SIGNATURE", "HMAC-SHA256", "in hex"):
        assert said in html
    standard = EVERYTHING | {"ingress_verifier": "standard-webhooks"}
    assert "webhook-id.webhook-timestamp.body" in page(document(settings(**standard))).decode()
    assert "$TOKEN" not in page(document(settings())).decode()


def test_the_page_escapes():
    """Nothing from the document becomes HTML by itself."""
    described = document(settings())
    described["info"]["description"] = "<script>`a<b`"
    assert b"<script>" not in page(described)
    assert b"&lt;script&gt;<code>a&lt;b</code>" in page(described)


@pytest.fixture(scope="module", params=[False, True], ids=["store", "strict"])
def url(request):
    """An ingress in a thread of its own, for clients that are not asynchronous."""
    ready, ends = threading.Event(), threading.Event()
    found = {}

    async def serve():
        async with running(ingress_strict=request.param, ingress_keepalive_s=300) as ingress:
            found["url"] = f"http://127.0.0.1:{ingress.port}"
            ready.set()
            await asyncio.to_thread(ends.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield found["url"]
    ends.set()
    thread.join(15)


@pytest.mark.fuzz
def test_schemathesis_finds_nothing(url):
    """Requests made from the document, and some that break it: only documented answers, and no 5xx but 503."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for found in schema.get_all_operations():
        operation: Any = found  # a broken document fails at ok()

        @hypothesis_settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.ok().as_strategy())
        def attempt(case):
            # A schema cannot say that one time is not after another: what it allows, the rules may still refuse.
            case.call_and_validate(base_url=url, excluded_checks=[positive_data_acceptance])

        attempt()
