"""Decide what a failed insert means: the rows are invalid, or ClickHouse is unavailable.

Only an error about a value makes a row a dead letter. Any other error, known or not, is retried without limit with the
same bytes and token; meanwhile the log, the metrics and `/readyz` report it.
"""

from clickhouse_connect.driver.exceptions import ClickHouseError

#: ClickHouse's error codes about a value in the block (`src/Common/ErrorCodes.cpp`).
REFUSED = {
    6: "CANNOT_PARSE_TEXT",
    26: "CANNOT_PARSE_QUOTED_STRING",
    27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
    38: "CANNOT_PARSE_DATE",
    41: "CANNOT_PARSE_DATETIME",
    69: "ARGUMENT_OUT_OF_BOUND",
    70: "CANNOT_CONVERT_TYPE",
    72: "CANNOT_PARSE_NUMBER",
    117: "INCORRECT_DATA",
    128: "TOO_LARGE_ARRAY_SIZE",
    131: "TOO_LARGE_STRING_SIZE",
    321: "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
    376: "CANNOT_PARSE_UUID",
    407: "DECIMAL_OVERFLOW",
    469: "VIOLATED_CONSTRAINT",
    691: "UNKNOWN_ELEMENT_OF_ENUM",
}


def refuses_rows(error: BaseException) -> bool:
    """Return whether ClickHouse refused the rows themselves; otherwise retry the same insert."""
    return isinstance(error, ClickHouseError) and getattr(error, "code", None) in REFUSED
