"""Values of the contract's fields, from text that people and files have: JSON out. Pure."""

import json
import re
from datetime import UTC, datetime

from schemas.event import SENT_FIELDS
from schemas.json_text import NotJsonError, integer_of, members_of, string_of
from schemas.rules import UTC_TIME

_MICROSECONDS = 1_000_000
_MILLISECONDS_FROM, _MICROSECONDS_FROM = 10**11, 10**14  # as seconds these are the years 5138 and 3170843


class CastError(ValueError):
    """Why a value cannot be given the type of its field."""


def value_text(name: str, value: str) -> str:
    """Return the JSON for a value given as text: of the field's type, else JSON as it is, else a string."""
    known = SENT_FIELDS.get(name)
    if known is None or (value == "null" and known.nullable):
        return value if _is_json(value) else json.dumps(value)
    if known.type is int and _is_json(value):
        return value
    return value if value.startswith('"') and _is_json(value) else json.dumps(value)


def cast(name: str, text: str) -> str:
    """Return a value's JSON in the type and format that the contract asks for; raise `CastError` if it cannot be.

    Numbers become strings, and strings numbers. A time may be ISO 8601 (without an offset: UTC), or seconds,
    milliseconds or microseconds since the epoch.
    """
    known = SENT_FIELDS.get(name)
    if known is None:
        raise CastError(f"{name} is not a field of the contract: nothing to cast it to")
    if text == "null":
        raise CastError(f"{name} is null")
    plain = string_of(text).strip() if text.startswith('"') else text
    if known.type is int:
        number = integer_of(plain)
        if number is None:
            raise CastError(f"{name} {plain!r} is not an integer")
        return str(number)
    if known.format is UTC_TIME:
        return json.dumps(_time(name, plain))
    if not text.startswith('"') and not re.fullmatch(r"-?\d+", text):
        raise CastError(f"{name} {text[:40]} has no plain text")
    return json.dumps(plain, ensure_ascii=False)


def _time(name: str, plain: str) -> str:
    if re.fullmatch(r"\d{9,16}(\.\d{1,9})?", plain):
        number = float(plain)
        unit = 1 if number >= _MICROSECONDS_FROM else 1_000 if number >= _MILLISECONDS_FROM else _MICROSECONDS
        whole, _, fraction = plain.partition(".")
        us = int(whole) * unit + round(float(f"0.{fraction or 0}") * unit)
        moment = datetime.fromtimestamp(us // _MICROSECONDS, UTC).replace(microsecond=us % _MICROSECONDS)
    else:
        try:
            parsed = datetime.fromisoformat(plain)
        except ValueError:
            raise CastError(f"{name} {plain!r} is neither ISO 8601 nor a time since the epoch") from None
        moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f+0000")


def _is_json(text: str) -> bool:
    try:
        members_of(text.encode())
    except NotJsonError:
        return False
    return True
