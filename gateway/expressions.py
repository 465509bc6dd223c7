"""Small expressions over tag values, as state rules use them: `fault != 0 and not (mode & 4)`."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.errors import ExpressionError

_MAX_LENGTH: Final = 500
_MAX_DEPTH: Final = 30
_MAX_SHIFT: Final = 63


def _inverted(operand: Any) -> Any:
    """Return the other truth value, or all bits turned; Python makes -2 of `~True`, which is true again."""
    return not operand if isinstance(operand, bool) else operator.invert(operand)


_UNARY: Final[dict[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.Invert: _inverted,
}
_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CONSTANTS: Final = (bool, int, float, str)
_SYNTAX: Final = "names, numbers, texts, true, false, and, or, not, comparisons, + - * / // % & | ^ ~ << >>"

Evaluate = Callable[[Mapping[str, Any]], Any]


class Expression:
    """An expression, checked and compiled once; nothing but arithmetic and comparison is reachable.

    Raises ExpressionError for anything else.
    """

    __slots__ = ("_evaluate", "names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        names: set[str] = set()
        if len(text) > _MAX_LENGTH:
            raise ExpressionError(f"an expression has at most {_MAX_LENGTH} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ExpressionError(f"{text!r} is no expression: {_SYNTAX}") from error
        self._evaluate = _compile(tree.body, names, 0)
        self.names = frozenset(names)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Return the expression's value; raise ExpressionError where the values do not allow one."""
        try:
            return self._evaluate(values)
        except (TypeError, ArithmeticError, ValueError, KeyError) as error:
            raise ExpressionError(f"{self.text!r} has no value here: {error}") from error


def _compile(node: ast.expr, names: set[str], depth: int) -> Evaluate:
    if depth > _MAX_DEPTH:
        raise ExpressionError(f"an expression nests at most {_MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=constant) if isinstance(constant, _CONSTANTS):
            return lambda _: constant
        case ast.Name(id="true" | "false" as word):
            truth = word == "true"
            return lambda _: truth
        case ast.Name(id=name):
            names.add(name)
            return operator.itemgetter(name)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _unary(_UNARY[type(sign)], _compile(operand, names, depth + 1))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            sides = _compile(left, names, depth + 1), _compile(right, names, depth + 1)
            return _binary(_bounded(type(sign)), *sides)
        case ast.BoolOp(op=joint, values=parts):
            compiled = [_compile(part, names, depth + 1) for part in parts]
            return _joint(any if isinstance(joint, ast.Or) else all, compiled)
        case ast.Compare(left=left, ops=signs, comparators=others) if all(type(s) in _COMPARE for s in signs):
            operands = [_compile(part, names, depth + 1) for part in (left, *others)]
            return _chain([_COMPARE[type(sign)] for sign in signs], operands)
    raise ExpressionError(f"{ast.unparse(node)!r} is not allowed in an expression: {_SYNTAX}")


def _bounded(sign: type[ast.operator]) -> Callable[[Any, Any], Any]:
    """Return the operation, with text left out of arithmetic and shifts kept small."""
    operation = _BINARY[sign]

    def apply(left: Any, right: Any) -> Any:
        if isinstance(left, str) or isinstance(right, str):
            raise TypeError("a text takes part in comparisons only")
        if sign is ast.LShift and not 0 <= right <= _MAX_SHIFT:
            raise ValueError(f"a shift goes by 0 to {_MAX_SHIFT}")
        return operation(left, right)

    return apply


def _unary(operation: Callable[[Any], Any], operand: Evaluate) -> Evaluate:
    return lambda values: operation(operand(values))


def _binary(operation: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda values: operation(left(values), right(values))


def _joint(join: Callable[[Any], bool], parts: list[Evaluate]) -> Evaluate:
    return lambda values: join(part(values) for part in parts)


def _chain(operations: list[Callable[[Any, Any], bool]], operands: list[Evaluate]) -> Evaluate:
    def compare(values: Mapping[str, Any]) -> bool:
        found = [operand(values) for operand in operands]
        return all(
            operation(left, right)
            for operation, left, right in zip(operations, found, found[1:], strict=False)
        )

    return compare
