"""`/docs`: the OpenAPI document as one self-contained HTML page."""

import json
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
code,pre{font:14px/1.4 ui-monospace,monospace;background:#f4f4f4;border-radius:4px}
code{padding:.1em .3em}pre{padding:1em;overflow:auto}
table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #ddd;padding:.4em;text-align:left;vertical-align:top}
h2{margin-top:2.5rem}.method{color:#0a5}
@media(prefers-color-scheme:dark){
body{color:#ddd;background:#181818}code,pre{background:#282828}td,th{border-color:#444}}
"""


def page(document: dict[str, Any]) -> bytes:
    """Make the page for an OpenAPI document."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{_text(info['description'])}</p>",
        "<p>For programs: <a href=openapi.json>openapi.json</a></p>",
        _first_event(document),
    ]
    for path, methods in document["paths"].items():
        parts += [_operation(method, path, operation) for method, operation in methods.items()]
    parts += [_fields(document["components"]["schemas"]["Event"])]
    title = escape(info["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style>{''.join(parts)}</html>"
    ).encode()


def _first_event(document: dict[str, Any]) -> str:
    content = document["paths"]["/api/events"]["post"]["requestBody"]["content"]["application/json"]
    example = next(iter(content["examples"].values()))["value"]
    schemes = document["components"]["securitySchemes"]
    headers = ["Content-Type: application/json"]
    headers += ["Authorization: Bearer $TOKEN"] if "bearer" in schemes else []
    signed = schemes.get("signature")
    headers += [f"{signed['name']}: $SIGNATURE"] if signed else []
    options = " ".join(f'-H "{header}"' for header in headers)
    commands = f"echo '{json.dumps(example)}' > event.json\ncurl -i $URL/api/events {options} --data-binary @event.json"
    note = f"<p><code>$SIGNATURE</code>: {_text(signed['description'])}</p>" if signed else ""
    return (
        f"<h2>Your first event</h2><pre>{escape(commands)}</pre>{note}"
        "<p>Add <code>/validate</code> to the path to validate an event without storing it.</p>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{status}</code><td>{_text(response['description'])}"
        for status, response in operation["responses"].items()
    )
    description = f"<p>{_text(operation['description'])}</p>" if "description" in operation else ""
    return (
        f"<h2 id={operation['operationId']}><span class=method>{method.upper()}</span> {escape(path)}</h2>"
        f"<p>{_text(operation['summary'])}.</p>{description}<table>{rows}</table>"
    )


def _fields(event: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{'yes' if name in event['required'] else 'no'}"
        f"<td>{_text(_type(schema))}<td>{_text(schema.get('description', ''))}"
        for name, schema in event["properties"].items()
    )
    return f"<h2>The event</h2><table><tr><th>Field<th>Required<th>Type<th>{rows}</table>"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    bounds = [f"at most {schema['maxLength']} characters"] if "maxLength" in schema else []
    bounds += [f"`{schema['pattern']}`"] if "pattern" in schema else []
    return ", ".join([str(schema.get("type", "")), *bounds])


def _text(text: str) -> str:
    """Escape text, and turn what is between backticks into code."""
    return "".join(
        f"<code>{escape(part)}</code>" if number % 2 else escape(part) for number, part in enumerate(text.split("`"))
    )
