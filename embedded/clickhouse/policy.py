"""What a statement may not say, where the engine has no privilege for it: a check of the SQL's tokens.

The engine's grants (`privileges.py`) refuse files, networks and foreign engines. They do not cover functions, table
functions without a source privilege (`executable`, `python`), or the sources of dictionaries. This check does, with
allow lists: what a newer engine adds is refused until somebody allows it.
"""

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from embedded.clickhouse.errors import ClickHouseError, error
from embedded.clickhouse.privileges import ENGINES
from embedded.clickhouse.statement import tokens, unquoted

TABLE_FUNCTIONS = frozenset(
    {
        "sqlstandardvalues", "dictionary", "format", "generaterandom", "generateseries", "generate_series", "input",
        "loop", "merge", "mergetreeanalyzeindexes", "mergetreeanalyzeindexesuuid", "mergetreecodecblockcounts",
        "mergetreeindex", "mergetreeprojection", "mergetreetextindex", "null", "numbers", "numbers_mt", "primes",
        "values", "view", "viewexplain", "viewifpermitted", "zeros", "zeros_mt",
    }
)  # fmt: skip
DICTIONARY_SOURCES = frozenset({"clickhouse", "null"})
#: Layouts of dictionaries, without those that write files (`ssd_cache`).
LAYOUTS = frozenset(
    {
        "cache", "complex_key_cache", "complex_key_direct", "complex_key_hashed", "complex_key_hashed_array",
        "complex_key_range_hashed", "complex_key_sparse_hashed", "direct", "flat", "hashed", "hashed_array",
        "ip_trie", "naive_bayes", "polygon", "polygon_index_cell", "polygon_index_each", "polygon_simple",
        "range_hashed", "regexp_tree", "sparse_hashed",
    }
)  # fmt: skip
#: A dictionary of this process's own tables: neither a named collection nor another port can be given.
_SOURCE_KEYS = frozenset(
    {"user", "password", "db", "table", "where", "query", "invalidate_query", "update_field", "update_lag", "host"}
)
_SQL_KEYS = {"where", "query", "invalidate_query"}
_OWN_HOSTS = {b"localhost", b"127.0.0.1"}
#: Functions that read files, or call services: the `ai` functions have a second, capital spelling.
REFUSED_FUNCTIONS = frozenset(
    {
        "file", "addressToLine", "addressToLineWithInlines", "addressToSymbol",
        *(f"{prefix}{task}" for prefix in ("ai", "AI") for task in (
            "Classify", "Embed", "Extract", "Filter", "Generate", "Redact", "Similarity", "Translate")),
    }
)  # fmt: skip
#: Functions that stay inside: one name a line, those of the pinned engine. Tests compare both lists with it.
FUNCTIONS = frozenset((Path(__file__).parent / "functions.txt").read_text().split())
#: Functions that take a piece of SQL (a table's structure, rows) as a string: it must be there to read.
_TAKES_SQL = frozenset({"format", "generaterandom", "input", "null", "values"})
_NAMES_A_TABLE = {b"into", b"table", b"."}
_SEPARATES = re.compile(rb"[0-9,]+")
_HIGHER_ORDER = ("array", "map")

_TYPOGRAPHIC_QUOTES = {"\u2018".encode(), "\u2019".encode(), "\u201c".encode(), "\u201d".encode()}
_STRINGS_DEPTH_MAX = 4
#: Where rows of VALUES hold one of these, an expression in them could call a function by another spelling of its name.
_SPELLINGS = rb"(?i:select)|[`\"{\xe2]"


class _Token(NamedTuple):
    kind: str
    text: bytes  # of strings and quoted names: their content

    @property
    def name(self) -> str:
        return self.text.decode("utf-8", "replace") if self.kind in {"word", "name"} else ""


_NOTHING = _Token("", b"")


