"""Verifier "asserts": MBPP's form of tests, `assert f(1) == 2`, judged without trusting the process that runs them.

    {"language": "python", "tests": ["assert f(1) == 2", ...], "setup": "root = Node(1)", "prelude": "import math"}

`prelude` runs before the answer, `setup` after it, in its namespace. With `"tuples": "lists"` a tuple equals the list
of its items, for expected values that come from JSON, which has no tuples. The tests are ours and are taken apart here;
what runs in the box are expressions that ask the answer for a value:

    assert A == B               A in the box; B is read here if it is a literal, otherwise computed in a box that has
                                never seen the answer; compared here, as Python's == would (1 == True == 1.0)
    assert A is None            the same, and the value must be that very constant
    assert math.isclose(A, B)   the same with B and the tolerances literal; compared here. B may be a list or a tuple:
                                then A is one of the same length, whose items are near or equal, one by one
    assert abs(A - B) < E       the same
    anything else               the truth of the whole expression, computed in the box

Values are compared as what they exactly are: built-in values, Fractions and Decimals, and the keys and items of a dict
as sets. No other object leaves the box, so one that would only say it is equal (a class of the answer's) is wrong.

In the last form the comparison happens beside the answer, so an answer could win it by replacing what the expression
uses (an object that equals everything, another `len`). What remains is that it is a fresh process, that nothing but
a complete value counts, and that the outcome says so: such a test's `detail` is COMPARED_INSIDE.
"""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

from assay.errors import DataError
from assay.types import Task, TestVerdict, Verdict
from rewards import drivers
from rewards.languages import LANGUAGES, Language, find
from rewards.records import Judge
from rewards.sandbox.base import Limits
from rewards.values import BadValue, decode, parse, parts
from rewards.verifiers.base import Bench, Judged, limits_of, overall, record_of, test_list
from rewards.verifiers.called import Called, judge_calls

COMPARED_INSIDE = "compared inside the box"

_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One assertion: the expression for the box, and how its value is judged here."""

    expression: str
    compare: str  #: "==", "is", "close", "within" or "truth"
    expected: Any = _ABSENT  #: absent where it has to be computed from `clean`
    clean: str = ""  #: an expression for the expected value
    tolerances: tuple[tuple[str, float], ...] = ()
    whole: str = ""  #: the whole assertion, for when the expected value is none that can leave a box


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A task's answer record, taken apart."""

    prelude: str
    setup: str
    checks: tuple[Check, ...]
    limits: Mapping[str, float]
    listed: bool = False  #: whether a tuple counts as a list


def read(task: Task) -> Plan:
    """Take the tests apart. Raises DataError for anything that is not Python or asserts nothing."""
    answer = record_of(task, ("language", "tests"), ("setup", "prelude", "limits", "tuples"))
    if find(answer["language"]) is not LANGUAGES["python"]:
        raise DataError(f"task {task.id!r}: asserts are Python; language {answer['language']!r} is not")
    if answer.get("tuples", "lists") != "lists":
        raise DataError(f"task {task.id!r}: tuples {answer['tuples']!r}; there is only 'lists'")
    setup, checks = [answer.get("setup", "")], []
    for number, text in enumerate(test_list(task)):
        where = f"task {task.id!r}, test {number}"
        statements = _parse(where, text)
        found = [_check(statement.test) for statement in statements if isinstance(statement, ast.Assert)]
        if not found:
            raise DataError(f"{where}: asserts nothing, so anything would pass it: {text!r}")
        setup += [ast.unparse(statement) for statement in statements if not isinstance(statement, ast.Assert)]
        checks += found
    plan_setup = "\n".join(filter(None, setup)).replace("\r\n", "\n")
    for part in (plan_setup, answer.get("prelude", "")):
        _parse(f"task {task.id!r}, setup", part)
    return Plan(
        prelude=answer.get("prelude", ""),
        setup=plan_setup,
        checks=tuple(checks),
        limits=limits_of(task),
        listed="tuples" in answer,
    )


