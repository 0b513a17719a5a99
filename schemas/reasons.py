"""The registry of reason codes: why an event is in the dead letters. Bounded: fit for metric labels."""

from enum import StrEnum


class Reason(StrEnum):
    """A rule that an event broke; the comment on each is its documentation, its value the code on the wire."""

    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    MISSING = "missing"
    WRONG_TYPE = "wrong_type"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    BAD_CHARACTERS = "bad_characters"
    BAD_FORMAT = "bad_format"
    OUT_OF_RANGE = "out_of_range"
    DEVICE_AFTER_SERVER = "device_time_after_server_time"
    IN_FUTURE = "in_future"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    REFUSED_BY_CLICKHOUSE = "refused_by_clickhouse"


DESCRIPTION: dict[Reason, str] = {
    Reason.NOT_JSON: "the bytes are not JSON in UTF-8 (RFC 8259)",
    Reason.NOT_OBJECT: "the JSON is not an object",
    Reason.MISSING: "a required field is not there",
    Reason.WRONG_TYPE: "the field's JSON type is not the contract's",
    Reason.EMPTY: "the string is empty or blank",
    Reason.TOO_LONG: "the string is longer than its bound",
    Reason.BAD_CHARACTERS: "the string holds NUL or an unpaired surrogate",
    Reason.BAD_FORMAT: "the string is not written as the contract asks",
    Reason.OUT_OF_RANGE: "the number is outside its range",
    Reason.DEVICE_AFTER_SERVER: "Device_Time is later than Server_Time",
    Reason.IN_FUTURE: "the time is in the future beyond the allowed skew",
    Reason.CONFLICT: "an event of the same identity was already accepted with other content",
    Reason.TOO_LARGE: "the payload is larger than what fits into a Kafka record once it is enriched",
    Reason.REFUSED_BY_CLICKHOUSE: "ClickHouse refused the row",
}
