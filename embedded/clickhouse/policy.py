"""What a statement may not say, where the engine has no privilege for it: a check of the SQL's tokens.

The engine's grants (`privileges.py`) refuse files, networks and foreign engines. They do not cover the scalar function
`file`, table functions without a source privilege (`executable`, `python`), or the sources of dictionaries. This check
does. Table functions and dictionary sources outside the allow lists are refused, whatever a newer engine adds.
"""

import mmap
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from embedded.clickhouse.errors import ClickHouseError, error
from embedded.clickhouse.privileges import ENGINES
from embedded.clickhouse.statement import tokens

TABLE_FUNCTIONS = frozenset(
    {
        "sqlstandardvalues", "dictionary", "format", "generaterandom", "generateseries", "generate_series", "input",
        "loop", "merge", "mergetreeanalyzeindexes", "mergetreeanalyzeindexesuuid", "mergetreecodecblockcounts",
        "mergetreeindex", "mergetreeprojection", "mergetreetextindex", "null", "numbers", "numbers_mt", "primes",
        "values", "view", "viewexplain", "viewifpermitted", "zeros", "zeros_mt",
    }
)  # fmt: skip
DICTIONARY_SOURCES = frozenset({"clickhouse", "null"})
#: A dictionary of this process's own tables: neither a named collection nor another port can be given.
_SOURCE_KEYS = frozenset(
    {"user", "password", "db", "table", "where", "query", "invalidate_query", "update_field", "update_lag", "host"}
)
_SQL_KEYS = {"where", "query", "invalidate_query"}
_OWN_HOSTS = {b"localhost", b"127.0.0.1"}
#: Scalar functions that read files or load libraries.
SCALAR_FUNCTIONS = frozenset({"file", "catboostEvaluate"})
#: Functions that take a piece of SQL (a table's structure, rows) as a string: it must be there to read.
_TAKES_SQL = frozenset({"format", "generaterandom", "input", "null", "values"})
_NAMES_A_TABLE = {b"into", b"table", b"."}
_LITERALS = {"string", "doc"}
_SEPARATES = re.compile(rb"[0-9,]+")
_HIGHER_ORDER = ("array", "map")

_TYPOGRAPHIC_QUOTES = {"\u2018".encode(), "\u2019".encode(), "\u201c".encode(), "\u201d".encode()}
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))|''|``|\"\"", re.DOTALL)
_BLANK_ESCAPES = b"abefnrtv0"
_STRINGS_DEPTH_MAX = 4
#: Rows of VALUES that hold one of these are read as literals only: an expression there could call a function.
_EXPRESSIVE = re.compile(rb"(?i:file|catboost|select)|[`\"\xe2]")


class _Token(NamedTuple):
    kind: str
    text: bytes  # of strings and quoted names: their content

    @property
    def name(self) -> str:
        return self.text.decode("utf-8", "replace") if self.kind in {"word", "name"} else ""


_NOTHING = _Token("", b"")


class Policy:
    """The check, for an engine that has these table functions, and these engines of tables and databases."""

    def __init__(self, table_functions: Iterable[str], engines: Iterable[str]) -> None:
        self._refused = {name.lower() for name in table_functions} - TABLE_FUNCTIONS
        self._refused_engines = {name.lower() for name in engines} - {name.lower() for name in ENGINES}

    def check(self, sql: bytes) -> None:
        """Raise ClickHouseError (497) when the statement asks for something that is not allowed."""
        found = list(_meaningful(sql))
        _check_client_files(found)
        for at, token in enumerate(found):
            if token.kind in {"word", "name"}:
                self._check_name(found, at)
            elif token.kind in {"string", "doc"}:
                check_text(token.text)
        if any(token.name.upper() == "DICTIONARY" for token in found):
            self._check_sources(found)

    def _check_name(self, found: list[_Token], at: int) -> None:
        _check_scalar(found, at)
        if found[at].name.upper() == "ENGINE":
            self._check_engine(found[at + 1 : at + 3])
        if not _opens(found, at):
            return
        name = found[at].name.lower()
        before = found[at - 1] if at else None
        if name in self._refused and (before is None or before.text.upper() not in {b"INTO", b"."}):
            raise _denied(f"the table function {name}")
        if name == "disk" and before is not None and before.text == b"=":
            raise _denied("a disk of its own")
        if name in _TAKES_SQL:
            _check_literal(found, at, name)

    def _check_engine(self, following: list[_Token]) -> None:
        """Refuse engines that no privilege covers: the engine checks only those with a source privilege."""
        named = following[1:] if following and following[0].text == b"=" else following
        if named and named[0].name.lower() in self._refused_engines:
            raise _denied(f"the engine {named[0].name}")

    def _check_sources(self, found: list[_Token]) -> None:
        for at, token in enumerate(found):
            if token.name.upper() == "SOURCE" and _opens(found, at) and at + 2 < len(found):
                source = found[at + 2].name.lower()
                if source not in DICTIONARY_SOURCES:
                    raise _denied(f"the dictionary source {found[at + 2].text.decode('utf-8', 'replace')}")
                self._check_source_keys(found[at + 4 :])

    def _check_source_keys(self, rest: list[_Token]) -> None:
        """Check the values up to the closing bracket: each follows its key, and is a literal or a name."""
        while len(rest) >= 2 and rest[0].kind != "close":
            key, value = rest[0].name.lower(), rest[1]
            if key not in _SOURCE_KEYS or value.kind == "open" or (len(rest) > 2 and rest[2].kind == "open"):
                raise _denied(f"{key or 'an expression'} in a dictionary's source")
            if key == "host" and value.text not in _OWN_HOSTS:
                raise _denied("another host in a dictionary's source")
            if key in _SQL_KEYS:
                self.check(value.text)
            rest = rest[2:]