class AssertsVerifier:
    """Judges a Python program by assertions about it."""

    def check(self, task: Task) -> Language:
        """Python; DataError when the record cannot be judged by."""
        read(task)
        return LANGUAGES["python"]

    def judge(self, task: Task, program: str, bench: Bench) -> Judged:
        """Evaluate every assertion's expression in a box of its own, unless the bench says one for all."""
        plan = read(task)
        limits = bench.limits_for(plan.limits)
        isolation = str(bench.sandbox.isolation)
        key = ("asserts", task.id, plan.prelude, plan.setup, tuple(check.whole for check in plan.checks))
        checks = bench.keep(key, lambda: _with_expected(bench, limits, plan))
        sources = {"prelude": plan.prelude, "answer": program, "setup": plan.setup}
        called = Called(
            calls=partial(drivers.call_python, bench, limits, sources),
            tests=[check.expression for check in checks],
            judges=[_judge(check, plan.listed) for check in checks],
            limits=limits,
        )
        no_program, found = judge_calls(bench, called)
        if no_program is not None:
            each = TestVerdict(verdict=Verdict.CE, detail="no program to run")
            return Judged(verdict=Verdict.CE, tests=(each,) * len(checks), detail=no_program, isolation=isolation)
        tests = tuple(
            replace(test, detail="; ".join(filter(None, (test.detail, COMPARED_INSIDE))))
            if check.compare == "truth"
            else test
            for check, test in zip(checks, found, strict=True)
        )
        verdict, detail = overall(tests)
        return Judged(verdict=verdict, tests=tests, detail=detail, isolation=isolation)


def _parse(where: str, text: Any) -> list[ast.stmt]:
    if not isinstance(text, str):
        raise DataError(f"{where}: is a {type(text).__name__}, expected Python source")
    try:
        return ast.parse(text.replace("\r\n", "\n")).body
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{where}: not Python: {error}") from None


def _check(test: ast.expr) -> Check:
    """Recognise one of the forms in the module's docstring; the last one always fits."""
    whole = ast.unparse(test)
    for recognise in (_comparison, _isclose, _within):
        check = recognise(test, whole)
        if check is not None:
            return check
    return _truth(whole)


def _truth(whole: str) -> Check:
    return Check(expression=f"not not ({whole})", compare="truth", expected=True, whole=whole)


def _comparison(test: ast.expr, whole: str) -> Check | None:
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    left, operator, right = test.left, test.ops[0], test.comparators[0]
    if isinstance(operator, ast.Is) and isinstance(right, ast.Constant) and right.value in (None, True, False):
        return Check(expression=ast.unparse(left), compare="is", expected=right.value, whole=whole)
    if not isinstance(operator, ast.Eq):
        return None
    if _literal(right) is _ABSENT and _literal(left) is not _ABSENT:
        left, right = right, left
    return Check(
        expression=ast.unparse(left), compare="==", expected=_literal(right), clean=ast.unparse(right), whole=whole
    )


def _isclose(test: ast.expr, whole: str) -> Check | None:
    if not isinstance(test, ast.Call) or ast.unparse(test.func) not in ("math.isclose", "isclose"):
        return None
    if len(test.args) != 2 or any(k.arg not in ("rel_tol", "abs_tol") for k in test.keywords):
        return None
    actual, expected = test.args
    if _near_what(expected) is _ABSENT:
        actual, expected = expected, actual
    tolerances = tuple((str(k.arg), _number(k.value)) for k in test.keywords)
    if _near_what(expected) is _ABSENT or any(value is None for _, value in tolerances):
        return None
    return Check(
        expression=ast.unparse(actual),
        compare="close",
        expected=_near_what(expected),
        tolerances=tuple((name, float(value)) for name, value in tolerances if value is not None),
        whole=whole,
    )


