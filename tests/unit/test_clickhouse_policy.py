"""What the embedded ClickHouse refuses by its words: no spelling hides a name, and harmless statements pass."""

import pytest

from embedded.clickhouse.errors import ClickHouseError
from embedded.clickhouse.policy import FUNCTIONS, REFUSED_FUNCTIONS, Policy

POLICY = Policy(
    ["file", "upper", "arrayMap", "format", "now", "functionOfANewerEngine"],
    ["executable", "numbers", "values", "format", "functionOfANewerEngine"],
    ["Executable", "MergeTree", "Memory"],
)
SOURCE = "SOURCE(EXECUTABLE(COMMAND $$id$$ FORMAT TSV))"

HIDDEN = (
    r"SELECT `fi\Nle`('x')",
    r"SELECT 'a' AS b, \"fi\x6c\Ne\"('x')".replace('\\"', '"'),
    "SELECT functionOfANewerEngine(1)",
    "SELECT FunctionOfANewerEngine(1)",
    "SELECT * FROM functionOfANewerEngine(1)",
    f"CREATE DICTIONARY d (a Int8) PRIMARY KEY a //'\n {SOURCE} //'",
    f"CREATE DICTIONARY d (a Int8) PRIMARY KEY a /* /* */ ' */ {SOURCE} -- '",
    f"CREATE DICTIONARY d (a Int8) PRIMARY KEY a, .1{SOURCE}",
    "CREATE DICTIONARY $$d (a Int8) PRIMARY KEY a SOURCE(EXECUTABLE(COMMAND 'id' FORMAT TSV))",
    f"CREATE DICTIONARY d (a Int8) PRIMARY KEY a COMMENT x'27' {SOURCE}",
    "SELECT * FROM format(JSONEachRow, 'z UInt8, a String DEFAULT --\\n file(\\'x\\')', '{\"z\":1}')",
    "SELECT 1 SETTINGS additional_result_filter = x'" + b"throwIf(1, file('x'))".hex() + "'",
    "SELECT 1 SETTINGS additional_result_filter = '1 IN (SELECT 1 FROM executable(1))'",
    "SELECT (SELECT 1 SETTINGS additional_table_filters = {'t': '1 IN (SELECT 1 FROM executable(1))'})",
    "SET additional_result_filter = '1 IN (SELECT 1 FROM executable(1))'",
    "SELECT count(DISTINCT 'x') SETTINGS count_distinct_implementation = 'file'",
    "SELECT arrayMap({f:Identifier}, ['x'])",
    r"SELECT arrayMap({f : `Identif\x69er`}, ['x'])",
    "CREATE VIEW v AS SELECT arrayMap(({f:Identifier}), ['x'])",
    "CREATE TABLE t (a Int8) ENGINE = {e:Identifier}('id')",
    "SELECT * FROM format(Values, 'a String', '((SELECT * FROM executable(1)))')",
    "CREATE DICTIONARY d (a Int8) PRIMARY KEY a SOURCE(NULL()) LAYOUT(SSD_CACHE(PATH './a'))",
    "INSERT INTO t FROM INFILE x'2F65' FORMAT TSV",
)


@pytest.mark.parametrize("sql", HIDDEN)
def test_no_spelling_hides_what_is_refused(sql: str) -> None:
    """Comments, numbers, escapes, hexadecimal strings, heredocs, parameters and settings are read as by the engine."""
    with pytest.raises(ClickHouseError) as refused:
        POLICY.check(sql.encode())
    assert refused.value.code in {497, 78}


HARMLESS = (
    "SELECT upper('a'), {p:String}, {t:Identifier}.a FROM {d:Identifier}.{t:Identifier}",
    "SELECT 1 // a 'comment'\n, 2 /* another /* in it */ ' */",
    "SELECT location FROM events WHERE location = 'Rue de l\u2019\u00c9glise' AND engine = {e:String}",
    "SELECT arrayMap(x -> x + 1, [1, .5, 1e5]), format('{} {}', 'a', 'executable (1)')",
    "SELECT * FROM format(JSONEachRow, 'a String', '{\"a\": \"executable (1)\"}')",
    "SELECT 1 SETTINGS log_comment = 'a'",
)


@pytest.mark.parametrize("sql", HARMLESS)
def test_what_only_looks_like_it_passes(sql: str) -> None:
    """Texts, parameters for values and tables, and comments are no calls."""
    POLICY.check(sql.encode())


@pytest.mark.parametrize(
    ("rows", "literals"),
    [("(1, 'a'), (2, now())", False), ("(file('x'))", True), ("(functionofanewerengine(1))", True), ("({f:X})", True)],
)
def test_rows_that_might_call_a_function_are_literals(rows: str, literals: bool) -> None:
    """Expressions in rows of VALUES are evaluated only where they cannot name what is refused."""
    assert POLICY.needs_literals(rows.encode()) is literals


def test_no_function_is_both_allowed_and_refused() -> None:
    """Names are compared without case, so no allowed name may differ from a refused one in case alone."""
    refused = {name.lower() for name in REFUSED_FUNCTIONS}
    assert refused.isdisjoint(name.lower() for name in FUNCTIONS)
