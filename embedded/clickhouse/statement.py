"""What a SQL text asks for, as far as the HTTP interface must know: rows, an insert's data, or anything else.

The text is never understood further than that: the engine parses it. A text that this module does not recognise goes
to the engine as it is, so its mistakes are reported in the engine's words.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from embedded.clickhouse.errors import error

# As the engine's lexer reads a text (src/Parsers/Lexer.cpp; a test compares them through `tokenizeQuery`): a quote or
# comment that is taken for something else would hide SQL from the policy. What is opened and never closed reaches to
# the end, so the text is walked once. Numbers and signs mean nothing here and are taken together.
_TOKEN = re.compile(
    rb"""
      (?P<blank>   [\s\x00]+ | --[^\n]* | //[^\n]* | \#[ !][^\n]* )
    | (?P<comment> /\* )
    | (?P<hex>     [xX]'[0-9A-Fa-f]*' | [bB]'[01]*' )
    | (?P<string>  '(?:[^'\\]|\\(?:.|\Z)|'')*+(?:'|\Z) )
    | (?P<name>    `(?:[^`\\]|\\(?:.|\Z)|``)*+(?:`|\Z) | "(?:[^"\\]|\\(?:.|\Z)|"")*+(?:"|\Z) )
    | (?P<dollar>  \$\w*\$ )
    | (?P<word>    [A-Za-z_][\w$]* | \$\w[\w$]* )
    | (?P<open>    [(\[{] )
    | (?P<close>   [)\]}] )
    | (?P<mark>    (?:[0-9]\w*|[,+*=<>!%:?|&^~@])++ | \.[0-9](?:_?[0-9])*(?:[eE][+-]?[0-9]*)? | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_ESCAPE = re.compile(rb"\\x([0-9A-Fa-f]{2})|\\(.)|''|``|\"\"", re.DOTALL)
_ESCAPED = {
    b"a": b"\a", b"b": b"\b", b"e": b"\x1b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
    b"0": b"\0", b"N": b"", b"\\": b"\\", b"/": b"/", b"'": b"'", b'"': b'"', b"`": b"`",
}  # fmt: skip
_SETTINGS_FOLLOW = re.compile(rb"\s*SETTINGS\s+\w+\s*=", re.IGNORECASE)
_SETTING = re.compile(rb"\s*,?\s*\w+\s*=\s*(?:'(?:[^'\\]|\\.|'')*'|[-+\w.]+)")
# ClickHouse skips blanks to the end of the line that ends an INSERT's head, and one line end.
_HEAD_END = re.compile(rb"[ \t\f]*\r?\n?")

_ROWS = {"SELECT", "WITH", "FROM", "("}
_READING = _ROWS | {"SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK", "SET", "USE"}


@dataclass(frozen=True)
class Statement:
    """One statement, taken apart.

    `kind`: `rows` gives a result that may be large; `insert` has its data beside it; `other` is everything else.
    `word`: the first keyword, upper case (`(` counts as one).
    `head`: the SQL without FORMAT clause and data; `tail`: what followed the FORMAT clause (a SETTINGS clause).
    `format`: the format that the text names, or None; for `VALUES` it is `Values`.
    `data`: what followed the head of an insert in the given text.
    `text`: the SQL as it came (of an insert: up to its data).
    """

    kind: Literal["rows", "insert", "other"]
    word: str
    head: bytes
    format: str | None
    tail: bytes
    data: bytes
    text: bytes

    @property
    def reads_only(self) -> bool:
        """Whether a server allows it for GET, as far as the keyword shows."""
        return self.kind != "insert" and self.word in _READING and b"INSERT" not in _first_words(self.text)


class _Token(NamedTuple):
    kind: str
    text: bytes
    start: int
    end: int

    def is_word(self, *words: bytes) -> bool:
        return self.kind == "word" and self.text.upper() in words


def parse(text: bytes) -> Statement:
    """Take one statement apart; `text` may be the beginning only when it is an INSERT with data.

    Raise ClickHouseError for several statements in one text, an empty text, and files of the client's side.
    """
    tokens = _tokens(text)
    first = next(tokens, None)
    if first is None:
        raise error("SYNTAX_ERROR", "Syntax error: Empty query")
    word = first.text.decode("ascii", "replace").upper() if first.kind in {"word", "open"} else ""
    if word == "INSERT":
        return _insert(text, tokens)
    if word == "WITH" and (into := _insert_after_with(text)) is not None:
        return _insert(text, _tokens(text, into.end))
    return _query(text, word, [first, *tokens])


def is_insert(text: bytes) -> bool:
    """Return whether the text begins as an INSERT."""
    first = next(_tokens(text), None)
    if first is None:
        return False
    return first.is_word(b"INSERT") or (first.is_word(b"WITH") and _insert_after_with(text) is not None)


def quote(value: str) -> str:
    """Return `value` as a string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """Return `value` as a quoted identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def split_settings(head: bytes) -> tuple[bytes, bytes]:
    """Return the head of an INSERT before its `SETTINGS`, and that clause (empty when there is none)."""
    seen: list[_Token] = []
    for token in _top_level(_tokens(head)):
        if token.is_word(b"SETTINGS") and not _still_naming(seen):
            return head[: token.start], head[token.start :]
        seen.append(token)
    return head, b""


def take_input(head: bytes, table: str) -> tuple[bytes, str] | None:
    """Return the head of an INSERT with the table in place of its function `input`, and that function's structure."""
    tokens = list(_tokens(head))
    for i, token in enumerate(tokens[:-3]):
        opening, structure, closing = tokens[i + 1 : i + 4]
        if token.is_word(b"INPUT") and (opening.text, structure.kind, closing.text) == (b"(", "string", b")"):
            text = unquoted(structure).decode("utf-8", "replace")
            return head[: token.start] + quote_name(table).encode() + head[closing.end :], text
    return None


_ENDS_EXPRESSION = (b"FROM", b"SETTINGS", b"FORMAT", b"UNION", b"LIMIT", b"WHERE")


def with_query_ids(sql: bytes, setting: str) -> bytes:
    """Rewrite a query that reads ids so that it gets the requests' ids; `setting` holds each query's.

    This is so for the functions of the own id and for the table `system.processes` behind FROM and JOIN.
    """
    if b"query" not in sql.lower() and b"processes" not in sql.lower():
        return sql
    tokens = list(_tokens(sql))
    pieces: list[bytes] = []
    at = 0
    for i, token in enumerate(tokens):
        replaced = _own_id(tokens, i, setting) or _processes(tokens, i, setting)
        if replaced is not None:
            pieces += [sql[at : token.start], replaced]
            at = tokens[i + 2].end
    return b"".join(pieces) + sql[at:]


def _own_id(tokens: list[_Token], i: int, setting: str) -> bytes | None:
    called = [token.text for token in tokens[i + 1 : i + 3]] == [b"(", b")"]
    if not called or not tokens[i].is_word(b"QUERYID", b"QUERY_ID", b"INITIALQUERYID", b"INITIAL_QUERY_ID"):
        return None
    value = f"getSetting('{setting}')".encode()
    after = tokens[i + 3] if i + 3 < len(tokens) else None
    if after is None or after.text.startswith((b",", b";")) or after.is_word(*_ENDS_EXPRESSION):
        return b"(%s AS `%s()`)" % (value, tokens[i].text)  # the column keeps its name
    return value


def _processes(tokens: list[_Token], i: int, setting: str) -> bytes | None:
    named = [token.text for token in tokens[i : i + 3]]
    after = tokens[i + 3] if i + 3 < len(tokens) else None
    if i == 0 or not tokens[i - 1].is_word(b"FROM", b"JOIN") or named != [b"system", b".", b"processes"]:
        return None
    if after is not None and after.text == b".":
        return None
    ids = ", ".join(
        f"if(Settings['{setting}'] = '', {name}, Settings['{setting}']) AS {name}"
        for name in ("query_id", "initial_query_id")
    )
    alias = after is not None and (after.is_word(b"AS") or (after.kind == "name"))
    inner = f"(SELECT * REPLACE ({ids}) FROM system.processes)"  # noqa: S608 - a setting's name
    return (inner if alias else f"{inner} AS processes").encode()


def kill_by_query_id(statement: Statement, column: bytes) -> bytes:
    """Rewrite `KILL QUERY` to compare `column` instead of `query_id`: the engine gives queries ids of its own."""
    pieces: list[bytes] = []
    at = 0
    for token in _tokens(statement.text):
        if token.is_word(b"QUERY_ID"):
            pieces += [statement.text[at : token.start], column]
            at = token.end
    return b"".join(pieces) + statement.text[at:]


def tokens(text: bytes) -> Iterator["_Token"]:
    """Iterate over the tokens of a SQL text: comments and blanks left out, everything else as it is written."""
    return _tokens(text)


def unquoted(token: "_Token") -> bytes:
    """Return what a string, a quoted name or a heredoc stands for; everything else stands for itself."""
    if token.kind == "hex":
        digits = token.text[2:-1]
        if token.text[:1] in b"xX":
            return bytes.fromhex((b"0" * (len(digits) % 2) + digits).decode())
        return int(digits or b"0", 2).to_bytes((len(digits) + 7) // 8, "big")
    if token.kind in {"string", "name"}:
        return _ESCAPE.sub(_unescaped, token.text[1:-1])
    if token.kind == "doc":
        tag_length = token.text.index(b"$", 1) + 1
        return token.text[tag_length:-tag_length]
    return token.text


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return bytes([int(found[1], 16)])
    if found[2]:
        return _ESCAPED.get(found[2], found[0])  # the backslash of an unknown escape stays
    return found[0][:1]


def _tokens(text: bytes, start: int = 0) -> Iterator[_Token]:
    at = start
    while found := _TOKEN.match(text, at):
        kind, at, end = str(found.lastgroup), found.start(), found.end()
        if kind == "comment":
            end = _comment_end(text, end)
        elif kind == "dollar":
            kind, end = _dollar(text, found.group(), at, end)
        if kind not in {"blank", "comment"}:
            yield _Token(kind, text[at:end], at, end)
        at = end


def _comment_end(text: bytes, at: int) -> int:
    """Return where the comment ends that was opened before `at`; comments nest."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, at):
        depth += 1 if edge.group() == b"/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)


def _dollar(text: bytes, tag: bytes, at: int, end: int) -> tuple[str, int]:
    """Return kind and end of what begins with `$tag$`: a heredoc only if the same closes it."""
    closing = text.find(tag, end)
    if closing >= 0:
        return "doc", closing + len(tag)
    word = _DOLLAR_WORD.match(text, at)
    return ("word", word.end()) if word else ("mark", at + 1)


_DOLLAR_WORD = re.compile(rb"\$\w[\w$]*")


def _top_level(tokens: Iterator[_Token]) -> Iterator[_Token]:
    """Yield the tokens outside of all brackets; each bracket pair is reduced to its opening one."""
    depth = 0
    for token in tokens:
        if token.kind == "close":
            depth = max(0, depth - 1)
        elif depth == 0 or token.kind == "open":
            if depth == 0:
                yield token
            depth += token.kind == "open"


def _query(text: bytes, word: str, tokens: list[_Token]) -> Statement:
    outer = list(_top_level(iter(tokens)))
    end = _end(text, outer)
    outer = [token for token in outer if token.end <= end]
    if any(a.is_word(b"INTO") and b.is_word(b"OUTFILE") for a, b in pairwise(outer)):
        raise error("INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
    rows = word in _ROWS and not any(token.is_word(b"INSERT") for token in outer)
    at = _format_clause(outer)
    if at is None:
        return Statement("rows" if rows else "other", word, text[:end], None, b"", b"", text[:end])
    name = outer[at + 1]
    return Statement(
        "rows" if rows else "other",
        word,
        text[: outer[at].start],
        _plain(name),
        text[name.end : end],
        b"",
        text[:end],
    )


def _end(text: bytes, outer: list[_Token]) -> int:
    """Return where the one statement ends: at its semicolon, or with the text."""
    for i, token in enumerate(outer):
        if token.text == b";":
            if any(later.text != b";" for later in outer[i + 1 :]):
                raise error("SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
            return token.start
    return len(text)


def _format_clause(outer: list[_Token]) -> int | None:
    """Return the index of the last `FORMAT name` that ends the statement, or stands before its SETTINGS."""
    for at in range(len(outer) - 2, -1, -1):
        after = outer[at + 2 : at + 3]
        ends = not after or after[0].is_word(b"SETTINGS")
        if outer[at].is_word(b"FORMAT") and outer[at + 1].kind in {"word", "name"} and ends:
            return at
    return None


def _insert(text: bytes, tokens: Iterator[_Token]) -> Statement:
    outer = _top_level(tokens)
    seen: list[_Token] = []
    for token in outer:
        in_name = _still_naming(seen)
        seen.append(token)
        if in_name:
            continue
        if token.is_word(b"VALUES"):
            return _data(text, text[: token.start], "Values", token.end)
        if token.is_word(b"FORMAT"):
            name = next(outer, None)
            if name is None or name.kind not in {"word", "name"}:
                break
            if any(t.is_word(b"SELECT") for t in seen) and take_input(text[: token.start], "") is None:
                break  # the FORMAT of a SELECT that needs no data
            return _after_format(text, token, name)
        if token.is_word(b"FROM") and not any(t.is_word(b"SELECT", b"WITH") for t in seen):
            raise error("UNKNOWN_TYPE_OF_QUERY", "Query has infile and was send directly to server")
        if token.text == b";" and next(outer, None) is not None:
            raise error("SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
    return Statement("other", "INSERT", text, None, b"", b"", text)


def _insert_after_with(text: bytes) -> _Token | None:
    """Return the keyword INSERT of `WITH … INSERT INTO …`."""
    for token, following in pairwise(_top_level(_tokens(text))):
        if token.is_word(b"INSERT") and following.is_word(b"INTO"):
            return token
    return None


def _still_naming(seen: list[_Token]) -> bool:
    """Return whether the next token belongs to the table's name: a table may be called `values` or `format`."""
    rest = [t for t in seen if not t.is_word(b"INTO", b"TABLE", b"FUNCTION")]
    return not rest or rest[-1].text == b"."


def _after_format(text: bytes, keyword: _Token, name: _Token) -> Statement:
    head, end = text[: keyword.start], name.end
    if text[end : end + 1] == b";":
        raise error("SYNTAX_ERROR", "Syntax error: You have excessive ';' symbol before data for INSERT")
    if _SETTINGS_FOLLOW.match(text, end):
        clause_start = end
        end += text[end:].upper().index(b"SETTINGS") + len(b"SETTINGS")
        while found := _SETTING.match(text, end):
            end = found.end()
        head += text[clause_start:end]
    return _data(text, head, _plain(name), end)


def _data(text: bytes, head: bytes, format_name: str, end: int) -> Statement:
    skipped = _HEAD_END.match(text, end) if format_name != "Values" else None
    at = skipped.end() if skipped else end
    return Statement("insert", "INSERT", head, format_name, b"", text[at:], text[:end])


def _plain(name: _Token) -> str:
    return name.text.decode("utf-8", "replace").strip('`"')


def _first_words(text: bytes) -> set[bytes]:
    return {token.text.upper() for token in _top_level(_tokens(text)) if token.kind == "word"}
