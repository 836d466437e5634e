"""Assertions of any shape, taken apart for the verifier "asserts": the box tells values, the logic is done here.

    assert f(1) != 3 and isinstance(f(2), list)

    box:   [f(1), f(2)]
    here:  2 != 3 and isinstance([], list)

What is done here: `and`, `or`, `not`, comparisons, and the calls of `CALLS`, with literals and values. Everything else
is asked of the box, as the smallest expression that holds it; literals that values are compared with never enter it.
All parts are asked for; one that raises counts only where Python would have come to it.

An object that is no built-in value cannot be told: it equals no literal, is in no order with one, and is an instance
of no built-in type. Where that does not settle the assertion (`!=`, both sides objects), `decide` finds None.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rewards.values import BadValue, decode

#: what is called here and not in the box: its result alone would be the verdict
CALLS = ("isinstance", "len", "bool", "all", "any")
TYPES: dict[str, type] = {
    kind.__name__: kind for kind in (int, float, complex, bool, str, bytes, list, tuple, set, frozenset, dict)
}
MOST_PARTS = 4000  #: a told value of more counts as an object: sets with keys chosen to collide are slow to build
_OBJECT = object()  #: stands for what cannot leave a box
_UNKNOWN = object()  #: what is called with one
_ORDER: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CONSTANTS = (None, True, False)

#: For the box, before the answer: a value, or what was raised instead of it, told apart by their types.
PRELUDE = """
def assay_part(ask):
    try:
        return (ask(),)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:500]
"""


class _Raised(Exception):
    """What Python comes to raised in the box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """An assertion, and its parts that only the box can know, in Python's order."""

    test: ast.expr
    asked: tuple[ast.expr, ...]

    @property
    def expression(self) -> str:
        """A list of the parts. The first one is always come to, so what it raises is the test's own failure."""
        first, *rest = (ast.unparse(part) for part in self.asked)
        return f"[{', '.join((f'({first},)', *(f'assay_part(lambda: {part})' for part in rest)))}]"

    @property
    def truth(self) -> str:
        """The whole, for the box to say."""
        return f"not not ({ast.unparse(self.test)})"


def formula_of(test: ast.expr, taken: frozenset[str]) -> Formula:
    """Take an assertion apart. `taken` are names of `CALLS` that stand for something else in this task."""
    return Formula(test=test, asked=tuple(_asked(test, taken)) or (test,))