class Policy:
    """The check, for an engine that has these functions, table functions, and engines of tables and databases."""

    def __init__(self, functions: Iterable[str], table_functions: Iterable[str], engines: Iterable[str]) -> None:
        self._functions = _not_allowed(functions, FUNCTIONS)
        self._table_functions = _not_allowed(table_functions, TABLE_FUNCTIONS)
        self._engines = _not_allowed(engines, ENGINES)
        names = b"|".join(re.escape(name.encode()) for name in sorted(self._functions))
        self._in_rows = re.compile(_SPELLINGS + rb"|(?i:%s)" % names)

    def check(self, sql: bytes) -> None:
        """Raise ClickHouseError (497) when the statement asks for something that is not allowed."""
        found = list(_meaningful(sql))
        _check_client_files(found)
        self._check_tokens(found)
        self._check_settings(found)
        if any(token.name.upper() == "DICTIONARY" for token in found):
            self._check_dictionary(found)

    def check_sql(self, text: bytes, depth: int = 0) -> None:
        """Check a text that the engine may take as SQL: a setting's value, a table's structure."""
        if depth > _STRINGS_DEPTH_MAX:
            raise _denied("SQL in strings nested this deep")
        self._check_tokens(list(_meaningful(text)), depth)

    def check_setting(self, value: bytes) -> None:
        """Check the value of a setting: it may be SQL, or the name of a function (`count_distinct_implementation`)."""
        if value.decode("utf-8", "replace").strip().lower() in self._functions:
            raise _denied("the name of such a function in a setting")
        self.check_sql(value)

    def check_rows(self, data: bytes | mmap.mmap) -> None:
        """Raise when rows of the format Values might call a function that is not allowed."""
        if self.needs_literals(data):
            raise _denied("an expression in these rows")

    def needs_literals(self, data: bytes | mmap.mmap) -> bool:
        """Return whether rows of the format Values may hold literals only: an expression in them might read a file."""
        return self._in_rows.search(data) is not None

    def _check_tokens(self, found: list[_Token], depth: int = 0) -> None:
        for at, token in enumerate(found):
            if token.kind in {"word", "name"}:
                self._check_name(found, at, depth)
            elif token.text == b"{":
                self._check_substitution(found, at)
            elif token.kind == "string":
                self._check_string(token.text, depth + 1)

    def _check_string(self, text: bytes, depth: int) -> None:
        """Check a string that may become SQL: a call in it, or in a string within it."""
        if depth > _STRINGS_DEPTH_MAX:
            raise _denied("SQL in strings nested this deep")
        if b"\\" not in text and not self._in_rows.search(text):
            return
        found = list(_meaningful(text, lenient=True))
        for at, token in enumerate(found):
            if token.kind in {"word", "name"}:
                self._check_function(found, at)
            elif token.kind == "string":
                self._check_string(token.text, depth + 1)

    def _check_settings(self, found: list[_Token]) -> None:
        """Check strings behind SETTINGS, up to the closing bracket, and those of SET: the engine parses some as SQL."""
        depth, inside = 0, list[int]()
        for at, token in enumerate(found):
            if token.name.upper() == "SETTINGS" or (at == 0 and token.name.upper() == "SET"):
                inside.append(depth)
            depth += (token.kind == "open") - (token.kind == "close")
            while inside and depth < inside[-1]:
                inside.pop()
            if inside and token.kind == "string":
                self.check_setting(token.text)

    def _check_name(self, found: list[_Token], at: int, depth: int) -> None:
        self._check_function(found, at)
        if found[at].name.upper() == "ENGINE":
            self._check_engine(found[at + 1 : at + 3])
        if not _opens(found, at):
            return
        name = found[at].name.lower()
        before = found[at - 1] if at else None
        if name in self._table_functions and (before is None or before.text.upper() not in {b"INTO", b"."}):
            raise _denied(f"the table function {name}")
        if name == "disk" and before is not None and before.text == b"=":
            raise _denied("a disk of its own")
        if name in _TAKES_SQL:
            _check_literal(found, at, name)
            for text in _sql_arguments(found, at, name):
                self.check_sql(text, depth + 1)

    def _check_function(self, found: list[_Token], at: int) -> None:
        """Refuse a call, and the name handed to a function of higher order (`arrayMap(file, …)`, `APPLY file`)."""
        if found[at].name.lower() not in self._functions:
            return
        outer, in_brackets, before = _around(found, at)
        names_a_table = not in_brackets and before.text.lower() in _NAMES_A_TABLE
        if _hands_on(outer, in_brackets=in_brackets) or (_opens(found, at) and not names_a_table):
            raise _denied(f"the function {found[at].name}")

    def _check_substitution(self, found: list[_Token], at: int) -> None:
        """Refuse `arrayMap({f:Identifier}, …)` and the like: what sets the parameter may come later, or to a view."""
        outer, in_brackets, before = _around(found, at)
        names_an_engine = before.text == b"=" or before.name.upper() == "ENGINE"
        if _hands_on(outer, in_brackets=in_brackets) or names_an_engine:
            for token in found[at + 1 :]:
                if token.kind == "close":
                    return
                if token.name.lower() == "identifier":
                    raise _denied("the name of a function or engine as a parameter")

    def _check_engine(self, following: list[_Token]) -> None:
        """Refuse engines that no privilege covers: the engine checks only those with a source privilege."""
        named = following[1:] if following and following[0].text == b"=" else following
        if named and named[0].name.lower() in self._engines:
            raise _denied(f"the engine {named[0].name}")

    def _check_dictionary(self, found: list[_Token]) -> None:
        for at, token in enumerate(found):
            if not _opens(found, at) or at + 2 == len(found):
                continue
            if token.name.upper() == "SOURCE":
                source = found[at + 2].name.lower()
                if source not in DICTIONARY_SOURCES:
                    raise _denied(f"the dictionary source {found[at + 2].text.decode('utf-8', 'replace')}")
                self._check_source_keys(found[at + 4 :])
            if token.name.upper() == "LAYOUT" and found[at + 2].name.lower() not in LAYOUTS:
                raise _denied(f"the dictionary layout {found[at + 2].text.decode('utf-8', 'replace')}")

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


