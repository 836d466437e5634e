"""Verifier "asserts": every form of assertion, what is compared where, and MBPP itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from assay.errors import DataError
from assay.types import Message, Task, Verdict
from rewards.config import RewardsConfig
from rewards.scorer import Scorer
from rewards.verifiers.asserts import COMPARED_INSIDE, AssertsVerifier, read

DATA = (
    Path(os.environ.get("ASSAY_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "mbpp" / "mbpp.jsonl"
)


def verdict_of(test: str, program: str, bench, asserts_task, **rest) -> tuple[Verdict, str]:
    judged = AssertsVerifier().judge(asserts_task(test, **rest), program, bench)
    return judged.verdict, judged.tests[0].detail


RETURNS = "def f(*_): return {}"


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("test", "right", "wrong"),
    [
        ("assert f(1) == 2", "2", "3"),
        ("assert f(1) == 2", "2.0", "'2'"),  # as Python's == says
        ("assert f() == [1]", "[True]", "(1,)"),
        ("assert f() == {1: 'a'}", "__import__('collections').OrderedDict({1: 'a'})", "{}"),
        ("assert 2 == f(1)", "2", "1"),
        ("assert f() is None", "None", "0"),
        ("assert f() is True", "True", "1"),
        ("assert set(f()) == set([1, 2])", "[2, 1, 1]", "[1]"),
        ("assert f() == (1,) * 3", "(1, 1, 1)", "(1,)"),
        ("import math\nassert math.isclose(f(), 0.3)", "0.1 + 0.2", "0.31"),
        ("assert math.isclose(f(), 10, rel_tol=0.1)", "9.5", "8"),
        ("assert math.isclose(f(), [0.3, float('inf')])", "[0.1 + 0.2, float('inf')]", "(0.3, float('inf'))"),
        ("assert math.isclose(f(), (0.5, [1, 'a']), abs_tol=0.1)", "(0.5, [1.05, 'a'])", "(0.5, [1.05, 'b'])"),
        ("assert math.isclose(f(), [1.0], abs_tol=0.1)", "[1]", "[1.0, 1.0]"),
        ("assert abs(f() - 3.14) < 0.01", "3.141", "3.2"),
        ("assert abs(f() - 3) <= 1", "4", "5"),
        ("assert f() == float('nan') or True", "1", None),
        ("assert not f()", "[]", "[0]"),
        ("assert f()", "'x'", "''"),
        ("assert f() != 3", "4", "3"),
        ("assert isinstance(f(), str)", "''", "0"),
        ("assert len(f()) > 2 and f()[0] == 'a'", "'abc'", "'ab'"),
        ("assert f() == {'a', 'b'}", "dict(a=1, b=2).keys()", "dict(a=1, b=2).values()"),
        ("assert f() == {('a', 1)}", "__import__('collections').Counter('a').items()", "[('a', 1)]"),
        ("assert f() == [{'a'}]", "[__import__('collections').OrderedDict(a=1).keys()]", "[dict(b=1).keys()]"),
        ("assert f() == ['a']", "['a']", "dict(a=1).keys()"),
        ("assert f() == 0.5", "__import__('fractions').Fraction(1, 2)", "__import__('fractions').Fraction(1, 3)"),
        ("assert f() == 0.5", "__import__('decimal').Decimal('0.50')", "__import__('decimal').Decimal('0.51')"),
        ("assert f() == 0.1", "0.1", "__import__('decimal').Decimal('0.1')"),  # no tolerance comes with the type
        ("assert f() == 1 / 3", "1 / 3", "__import__('fractions').Fraction(1, 3)"),
        (
            "assert f() == {0.5: [3]}",
            "{__import__('fractions').Fraction(1, 2): [__import__('decimal').Decimal(3)]}",
            "{}",
        ),
        (
            "assert abs(f() - 0.5) < 1e-6",
            "__import__('fractions').Fraction(1, 2)",
            "__import__('fractions').Fraction(1)",
        ),
        ("assert abs(f() - 2) <= 1", "__import__('decimal').Decimal('2.5')", "__import__('decimal').Decimal('NaN')"),
        ("assert abs(f() - 2.0) < 1", "2", "__import__('decimal').Decimal(2)"),  # Python refuses to subtract these
        ("assert abs(f() - 2) < 1", "2.5 + 0.1j", "2.5 + 1j"),
        ("assert math.isclose(f(), 0.1)", "__import__('decimal').Decimal('0.1')", "0.1 + 0j"),
        ("assert f() == __import__('fractions').Fraction(5, 6)", "__import__('fractions').Fraction(10, 12)", "5 / 6"),
        ("assert f() == __import__('decimal').Decimal('1.5')", "__import__('decimal').Decimal('1.5')", "0"),
    ],
)
def test_every_form(test, right, wrong, bench, asserts_task):
    assert verdict_of(test, RETURNS.format(right), bench, asserts_task)[0] is Verdict.AC
    if wrong is not None:
        assert verdict_of(test, RETURNS.format(wrong), bench, asserts_task)[0] is Verdict.WA


ALWAYS = "class Yes:\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __sub__ = __rsub__ = lambda s, o: 0\n  __abs__ = __float__ = lambda s: 0.0\ndef f(*_): return Yes()"  # fmt: skip  # noqa: E501


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "test",
    [
        "assert f() == 2",
        "assert f() == (1,) * 3",
        "assert abs(f() - 3) < 1",
        "assert math.isclose(f(), 3)",
        "assert f() is True",
    ],
)
def test_an_object_that_equals_everything_equals_nothing(test, bench, asserts_task):
    assert verdict_of(test, ALWAYS, bench, asserts_task)[0] is Verdict.WA


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "value",
    [
        "type('Fraction', (), {'numerator': 1, 'denominator': 2, '__eq__': lambda s, o: True})()",
        "type('Sly', (__import__('fractions').Fraction,), {'__eq__': lambda s, o: True, '__hash__': None})(1, 3)",
        "type('Sly', (__import__('decimal').Decimal,), {'__eq__': lambda s, o: True, '__hash__': None})('0.3')",
        "__import__('decimal').Decimal('sNaN')",
        "__import__('decimal').Decimal('1E+999999')",
        "__import__('fractions').Fraction(1, 16 ** 9999)",
        "setattr(__import__('fractions'), 'Fraction', 3) or object()",
        "__import__('sys').modules.update(decimal=None, fractions=None) or object()",
    ],
)
@pytest.mark.parametrize("test", ["assert f() == 0.5", "assert abs(f() - 1) < 0.6", "assert math.isclose(f(), 0.5)"])
def test_numbers_of_other_types_count_by_what_they_are(test, value, bench, asserts_task):
    judged = AssertsVerifier().judge(asserts_task(test, "assert f() != f"), RETURNS.format(value), bench)
    assert judged.verdict in (Verdict.WA, Verdict.RE), judged


@pytest.mark.sandbox
def test_what_is_compared_inside_says_so(bench, asserts_task):
    assert verdict_of("assert f() == 1", RETURNS.format(1), bench, asserts_task)[1] == ""
    assert verdict_of("assert f() != 2", RETURNS.format(1), bench, asserts_task)[1] == COMPARED_INSIDE


def test_expected_values_stay_out_of_the_box(bench, asserts_task):
    """Nothing that goes into a box holds the literal: neither the expressions nor the sources."""
    plan = read(asserts_task("assert f(5) == 123456", "assert math.isclose(f(6), 123456.5)"))
    assert [check.expression for check in plan.checks] == ["f(5)", "f(6)"]


@pytest.mark.sandbox
def test_an_answer_cannot_read_a_computed_expected_value(bench, asserts_task):
    """B is computed in a box of its own; the answer's box is only asked for A."""
    program = "import sys\ndef f(*_): return [1]\nclass set(list): __eq__ = lambda s, o: True"
    assert verdict_of("assert set(f()) == set([1, 2])", program, bench, asserts_task)[0] is Verdict.WA


