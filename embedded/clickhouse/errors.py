"""ClickHouse's errors: the engine's text → code and message, and the HTTP status that a server answers for a code."""

import re

_FOUND = re.compile(r"Code: (\d+)\. DB::Exception: ", re.ASCII)
_VERSION = re.compile(r" \(version [^)]*\)")

# The names of the errors that the HTTP interface itself raises, with ClickHouse's numbers.
CODES = {
    "BAD_ARGUMENTS": 36,
    "CHECKSUM_DOESNT_MATCH": 40,
    "NOT_IMPLEMENTED": 48,
    "SYNTAX_ERROR": 62,
    "UNKNOWN_SETTING": 115,
    "UNKNOWN_TYPE_OF_QUERY": 78,
    "READONLY": 164,
    "REQUIRED_PASSWORD": 194,
    "TOO_MANY_SIMULTANEOUS_QUERIES": 202,
    "SOCKET_TIMEOUT": 209,
    "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING": 216,
    "ABORTED": 236,
    "NOT_ENOUGH_SPACE": 243,
    "CANNOT_DECOMPRESS": 271,
    "INTO_OUTFILE_NOT_ALLOWED": 358,
    "SESSION_NOT_FOUND": 372,
    "SESSION_IS_LOCKED": 373,
    "INVALID_SESSION_TIMEOUT": 374,
    "QUERY_WAS_CANCELLED": 394,
    "ACCESS_DENIED": 497,
    "UNKNOWN_ROLE": 511,
    "AUTHENTICATION_FAILED": 516,
    "UNKNOWN_EXCEPTION": 1002,
}

# The same table as a server's (src/Server/HTTP/exceptionCodeToHTTPStatus.cpp); what it does not name is 500.
_STATUS = {
    400: {6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676},
    401: {194},
    403: {192, 193, 497, 512, 516},
    404: {46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511},
    408: {159},
    411: {381},
    413: {229},
    415: {779},
    501: {48},
    503: {76, 209, 439},
}
_STATUS_OF = {code: status for status, codes in _STATUS.items() for code in codes}


class ClickHouseError(Exception):
    """An error as ClickHouse gives it: `code` and the whole text `Code: 60. DB::Exception: … (UNKNOWN_TABLE)`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def status(self) -> int:
        """The HTTP status that a server answers for it; 500 for codes that have none of their own."""
        return _STATUS_OF.get(self.code, 500)


def error(name: str, message: str) -> ClickHouseError:
    """Return an error of the HTTP interface itself, in ClickHouse's words; `name` is one of `CODES`."""
    code = CODES[name]
    return ClickHouseError(code, f"Code: {code}. DB::Exception: {message} ({name})")


def from_engine(text: str) -> ClickHouseError:
    """Parse an error text of the engine, without its Python wrapper's prefix; a text without a code gets 1002."""
    found = _FOUND.search(text)
    if found is None:
        return error("UNKNOWN_EXCEPTION", text.strip() or "the engine gave no reason")
    rest = _VERSION.sub("", text[found.start() :]).strip()
    prefix = found.group(0)
    while rest.startswith(prefix + prefix):  # an error thrown again by its catcher
        rest = rest[len(prefix) :]
    return ClickHouseError(int(found.group(1)), rest)