def _within(test: ast.expr, whole: str) -> Check | None:
    """abs(A - B) < E, or <=, with B and E numbers."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Lt | ast.LtE):
        return None
    call, bound = test.left, _number(test.comparators[0])
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "abs" or len(call.args) != 1 or bound is None:
        return None
    difference = call.args[0]
    if not isinstance(difference, ast.BinOp) or not isinstance(difference.op, ast.Sub):
        return None
    expected = _number(difference.right)
    if expected is None:
        return None
    name = "below" if isinstance(test.ops[0], ast.Lt) else "at_most"
    return Check(
        expression=ast.unparse(difference.left),
        compare="within",
        expected=expected,
        tolerances=((name, float(bound)),),
        whole=whole,
    )


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _ABSENT


def _number(node: ast.expr) -> float | None:
    value = _literal(node)
    return value if type(value) in (int, float) else None


def _near_what(node: ast.expr) -> Any:
    """A number, or a list or tuple of literals in which `float('inf')` and its like may stand; else _ABSENT."""
    if isinstance(node, ast.List | ast.Tuple):
        items = [_near_item(item) for item in node.elts]
        return _ABSENT if _ABSENT in items else items if isinstance(node, ast.List) else tuple(items)
    value = _number(node)
    return _ABSENT if value is None else value


def _near_item(node: ast.expr) -> Any:
    if isinstance(node, ast.List | ast.Tuple):
        return _near_what(node)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "float" and len(node.args) == 1 and not node.keywords:
        name = _literal(node.args[0])
        return float(name) if name in ("inf", "-inf", "nan") else _ABSENT
    return _literal(node)


def _with_expected(bench: Bench, limits: Limits, plan: Plan) -> tuple[Check, ...]:
    """The checks with every expected value known: those that are no literals come out of a box without an answer."""
    open_checks = [check for check in plan.checks if check.expected is _ABSENT]
    if not open_checks:
        return plan.checks
    values: dict[str, Any] = {}
    for setup in dict.fromkeys((plan.setup, "")):  # setup may need the answer; then do without
        wanted = [check.clean for check in open_checks if check.clean not in values]
        if wanted:
            values |= _computed(bench, limits, plan.prelude, setup, wanted)
    return tuple(
        check
        if check.expected is not _ABSENT
        else replace(check, expected=values[check.clean])
        if check.clean in values
        else _truth(check.whole)
        for check in plan.checks
    )


def _computed(bench: Bench, limits: Limits, prelude: str, setup: str, expressions: Sequence[str]) -> dict[str, Any]:
    """The values of `expressions` in a clean box; those that fail or are no built-in values are left out."""
    sources = {"prelude": f"{prelude}\n{_imports(expressions)}", "answer": "", "setup": setup}
    _, report = drivers.call_python(bench, limits, sources, expressions)
    values = {}
    for expression, record in zip(expressions, report.records, strict=False):
        if record.data[:1] == b"V":
            try:
                values[expression] = decode(parse(record.data[1:]), exact=False)
            except BadValue:
                continue
    return values


def _imports(expressions: Sequence[str]) -> str:
    """Imports of the standard modules the expressions name; the answer's own imports are not there."""
    names = {
        node.value.id
        for expression in expressions
        for node in ast.walk(ast.parse(expression, mode="eval"))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return "\n".join(f"import {name}" for name in sorted(names & sys.stdlib_module_names))


def _judge(check: Check, listed: bool) -> Judge:
    compare = _COMPARISONS[check.compare]
    expected = _listed(check.expected) if listed else check.expected

    def judge(data: bytes) -> bool:
        value = decode(parse(data), exact=False, expected_parts=parts(expected))
        return compare(_listed(value) if listed else value, expected, dict(check.tolerances))

    return judge


def _listed(value: Any) -> Any:
    """A value with lists for its tuples, but for those that are keys or members of a set."""
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return {key: _listed(item) for key, item in value.items()} if isinstance(value, dict) else value


def _close(value: Any, expected: Any, tolerances: Mapping[str, float]) -> bool:
    if type(expected) in (list, tuple):
        if type(value) is not type(expected) or len(value) != len(expected):
            return False
        pairs = zip(value, expected, strict=True)
        return all(one == other or _close(one, other, tolerances) for one, other in pairs)
    try:
        return _is_number(value) and math.isclose(value, expected, **tolerances)
    except (TypeError, ArithmeticError):  # as the assertion itself would raise
        return False


def _near(value: Any, expected: Any, tolerances: Mapping[str, float]) -> bool:
    if not _is_number(value):
        return False
    try:
        distance = abs(value - expected)
        return bool(distance < tolerances["below"] if "below" in tolerances else distance <= tolerances["at_most"])
    except (TypeError, ArithmeticError):  # as the assertion itself would raise: a Decimal and a float, for one
        return False


def _is_number(value: Any) -> bool:
    """A number that arithmetic is cheap for: an int of a million digits is none."""
    return type(value) in (bool, float, complex, Fraction, Decimal) or (
        type(value) is int and value.bit_length() < 1000
    )


_COMPARISONS: dict[str, Callable[[Any, Any, Mapping[str, float]], bool]] = {
    "==": lambda value, expected, _: bool(value == expected),
    "is": lambda value, expected, _: type(value) is type(expected) and value == expected,
    "close": _close,
    "within": _near,
    "truth": lambda value, expected, _: value is expected,
}
