"""Expressions that choose events, such as `severity == "critical" and fleet == "north"`, evaluated by simpleeval.

simpleeval walks the parsed expression itself: there are no statements, no calls and no access to Python's objects. What
an expression may consist of, and how much of it, is bounded, so that no expression takes long: clients of the event
stream share a process.
"""

import ast
from collections.abc import Callable, Collection, Mapping
from typing import Any

from simpleeval import EvalWithCompoundTypes, InvalidExpression

Filter = Callable[[Mapping[str, Any]], bool]

_CHARACTERS_MAX = 1_000
_PARTS_MAX = 100  # names, values, operations; each takes about a microsecond per event
_PARTS = (
    ast.Expr, ast.expr_context, ast.Name, ast.Constant, ast.List, ast.Tuple,
    ast.BoolOp, ast.boolop, ast.Compare, ast.cmpop, ast.UnaryOp, ast.unaryop,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Attribute, ast.Subscript, ast.Slice,
)  # fmt: skip


class FilterError(ValueError):
    """An expression that cannot be a filter; its text says why."""


def filter_of(text: str, fields: Collection[str]) -> Filter:
    """Return the filter of an expression over these fields; raise `FilterError` for another one.

    A record for which the expression has no value, such as a comparison of null with a number, is not chosen.
    """
    if len(text) > _CHARACTERS_MAX:
        raise FilterError(f"an expression has at most {_CHARACTERS_MAX:,} characters, not {len(text):,}")
    evaluator = EvalWithCompoundTypes(functions={})
    try:
        parsed = evaluator.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError, InvalidExpression) as error:
        raise FilterError(f"{text!r} is not an expression: {getattr(error, 'msg', error)}") from None
    if not isinstance(parsed, ast.Expr):
        raise FilterError(f"{text!r} is not an expression: compare with ==")
    unknown = {node.id for node in ast.walk(parsed) if isinstance(node, ast.Name)} - {*fields, "None", "True", "False"}
    if unknown:
        raise FilterError(f"no field {', '.join(sorted(unknown))}; fields are {', '.join(fields)}")
    if any(isinstance(node, ast.Call) for node in ast.walk(parsed)):
        raise FilterError("an expression calls no functions; compare fields with values")
    if not all(isinstance(node, _PARTS) for node in ast.walk(parsed)):
        raise FilterError("an expression compares fields with values; it may use and, or, not, in, + - * /, [] and .")
    parts = sum(isinstance(node, ast.expr) for node in ast.walk(parsed))
    if parts > _PARTS_MAX:
        raise FilterError(f"an expression has at most {_PARTS_MAX} names, values and operations, not {parts}")

    def chosen(record: Mapping[str, Any]) -> bool:
        evaluator.names = record
        try:
            return bool(evaluator.eval(text, previously_parsed=parsed))
        except (InvalidExpression, TypeError, ValueError, LookupError, ArithmeticError):
            return False

    return chosen