@pytest.mark.sandbox
def test_setup_follows_the_answer_and_prelude_precedes_it(bench, asserts_task):
    program = "class Node:\n  def __init__(self, x): self.x = math.floor(x)\ndef f(n): return n.x"
    got = verdict_of(
        "assert f(root) == 7", program, bench, asserts_task, setup="root = Node(7.5)", prelude="import math"
    )
    assert got[0] is Verdict.AC


@pytest.mark.sandbox
def test_statements_before_an_assertion_join_the_setup(bench, asserts_task):
    assert verdict_of("x = [3]\nassert f(x) == 3", "def f(x): return x[0]", bench, asserts_task)[0] is Verdict.AC


@pytest.mark.parametrize(
    ("tests", "complaint"),
    [
        ([], "at least one"),
        (["f(1)"], "asserts nothing"),
        (["assert ("], "not Python"),
        ([3], "expected Python source"),
    ],
)
def test_tests_that_assert_nothing_are_refused(tests, complaint, asserts_task):
    with pytest.raises(DataError, match=complaint):
        AssertsVerifier().check(asserts_task(*tests))


def mbpp_tasks() -> list[Task]:
    if not DATA.exists():
        pytest.skip(f"no MBPP at {DATA}; set ASSAY_DATA to the folder that holds mbpp/mbpp.jsonl")
    rows = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]
    return [
        Task(
            id=str(row["task_id"]),
            messages=(Message(role="user", content=row["text"]),),
            verifier="asserts",
            answer={"language": "python", "tests": row["test_list"], "setup": row["test_setup_code"]},
            reference=f"```python\n{row['code']}\n```",
        )
        for row in rows
    ]


def disagreements(tasks: list[Task]) -> dict[str, str]:
    scorer = Scorer(RewardsConfig())
    try:
        results = {task.id: scorer.score_text(task, task.reference or "") for task in tasks}
    finally:
        scorer.close()
    return {name: f"{result.verdict}: {result.detail}" for name, result in results.items() if result.reward != 1.0}


@pytest.mark.sandbox
def test_mbpp_sample():
    """Every 18th task, and the three that are special: 367 and 927 need their set-up after the solution, 596 expects
    the value of an expression."""
    tasks = mbpp_tasks()
    sample = tasks[::18] + [task for task in tasks if task.id in ("367", "927", "596")]
    assert len(sample) >= 55
    assert disagreements(sample) == {}


@pytest.mark.sandbox
@pytest.mark.slow
def test_mbpp_whole():
    """All 974 reference solutions pass; there is no disagreement to record."""
    tasks = mbpp_tasks()
    assert len(tasks) == 974
    assert disagreements(tasks) == {}


@pytest.mark.sandbox
def test_mbpp_references_fail_each_other_s_tests():
    """A verifier that passes everything would pass the two tests above: neighbours' solutions must not pass."""
    tasks = mbpp_tasks()[::40]
    swapped = [
        Task(id=a.id, messages=a.messages, verifier=a.verifier, answer=a.answer, reference=b.reference)
        for a, b in zip(tasks, tasks[1:] + tasks[:1], strict=True)
    ]
    assert len(disagreements(swapped)) == len(tasks)
