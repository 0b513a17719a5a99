"""One payload against the rules: bytes and an arrival time in, a valid event or every broken rule out. Pure.

The ingress uses this in strict mode and for the dry run. The stream stage uses it for every payload that its checks by
the column do not find plainly valid (`streams.decoding`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from schemas import times
from schemas.dead_letter import Violation
from schemas.event import SENT_FIELDS
from schemas.event_types import canonical
from schemas.fields import SentField
from schemas.identity import digest_of, uuid_text
from schemas.json_text import Member, NotJsonError, compact, integer_of, members_of, string_of
from schemas.rules import PAYLOAD_BYTES_MAX, TIME_RULES, EventTimes, Format, Reason

_FOUND_MAX = 100
NO_EXTRA = b"{}"


class ClockLimits(NamedTuple):
    """How far a clock may be ahead of ours, in µs: beyond `skew_us` with a warning, never beyond `lead_us`."""

    skew_us: int
    lead_us: int

    @classmethod
    def of_seconds(cls, skew_s: int, lead_s: int) -> "ClockLimits":
        """Return the limits for these numbers of seconds; the lead is never below the skew."""
        return cls(skew_s * 1_000_000, max(skew_s, lead_s) * 1_000_000)


class ValidEvent(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """An event that keeps every rule, parsed. Times in µs since the epoch, UTC; coordinates in degrees, WGS 84."""

    event: str  # canonical
    event_as_sent: str | None  # where it differs
    changes: int
    imei: str
    device_us: int
    server_us: int
    latitude: float
    longitude: float
    location: str | None
    geofence_name: str | None  # None also for a blank one
    extra: bytes  # the unknown fields: a JSON object on one line
    time_cut: bool  # digits beyond microseconds were dropped
    duplicate_keys: bool  # a name is there more than once; the last one counts

    @property
    def event_id(self) -> str:
        """The identity as a UUID."""
        return uuid_text(digest_of(self.imei, self.device_us, self.event, self.geofence_name))


def validate(raw: bytes, received_us: int, clock: ClockLimits) -> ValidEvent | list[Violation]:
    """Return the event in these bytes, or every rule that it breaks (at least one).

    `received_us` is its arrival in µs since the epoch. Any bytes give an outcome; nothing is raised.
    """
    if len(raw) > PAYLOAD_BYTES_MAX:
        return [Violation(Reason.TOO_LARGE, "", f"{len(raw)} bytes", f"at most {PAYLOAD_BYTES_MAX} bytes")]
    try:
        members = members_of(raw)
    except NotJsonError as error:
        return [Violation(Reason.NOT_JSON, "", _shown(raw.decode("utf-8", "replace")), f"JSON in UTF-8 ({error})")]
    if members is None:
        return [Violation(Reason.NOT_OBJECT, "", _shown(raw.decode().strip()), "a JSON object")]
    texts = {member.name: member.value_text for member in members}
    violations: list[Violation] = []
    values = {name: _value(sent, texts.get(name), violations) for name, sent in SENT_FIELDS.items()}
    violations += _broken_time_rules(values, texts, received_us + clock.lead_us)
    return violations or _valid_event(values, texts, members)


def blank_as_none(name: str | None) -> str | None:
    """Return a geofence's name; None for an empty or blank one: they are one identity."""
    return name if name and not name.isspace() else None


def extra_of(members: Sequence[Member]) -> bytes:
    """Return the members that the contract does not know, as a JSON object on one line; values as they were sent."""
    unknown = {member.name: member for member in members if member.name not in SENT_FIELDS}
    return ("{" + ",".join(f"{m.name_text}:{compact(m.value_text)}" for m in unknown.values()) + "}").encode()


def _valid_event(values: Mapping[str, Any], texts: Mapping[str, str], members: Sequence[Member]) -> ValidEvent:
    event, (latitude, longitude) = canonical(values["Event"]), values["Coordinates"]
    return ValidEvent(
        event=event,
        event_as_sent=None if event == values["Event"] else values["Event"],
        changes=values["Changes"],
        imei=values["IMEI"],
        device_us=values["Device_Time"],
        server_us=values["Server_Time"],
        latitude=latitude,
        longitude=longitude,
        location=values["Location"],
        geofence_name=blank_as_none(values["Geofence_Name"]),
        extra=extra_of(members),
        time_cut=times.is_cut(string_of(texts["Device_Time"])) or times.is_cut(string_of(texts["Server_Time"])),
        duplicate_keys=len(texts) < len(members),
    )


def _value(sent: SentField, text: str | None, violations: list[Violation]) -> Any:
    """Return a field's parsed value, None for an unusable one; add the rules it breaks to `violations`."""
    if text is None or (text == "null" and sent.nullable):
        if not sent.nullable:
            violations.append(Violation(Reason.MISSING, sent.name, "nothing", _expected(sent)))
        return None
    value = _typed(sent, text)
    if value is None:
        violations.append(Violation(Reason.WRONG_TYPE, sent.name, _shown(text), _expected(sent)))
        return None
    usable = True
    for rule in sent.rules:
        if not rule.holds(value):
            found = rule.found(value) if rule.found else _shown(text)
            violations.append(Violation(rule.code, sent.name, found, rule.expected))
            usable = False
    if not usable:
        return None
    return value if sent.format is None else _parsed(sent.format, sent.name, value, text, violations)


def _typed(sent: SentField, text: str) -> Any:
    """Return the value if it has the field's JSON type, else None. A number with an integral value is an integer."""
    if sent.type is int:
        return integer_of(text)
    return string_of(text) if text[0] == '"' else None


def _parsed(form: Format, name: str, value: str, text: str, violations: list[Violation]) -> Any:
    try:
        parsed = form.parse(value)
    except ValueError as error:
        no_such = form.missing is not None and isinstance(error, form.missing)
        code, expected = (Reason.OUT_OF_RANGE, form.missing_expected) if no_such else (Reason.BAD_FORMAT, form.expected)
        violations.append(Violation(code, name, _shown(text), expected))
        return None
    violations.extend(
        Violation(rule.code, name, _shown(text), rule.expected) for rule in form.value_rules if not rule.holds(parsed)
    )
    return parsed


def _broken_time_rules(values: Mapping[str, Any], texts: Mapping[str, str], latest_us: int) -> Iterator[Violation]:
    """Check the rules on the times that could be read; a missing one breaks none of these."""
    device_us, server_us = values["Device_Time"], values["Server_Time"]
    moments = EventTimes(device_us, server_us, latest_us)
    for rule in TIME_RULES:
        if None not in [values[name] for name in rule.fields] and not rule.holds(moments):
            yield Violation(rule.code, rule.fields[0], _shown(texts[rule.fields[0]]), rule.expected(moments))


def _expected(sent: SentField) -> str:
    """Describe what the field should be: its format, or its first rule with a text that also names the type."""
    return sent.format.expected if sent.format is not None else sent.rules[0].expected


def _shown(text: str) -> str:
    """Cut what was sent at 100 characters, without what cannot be encoded."""
    shown = text if len(text) <= _FOUND_MAX else text[: _FOUND_MAX - 1] + "…"
    return shown.encode("utf-8", "replace").decode()
