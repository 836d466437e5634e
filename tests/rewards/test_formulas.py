"""Assertions of any shape: what is asked of the box, what is decided of the values it tells, and what cannot be."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from assay.types import Verdict
from rewards.sandbox.base import Limits
from rewards.sandbox.driver_python import _make_encoder
from rewards.values import BadValue, parse
from rewards.verifiers.asserts import COMPARED_INSIDE, AssertsVerifier
from rewards.verifiers.base import Bench
from rewards.verifiers.formulas import PRELUDE, Formula, decide, formula_of, taken_names


def taken_apart(text: str, *taken: str) -> Formula:
    return formula_of(ast.parse(text, mode="eval").body, frozenset(taken))


def told(formula: Formula, **names: Any) -> Any:
    """What a box tells of the parts, where `names` are what the answer defines."""
    space = dict(names)
    exec(PRELUDE, space)
    return parse(_make_encoder(1 << 20)(eval(formula.expression, space)))


@pytest.mark.parametrize(
    ("test", "asked"),
    [
        ("f(1) != 3 and f(1) == 2", ["f(1)", "f(1)"]),
        ("len(f(1)) == 2 and isinstance(f(1), list)", ["f(1)", "f(1)"]),
        ("isinstance(f(1), (int, str)) or not f(2)[0] > 1", ["f(1)", "f(2)[0]"]),
        ("0 < f() <= g() < 10**3", ["f()", "g()", "10 ** 3"]),
        ("f() in (1, 2) and all(f())", ["f()", "f()"]),
        ("isinstance(f(), Node)", ["isinstance(f(), Node)"]),
        ("all(x for x in f())", ["all((x for x in f()))"]),
        ("f() is None or f() is g()", ["f()", "f() is g()"]),
        ("(f() or 1) == 1", ["(f() or 1) == 1"]),
        ("f(1) if g() else h()", ["f(1) if g() else h()"]),
        ("True", ["True"]),
    ],
)
def test_the_smallest_expressions_that_only_the_box_can_know_are_asked(test, asked):
    assert [ast.unparse(part) for part in taken_apart(test).asked] == asked


def test_what_values_are_compared_with_stays_outside():
    expression = taken_apart("f(5) != 123456 and (len(f(6)) == 654321 or f(7) in [111222])").expression
    assert "f(5)" in expression and "f(7)" in expression
    assert not [secret for secret in ("123456", "654321", "111222") if secret in expression]


def test_a_name_with_another_meaning_in_the_task_is_asked_of_the_box():
    tests = [ast.parse(text, mode="eval").body for text in ("len(5) == 2", "any(f(1))", "f(bool(g()))")]
    assert taken_names(tests, []) == {"len"}
    assert taken_names(tests, [ast.parse("def any(x): return 3")]) == {"len", "any"}
    assert [ast.unparse(part) for part in taken_apart("len(f()) > 2", "len").asked] == ["len(f())"]


VALUES = (0, 1, 2, True, None, "", "ab", [], [1, 2], (1, 2), {1, 2}, {"a": 1}, 2.5, float("nan"))
TESTS = (
    "f() != 2", "f() == 2 or f() == 'ab'", "not f()", "not (f() in [1, 2])", "f() not in (1, 'ab')",
    "isinstance(f(), list) and len(f()) == 2", "isinstance(f(), (list, tuple)) and f()[-1:]", "f() is not None",
    "f() is None or isinstance(f(), bool)", "f() == f()", "bool(f()) == True", "isinstance(f(), str) != False",
    "not isinstance(f(), int) or 0 < f() <= 1", "isinstance(f(), dict) and all(f()) and any(f())",
    "f() and not f() == 1",
)  # fmt: skip


@pytest.mark.parametrize("test", TESTS)
def test_of_built_in_values_an_assertion_says_what_python_says(test):
    """With parts that are never come to and would raise: f()[0] of a number."""
    formula = taken_apart(test)
    for value in VALUES:
        expected = bool(eval(test, {"f": lambda: value}))  # noqa: B023 - called at once
        assert decide(formula, told(formula, f=lambda: value))[0] is expected, value  # noqa: B023


class Yes:
    """Equals everything, is in every order with everything, is true and has a length."""

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
    __hash__ = None  # type: ignore[assignment]
    __len__ = lambda self: 2  # noqa: E731
    __contains__ = lambda self, item: True  # noqa: E731


@pytest.mark.parametrize(
    ("test", "found"),
    [
        ("f() != 3 and f() == 2", False),
        ("f() == 2 or f() != 3", None),
        ("f() > 2", False),
        ("3 > f() > 2", False),
        ("f() in [1, 2]", False),
        ("not f() == 2", True),
        ("isinstance(f(), (int, str))", False),
        ("f() is None", False),
        ("f() is not None", True),
        ("f() != 3", None),
        ("f() == f()", None),
        ("1 in f()", None),
        ("len(f()) == 2", None),
        ("bool(f() != 2) == True", None),
        ("isinstance(len(f()), int)", None),
        ("f()", None),
        ("f() != 3 and g()[0] == 1", None),  # whether Python would come to what raised cannot be known
    ],
)
def test_an_object_settles_nothing_in_its_favour(test, found):
    formula = taken_apart(test)
    assert decide(formula, told(formula, f=Yes, g=lambda: None))[0] is found


def test_a_subclass_counts_as_its_base_and_a_huge_value_as_an_object():
    formula = taken_apart("isinstance(f(), list) and f() != [7]")
    assert decide(formula, told(formula, f=type("L", (list,), {"__ne__": lambda a, b: False})))[0] is True
    assert decide(formula, told(formula, f=lambda: list(range(5000))))[0] is False


@pytest.mark.parametrize(
    "tree",
    [
        ["N"],
        ["b", 1],
        ["l", []],
        ["l", [["t", [["i", "1"]]]]],
        ["l", [["t", []], ["t", []]]],
        ["l", [["i", "1"], ["i", "1"]]],
    ],
)
def test_what_is_not_the_parts_of_the_assertion_is_refused(tree):
    with pytest.raises(BadValue):
        decide(taken_apart("f() != 3 and f() != 4"), tree)


def test_what_raised_counts_where_python_comes_to_it():
    formula = taken_apart("f() is None or f()[0] == 1")
    assert decide(formula, told(formula, f=lambda: None))[0] is True
    with pytest.raises(BadValue, match="TypeError: 'int' object is not subscriptable"):
        decide(formula, told(formula, f=lambda: 3))
    with pytest.raises(BadValue, match="TypeError: '>' not supported"):
        decide(taken_apart("f() > 3"), told(taken_apart("f() > 3"), f=str))


HONEST = "class N:\n  def __init__(s, x): s.x = x\n  def __eq__(s, o): return s.x == o.x\ndef f(x): return N(x)"


@pytest.mark.sandbox
@pytest.mark.parametrize("isolate", ["test", "task"])
def test_where_objects_decide_the_box_is_asked_for_the_whole(isolate, sandbox, asserts_task):
    bench = Bench(sandbox=sandbox, limits=Limits(), isolate=isolate)
    task = asserts_task("assert f(1) == N(1) and not f(1) == f(2)", "assert f(1) is not None", "assert f(3) == f(1)")
    judged = AssertsVerifier().judge(task, HONEST, bench)
    assert [test.verdict for test in judged.tests] == ["AC", "AC", "WA"] and judged.verdict is Verdict.WA
    assert [test.detail.endswith(COMPARED_INSIDE) for test in judged.tests] == [True, False, True]
