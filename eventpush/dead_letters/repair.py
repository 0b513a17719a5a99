"""Repair a payload: replace text, rename, cast and set fields, or call a function. Pure, but for that function.

The steps are taken in that order. What no step touches stays as the sender wrote it, byte for byte, but for white space
between the members.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from eventpush.field_values import CastError, cast, value_text
from schemas.json_text import Member, NotJsonError, members_of

Function = Callable[[dict[str, Any]], "dict[str, Any] | None"]


class RepairError(Exception):
    """Why a payload could not be repaired."""


class Repair(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is changed in each payload. Kept in the audit as JSON."""

    replacements: tuple[tuple[str, str], ...] = ()  # regular expression and text, on the whole payload
    renames: tuple[tuple[str, str], ...] = ()  # old name and new name
    casts: tuple[str, ...] = ()  # fields that get the type and format of the contract
    assignments: tuple[tuple[str, str], ...] = ()  # field and value
    script: str | None = None  # path:function
    script_sha256: str | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether payloads are sent again as they are."""
        return self == Repair()


def apply(repair: Repair, payload: bytes, function: Function | None = None) -> bytes:
    """Return the repaired payload; raise `RepairError` if a step cannot be taken."""
    if repair.replacements:
        payload = _replaced(payload, repair.replacements)
    if repair.renames or repair.casts or repair.assignments:
        members = _members(payload)
        for old, new in repair.renames:
            members = _renamed(members, old, new)
        for name in repair.casts:
            members = _with_value(members, name, partial(_cast, name))
        for name, value in repair.assignments:
            members = _set(members, name, value_text(name, value))
        payload = _joined(members)
    return payload if function is None else _called(payload, function)


def _cast(name: str, text: str) -> str:
    try:
        return cast(name, text)
    except CastError as error:
        raise RepairError(str(error)) from None


def _replaced(payload: bytes, replacements: tuple[tuple[str, str], ...]) -> bytes:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise RepairError("the payload is not UTF-8: --replace works on text") from None
    for pattern, replacement in replacements:
        text = re.sub(pattern, replacement, text)
    return text.encode()


def _members(payload: bytes) -> list[Member]:
    try:
        members = members_of(payload)
    except NotJsonError as error:
        raise RepairError(f"the payload is not JSON ({error})") from None
    if members is None:
        raise RepairError("the payload is not a JSON object")
    return members


def _joined(members: list[Member]) -> bytes:
    return ("{" + ",".join(f"{member.name_text}:{member.value_text}" for member in members) + "}").encode()


def _renamed(members: list[Member], old: str, new: str) -> list[Member]:
    names = {member.name for member in members}
    if old not in names:
        return members
    if new in names:
        raise RepairError(f"it has both {old} and {new}")
    return [replace(m, name=new, name_text=json.dumps(new)) if m.name == old else m for m in members]


def _with_value(members: list[Member], name: str, change: Callable[[str], str]) -> list[Member]:
    return [replace(m, value_text=change(m.value_text)) if m.name == name else m for m in members]


def _set(members: list[Member], name: str, text: str) -> list[Member]:
    if any(member.name == name for member in members):
        return _with_value(members, name, lambda _: text)
    return [*members, Member(name, json.dumps(name), text)]


def _called(payload: bytes, function: Function) -> bytes:
    _members(payload)
    try:
        repaired = function(json.loads(payload))
    except Exception as error:  # the function is the operator's: its errors are about one payload
        raise RepairError(f"the function raised {type(error).__name__}: {error}") from None
    if repaired is None:
        raise RepairError("the function left it out")
    if not isinstance(repaired, dict):
        raise RepairError(f"the function returned {type(repaired).__name__}, not a dict")
    try:
        return json.dumps(repaired, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise RepairError(f"the function's result cannot be written as JSON ({error})") from None