def check_parameter(value: bytes) -> None:
    """Check a query parameter: as an Identifier it may be the name of a function; the engine resolves escapes in it."""
    plain = _ESCAPE.sub(_plain, value).strip(b'`" ')
    if plain.decode("utf-8", "replace") in SCALAR_FUNCTIONS:
        raise _denied("the name of such a function as a parameter")


def check_text(text: bytes, depth: int = 0) -> None:
    """Check a string that the engine may take as SQL: a setting's value, a table's structure, a literal."""
    if depth > _STRINGS_DEPTH_MAX:
        raise _denied("SQL in strings nested this deep")
    if b"\\" not in text and not any(name.encode() in text for name in SCALAR_FUNCTIONS):
        return
    found = list(_meaningful(text))
    for at, token in enumerate(found):
        if token.kind in {"word", "name"}:
            _check_scalar(found, at)
        elif token.kind in {"string", "doc"}:
            check_text(token.text, depth + 1)


def needs_literals(data: bytes | mmap.mmap) -> bool:
    """Return whether rows of the format Values may hold only literals: an expression in them might read a file."""
    return _EXPRESSIVE.search(data) is not None


def _meaningful(sql: bytes) -> Iterator[_Token]:
    """Yield the tokens, unescaped; raise ClickHouseError for typographic quotation marks outside of strings."""
    for token in tokens(sql):
        if token.kind == "mark" and token.text[0] >= 0x80:
            if sql[token.start : token.start + 3] in _TYPOGRAPHIC_QUOTES:
                raise _denied("typographic quotation marks outside of strings")
        elif token.kind in {"string", "name"}:
            yield _Token(token.kind, _ESCAPE.sub(_plain, token.text[1:-1]))
        elif token.kind == "doc":
            yield _Token("doc", token.text.strip(b"$").partition(b"$")[2] or token.text.strip(b"$"))
        else:
            yield _Token(token.kind, token.text)


def _plain(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return bytes([int(found[1], 16)])
    if found[2]:
        return b" " if found[2] in _BLANK_ESCAPES else found[2]
    return found[0][:1]


def _check_client_files(found: list[_Token]) -> None:
    """Refuse the clauses that a client carries out itself: chdb is the client too."""
    for before, token, after in zip([_NOTHING, *found], found, [*found[1:], _NOTHING], strict=False):
        clause = before.text.upper(), token.text.upper()
        if clause == (b"INTO", b"OUTFILE"):
            raise error("INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
        if clause == (b"FROM", b"INFILE") and after.kind in _LITERALS:
            raise error("UNKNOWN_TYPE_OF_QUERY", "Query has infile and was send directly to server")


def _opens(found: list[_Token], at: int) -> bool:
    return at + 1 < len(found) and found[at + 1].text == b"("


def _check_scalar(found: list[_Token], at: int) -> None:
    """Refuse a call, and the name handed to a function of higher order (`arrayMap(file, …)`, `APPLY file`)."""
    if found[at].name not in SCALAR_FUNCTIONS:
        return
    before = at - 1
    while before >= 0 and found[before].text == b"(":
        before -= 1
    outer = found[before].name.lower() if before >= 0 else ""
    in_brackets = before < at - 1
    applied = outer == "apply" or (in_brackets and outer.startswith(_HIGHER_ORDER))
    names_a_table = not in_brackets and before >= 0 and found[before].text.lower() in _NAMES_A_TABLE
    if applied or (_opens(found, at) and not names_a_table):
        raise _denied(f"the function {found[at].name}")


def _check_literal(found: list[_Token], at: int, name: str) -> None:
    """Refuse a structure or rows that are computed: what they hold could not be checked."""
    arguments = found[at + 2 :]
    first, second = (arguments[:2] + [_NOTHING] * 2)[:2]
    is_literal = first.kind in _LITERALS and _ends_argument(second)
    if name == "values":
        if is_literal or first.kind in {"open", "close", "mark"}:
            return
    elif name == "format" and is_literal and b"{" in first.text:
        return  # the scalar function format('{} {}', a, b)
    elif _all_literals(arguments[1:] if name == "format" else arguments):
        return
    raise _denied(f"a computed argument of {name}()")


def _all_literals(arguments: list[_Token]) -> bool:
    """Return whether strings and numbers, separated by commas, follow up to the closing bracket."""
    for token in arguments:
        if token.kind == "close":
            return True
        if token.kind not in _LITERALS and not _SEPARATES.fullmatch(token.text):
            return False
    return False


def _ends_argument(token: _Token) -> bool:
    return token.kind == "close" or token.text.startswith(b",")


def _denied(what: str) -> ClickHouseError:
    return error("ACCESS_DENIED", f"{what} is not allowed: the embedded ClickHouse reaches no files and no network")
