"""Verifier "asserts": MBPP's form of tests, `assert f(1) == 2`, judged without trusting the process that runs them.

    {"language": "python", "tests": ["assert f(1) == 2", ...], "setup": "root = Node(1)", "prelude": "import math"}

`prelude` runs before the answer, `setup` after it, in its namespace. The tests are ours and are taken apart here;
what runs in the box are expressions that ask the answer for a value:

    assert A == B               A in the box; B is read here if it is a literal, otherwise computed in a box that has
                                never seen the answer; compared here, as Python's == would (1 == True == 1.0)
    assert A is None            the same, and the value must be that very constant
    assert math.isclose(A, B)   the same with B and the tolerances literal; compared here
    assert abs(A - B) < E       the same
    anything else               taken apart by `rewards.verifiers.formulas`: the box tells the values in it, and its
                                logic (and, or, not, comparisons, isinstance, len, ...) is done here

In the last form two things remain that are decided beside the answer, where it could replace what decides: objects
that are no built-in values, compared with != or with each other, and a truth the box is asked for as such
(`all(x > 0 for x in f(1))`). There it is a fresh process, nothing but a complete value counts, and the outcome says so:
such a test's `detail` is COMPARED_INSIDE.
"""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from rewards.verifiers.formulas import PRELUDE, Formula, decide, formula_of, taken_names

COMPARED_INSIDE = "compared inside the box"

_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One assertion: the expression for the box, and how its value is judged here."""

    expression: str
    compare: str  #: "==", "is", "close", "within" or "formula"
    expected: Any = _ABSENT  #: absent where it has to be computed from `clean`
    clean: str = ""  #: an expression for the expected value
    tolerances: tuple[tuple[str, float], ...] = ()
    whole: str = ""  #: the whole assertion, for when the expected value is none that can leave a box
    formula: Formula | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A task's answer record, taken apart."""

    prelude: str
    setup: str
    checks: tuple[Check, ...]
    taken: frozenset[str]  #: names of built-in functions that mean something else in this task
    limits: Mapping[str, float]


def read(task: Task) -> Plan:
    """Take the tests apart. Raises DataError for anything that is not Python or asserts nothing."""
    answer = record_of(task, ("language", "tests"), ("setup", "prelude", "limits"))
    if find(answer["language"]) is not LANGUAGES["python"]:
        raise DataError(f"task {task.id!r}: asserts are Python; language {answer['language']!r} is not")
    setup: list[str] = [answer.get("setup", "")]
    tests: list[ast.expr] = []
    for number, text in enumerate(test_list(task)):
        where = f"task {task.id!r}, test {number}"
        statements = _parse(where, text)
        found = [statement.test for statement in statements if isinstance(statement, ast.Assert)]
        if not found:
            raise DataError(f"{where}: asserts nothing, so anything would pass it: {text!r}")
        setup += [ast.unparse(statement) for statement in statements if not isinstance(statement, ast.Assert)]
        tests += found
    plan_setup, prelude = "\n".join(filter(None, setup)).replace("\r\n", "\n"), answer.get("prelude", "")
    sources = [ast.Module(_parse(f"task {task.id!r}, setup", part), []) for part in (plan_setup, prelude)]
    taken = taken_names(tests, sources)
    checks = tuple(_check(test, taken) for test in tests)
    return Plan(prelude=prelude, setup=plan_setup, checks=checks, taken=taken, limits=limits_of(task))


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
        sources = {"prelude": f"{plan.prelude}\n{PRELUDE}", "answer": program, "setup": plan.setup}
        inside: dict[int, bool] = {}
        called = Called(
            calls=partial(drivers.call_python, bench, limits, sources),
            tests=[check.expression for check in checks],
            judges=[_judge(check, partial(inside.__setitem__, number)) for number, check in enumerate(checks)],
            limits=limits,
        )
        no_program, found = judge_calls(bench, called)
        if no_program is not None:
            each = TestVerdict(verdict=Verdict.CE, detail="no program to run")
            return Judged(verdict=Verdict.CE, tests=(each,) * len(checks), detail=no_program, isolation=isolation)
        found = _with_truths(bench, called, checks, found, [number for number, open_ in inside.items() if open_])
        tests = tuple(
            replace(test, detail="; ".join(filter(None, (test.detail, COMPARED_INSIDE)))) if number in inside else test
            for number, test in enumerate(found)
        )
        verdict, detail = overall(tests)
        return Judged(verdict=verdict, tests=tests, detail=detail, isolation=isolation)