def _not_allowed(names: Iterable[str], allowed: Iterable[str]) -> frozenset[str]:
    return frozenset({name.lower() for name in names} - {name.lower() for name in allowed})


def _meaningful(sql: bytes, *, lenient: bool = False) -> Iterator[_Token]:
    """Yield the tokens that mean something, literals as `string`; blanks that are not ASCII are none."""
    for token in tokens(sql):
        if token.kind == "mark" and token.text[0] >= 0x80:
            if not lenient and sql[token.start : token.start + 3] in _TYPOGRAPHIC_QUOTES:
                raise _denied("typographic quotation marks outside of strings")
        else:
            kind = "string" if token.kind in {"doc", "hex"} else token.kind
            yield _Token(kind, unquoted(token))


def _check_client_files(found: list[_Token]) -> None:
    """Refuse the clauses that a client carries out itself: chdb is the client too."""
    for before, token, after in zip([_NOTHING, *found], found, [*found[1:], _NOTHING], strict=False):
        clause = before.text.upper(), token.text.upper()
        if clause == (b"INTO", b"OUTFILE"):
            raise error("INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
        if clause == (b"FROM", b"INFILE") and after.kind == "string":
            raise error("UNKNOWN_TYPE_OF_QUERY", "Query has infile and was send directly to server")


def _opens(found: list[_Token], at: int) -> bool:
    return at + 1 < len(found) and found[at + 1].text == b"("


def _around(found: list[_Token], at: int) -> tuple[str, bool, _Token]:
    """Return the name before the token's round brackets, whether it has any, and the token before them."""
    before = at - 1
    while before >= 0 and found[before].text == b"(":
        before -= 1
    token = found[before] if before >= 0 else _NOTHING
    return token.name.lower(), before < at - 1, token


def _hands_on(outer: str, *, in_brackets: bool) -> bool:
    return outer == "apply" or (in_brackets and outer.startswith(_HIGHER_ORDER))


def _check_literal(found: list[_Token], at: int, name: str) -> None:
    """Refuse a structure or rows that are computed: what they hold could not be checked."""
    arguments = found[at + 2 :]
    first, second = (arguments[:2] + [_NOTHING] * 2)[:2]
    is_literal = first.kind == "string" and _ends_argument(second)
    if name == "values":
        if is_literal or first.kind in {"open", "close", "mark"}:
            return
    elif name == "format" and is_literal and b"{" in first.text:
        return  # the scalar function format('{} {}', a, b)
    elif _all_literals(arguments[1:] if name == "format" else arguments):
        return
    raise _denied(f"a computed argument of {name}()")


def _sql_arguments(found: list[_Token], at: int, name: str) -> list[bytes]:
    """Return the literal arguments of such a function that the engine parses as SQL."""
    end = next((i for i in range(at, len(found)) if found[i].kind == "close"), len(found))
    texts = [token.text for token in found[at + 2 : end] if token.kind == "string"]
    if name != "format":
        return texts[:1]
    first = found[at + 2].text.lower() if at + 2 < end else b""
    if b"{" in first:
        return []  # the scalar function
    texts = texts[1:] if found[at + 2].kind == "string" else texts
    return texts if first == b"values" else texts[: len(texts) - 1]


def _all_literals(arguments: list[_Token]) -> bool:
    """Return whether strings and numbers, separated by commas, follow up to the closing bracket."""
    for token in arguments:
        if token.kind == "close":
            return True
        if token.kind != "string" and not _SEPARATES.fullmatch(token.text):
            return False
    return False


def _ends_argument(token: _Token) -> bool:
    return token.kind == "close" or token.text.startswith(b",")


def _denied(what: str) -> ClickHouseError:
    return error("ACCESS_DENIED", f"{what} is not allowed: the embedded ClickHouse reaches no files and no network")
