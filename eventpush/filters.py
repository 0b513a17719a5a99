"""Expressions that choose events, such as `severity == "critical" and fleet == "north"`, evaluated by simpleeval.

simpleeval walks the parsed expression itself: there are no statements, no calls and no access to Python's objects.
"""

import ast
from collections.abc import Callable, Collection, Mapping
from typing import Any

from simpleeval import EvalWithCompoundTypes, InvalidExpression

Filter = Callable[[Mapping[str, Any]], bool]


class FilterError(ValueError):
    """An expression that cannot be a filter; its text says why."""


def filter_of(text: str, fields: Collection[str]) -> Filter:
    """Return the filter of an expression over these fields; raise `FilterError` for another one.

    A record for which the expression has no value, such as a comparison of null with a number, is not chosen.
    """
    evaluator = EvalWithCompoundTypes(functions={})
    try:
        parsed = evaluator.parse(text)
    except (SyntaxError, InvalidExpression) as error:
        raise FilterError(f"{text!r} is not an expression: {getattr(error, 'msg', error)}") from None
    if not isinstance(parsed, ast.Expr):
        raise FilterError(f"{text!r} is not an expression: compare with ==")
    unknown = {node.id for node in ast.walk(parsed) if isinstance(node, ast.Name)} - {*fields, "None", "True", "False"}
    if unknown:
        raise FilterError(f"no field {', '.join(sorted(unknown))}; fields are {', '.join(fields)}")
    if any(isinstance(node, ast.Call) for node in ast.walk(parsed)):
        raise FilterError("an expression calls no functions; compare fields with values")

    def chosen(record: Mapping[str, Any]) -> bool:
        evaluator.names = record
        try:
            return bool(evaluator.eval(text, previously_parsed=parsed))
        except (InvalidExpression, TypeError, ValueError, LookupError, ArithmeticError):
            return False

    return chosen