def taken_names(tests: list[ast.expr], sources: list[ast.Module]) -> frozenset[str]:
    """The names of `CALLS` that a task gives a meaning of its own: it defines them, or calls them with literals alone,
    as it calls the function under test.
    """
    defined = {node.name for source in sources for node in ast.walk(source) if isinstance(node, ast.FunctionDef)}
    nodes = [node for test in tests for node in ast.walk(test)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    called = {ast.unparse(call.func) for call in calls if all(map(_is_literal, call.args))}
    return frozenset((defined | called) & {*CALLS})


def decide(formula: Formula, told: Any) -> tuple[bool | None, bool]:
    """(whether the assertion holds, whether a truth was believed) from the tree of what the box told.

    Raises BadValue for a tree of another form and where a part that counts had raised.
    """
    match told:
        case ["l", list(parts)] if len(parts) == len(formula.asked):
            found = _Found(formula, [_part(part) for part in parts])
        case _:
            raise BadValue("not the parts of an assertion")
    try:
        holds = found.truth(formula.test)
    except (TypeError, RecursionError) as error:
        raise BadValue(f"{type(error).__name__}: {error}") from None  # as in the box: no order between such values
    except _Raised as error:
        if not found.unsettled:
            raise BadValue(str(error)) from None
        holds = None
    return holds, found.believed


def _asked(node: ast.expr, taken: frozenset[str]) -> Iterator[ast.expr]:
    """The parts that are asked of the box, in the order Python comes to them."""
    below = _below(node, taken)
    if below is None:
        yield node
        return
    for part in below:
        yield from _asked(part, taken)


def _below(node: ast.expr, taken: frozenset[str]) -> list[ast.expr] | None:
    """The operands of a node that is done here; None for one that is asked of the box."""
    if _is_literal(node):
        return []
    match node:
        case ast.BoolOp(values=values):
            return values
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return [operand]
        case ast.Compare(left=left, ops=ops, comparators=rights):
            operands = [left, *rights]
            plain = all(not isinstance(op, ast.Is | ast.IsNot) for op in ops) or (
                len(ops) == 1 and isinstance(rights[0], ast.Constant) and any(rights[0].value is c for c in _CONSTANTS)
            )
            return operands if plain and not any(isinstance(part, ast.BoolOp) for part in operands) else None
        case ast.Call(func=ast.Name(id="isinstance"), args=[value, kinds], keywords=[]) if "isinstance" not in taken:
            return [value] if _types(kinds) and not isinstance(value, ast.BoolOp) else None
        case ast.Call(func=ast.Name(id=name), args=[value], keywords=[]) if name in CALLS and name not in taken:
            unfit = isinstance(value, ast.BoolOp | ast.Starred | ast.GeneratorExp)
            return None if unfit or _is_literal(value) else [value]
    return None


def _types(node: ast.expr) -> tuple[type, ...]:
    """The built-in types that a second argument of isinstance names; () where it names others too."""
    names = node.elts if isinstance(node, ast.Tuple) else [node]
    kinds = [TYPES.get(name.id) if isinstance(name, ast.Name) else None for name in names]
    return tuple(kind for kind in kinds if kind) if all(kinds) else ()


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _part(tree: Any) -> Any:
    """What a part was: its value, _OBJECT, or a _Raised."""
    match tree:
        case ["t", [value]]:
            try:
                return decode(value, exact=False, expected_parts=MOST_PARTS, fewer=True)
            except BadValue:
                return _OBJECT
        case ["s", str(text)]:
            return _Raised(text)
    raise BadValue("not a part of an assertion")


class _Found:
    """Goes through an assertion with what the box told, in Python's order; None is what cannot be known here."""

    def __init__(self, formula: Formula, parts: list[Any]) -> None:
        self._parts = {id(part): told for part, told in zip(formula.asked, parts, strict=True)}
        self.unsettled = False  #: something could not be known here
        self.believed = False  #: a truth was told, not found

    def truth(self, node: ast.expr) -> bool | None:
        """Whether a part holds. Raises _Raised, TypeError."""
        match node:
            case _ if id(node) in self._parts:
                self.believed = True
            case ast.BoolOp(op=op, values=values):
                return self._either(values, stop=isinstance(op, ast.Or))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                found = self.truth(operand)
                return None if found is None else not found
            case ast.Compare(left=left, ops=ops, comparators=rights):
                return self._compared(left, ops, rights)
        value = self._value(node)
        return self._settled(None if _is_unknown(value) else bool(value))

    def _settled(self, found: bool | None) -> bool | None:
        self.unsettled = self.unsettled or found is None
        return found

    def _either(self, parts: list[ast.expr], *, stop: bool) -> bool | None:
        """`or` with stop=True, `and` with stop=False: the first part that is it ends it."""
        result: bool | None = not stop
        for part in parts:
            found = self.truth(part)
            if found is stop:
                return stop
            result = result if found is not None else None
        return result

    def _compared(self, left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr]) -> bool | None:
        result: bool | None = True
        before = self._value(left)
        for op, right in zip(ops, rights, strict=True):
            after = self._value(right)
            found = self._settled(_related(op, before, after))
            if found is False:
                return False
            result = result if found is not None else None
            before = after
        return result

    def _value(self, node: ast.expr) -> Any:
        if id(node) in self._parts:
            told = self._parts[id(node)]
            if isinstance(told, _Raised):
                raise told
            return told
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[value, kinds]):
                found = self._value(value)
                return _UNKNOWN if found is _UNKNOWN else isinstance(found, _types(kinds))
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                value = self._value(argument)
                return _UNKNOWN if _is_unknown(value) else _CALLED[name](value)
            case ast.Compare() | ast.UnaryOp(op=ast.Not()):
                found = self.truth(node)
                return _UNKNOWN if found is None else found
        return ast.literal_eval(node)


_CALLED: dict[str, Callable[[Any], Any]] = {"len": len, "bool": bool, "all": all, "any": any}


def _is_unknown(value: Any) -> bool:
    return value is _OBJECT or value is _UNKNOWN


def _related(op: ast.cmpop, left: Any, right: Any) -> bool | None:
    """A comparison of two values, or of objects with what can be said of them; None for what cannot."""
    if left is _UNKNOWN or right is _UNKNOWN:
        return None
    objects = (left is _OBJECT) + (right is _OBJECT)
    match op:
        case ast.Is():
            return not objects and type(left) is type(right) and left == right
        case ast.IsNot():
            return bool(objects) or type(left) is not type(right) or left != right
        case ast.In() | ast.NotIn():
            if right is _OBJECT or (objects and isinstance(op, ast.NotIn)):
                return None
            return (not objects and left in right) is isinstance(op, ast.In)
        case ast.Eq():
            return left == right if not objects else None if objects == 2 else False
        case ast.NotEq():
            return None if objects else left != right
    return None if objects == 2 else not objects and bool(_ORDER[type(op)](left, right))