def _with_truths(
    bench: Bench, called: Called, checks: Sequence[Check], found: tuple[TestVerdict, ...], unsettled: Sequence[int]
) -> tuple[TestVerdict, ...]:
    """The verdicts where those of `unsettled` tests, in which objects decide, are the box's own word."""
    if not unsettled:
        return found
    truths = [formula.truth for number in unsettled if (formula := checks[number].formula)]
    said = judge_calls(bench, replace(called, tests=truths, judges=[_is_true] * len(truths)))[1]
    told = dict(zip(unsettled, said, strict=True))
    return tuple(told.get(number, test) for number, test in enumerate(found))


def _is_true(data: bytes) -> bool:
    return decode(parse(data), exact=True) is True


def _parse(where: str, text: Any) -> list[ast.stmt]:
    if not isinstance(text, str):
        raise DataError(f"{where}: is a {type(text).__name__}, expected Python source")
    try:
        return ast.parse(text.replace("\r\n", "\n")).body
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{where}: not Python: {error}") from None


def _check(test: ast.expr, taken: frozenset[str]) -> Check:
    """Recognise one of the forms in the module's docstring; the last one always fits."""
    whole = ast.unparse(test)
    for recognise in (_comparison, _isclose, _within):
        check = recognise(test, whole)
        if check is not None:
            return check
    return _taken_apart(test, taken)


def _taken_apart(test: ast.expr, taken: frozenset[str]) -> Check:
    formula = formula_of(test, taken)
    return Check(
        expression=formula.expression, compare="formula", expected=None, whole=ast.unparse(test), formula=formula
    )


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
    if _number(expected) is None:
        actual, expected = expected, actual
    tolerances = tuple((str(k.arg), _number(k.value)) for k in test.keywords)
    if _number(expected) is None or any(value is None for _, value in tolerances):
        return None
    return Check(
        expression=ast.unparse(actual),
        compare="close",
        expected=_number(expected),
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
        else _taken_apart(ast.parse(check.whole, mode="eval").body, plan.taken)
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


def _judge(check: Check, inside: Callable[[bool], None]) -> Judge:
    """`inside` is told of a formula whose verdict the box has a word in, and whether it is all there is."""
    if check.formula is not None:
        return partial(_judge_formula, check.formula, inside)
    compare = _COMPARISONS[check.compare]

    def judge(data: bytes) -> bool:
        value = decode(parse(data), exact=False, expected_parts=parts(check.expected))
        return compare(value, check.expected, dict(check.tolerances))

    return judge


def _judge_formula(formula: Formula, inside: Callable[[bool], None], data: bytes) -> bool:
    holds, believed = decide(formula, parse(data))
    if holds is None or believed:
        inside(holds is None)
    return holds is not False


def _close(value: Any, expected: Any, tolerances: Mapping[str, float]) -> bool:
    return _is_real(value) and math.isclose(value, expected, **tolerances)


def _near(value: Any, expected: Any, tolerances: Mapping[str, float]) -> bool:
    if not _is_real(value):
        return False
    distance = abs(value - expected)
    return distance < tolerances["below"] if "below" in tolerances else distance <= tolerances["at_most"]


def _is_real(value: Any) -> bool:
    """A number that arithmetic with floats is safe for: an int of a million digits would raise OverflowError."""
    return type(value) in (bool, float) or (type(value) is int and value.bit_length() < 1000)


_COMPARISONS: dict[str, Callable[[Any, Any, Mapping[str, float]], bool]] = {
    "==": lambda value, expected, _: bool(value == expected),
    "is": lambda value, expected, _: type(value) is type(expected) and value == expected,
    "close": _close,
    "within": _near,
}
