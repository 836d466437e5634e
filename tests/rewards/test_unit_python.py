"""Verifier "unit_tests", Python: who compares. Values of the answer's own type claim nothing; honest ones of any pass."""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import decimal
import fractions
import runpy
from pathlib import Path
from types import ModuleType

import pytest

from assay.types import Message, Task, Verdict
from rewards.verifiers.unit_python import prepare
from rewards.verifiers.unit_tests import UnitTestsVerifier

SAME = """class Same(int):
    def yes(self, *_): return True
    def zero(self, *_): return 0
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = yes
    __ne__ = lambda self, other: False
    __sub__ = __rsub__ = __isub__ = __mod__ = __floordiv__ = __xor__ = zero
    __truediv__ = lambda self, other: 1
    __hash__ = lambda self: hash(9)
"""
SQUARE = "def f(x): return x * x\ndef g(): return 9"
CASES = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        "
TEXTS = [
    "assert f(3) == 9",
    "for i in range(3):\n    assert abs(f(i) - i*i) < 1e-6",
    "assert f(3) in (9, 10)",
    "assert f(3) not in (8, 10) and f(3) in (9,)",
    "assert f(3) in {9}",
    "assert 9 in [f(3)]",
    "assert f(3) == 9 == g()",
    "assert 9 == g() == f(3)",
    "assert 8 < f(3) < 10",
    "assert not f(3) != 9",
    "if f(3) != 9: raise ValueError",
    "while f(3) != 9: raise ValueError",
    "assert all(f(i) == i * i for i in range(3))",
    "d = f(3)\nd -= 9\nassert abs(d) < 1e-6",
    "assert f(3) / 9 == 1",
    "assert f(3) // 9 == 1 and f(3) % 9 == 0 and f(3) ^ 9 == 0",
    "def close(a, b):\n    return abs(a - b) <= 1e-9\nassert close(f(3), 9)",
    f"{CASES}self.assertEqual(f(3), 9)",
    f"{CASES}self.assertAlmostEqual(f(3), 9.0)",
    f"{CASES}self.assertIn(f(3), [9])",
    f"{CASES}self.assertNotEqual(f(3), 8)",
    f"{CASES}self.assertLess(8, f(3))",
    f"{CASES}self.assertTrue(f(3) == 9)",
    f"{CASES}self.assertListEqual([f(3)], [9])",
]


@pytest.fixture
def judge(bench):
    def judged(program: str, tests: str):
        record = {"language": "python", "tests": [tests]}
        task = Task(id="u", messages=(Message(role="user", content="write f"),), verifier="unit_tests", answer=record)
        return UnitTestsVerifier().judge(task, program, bench)

    return judged


@pytest.mark.sandbox
@pytest.mark.parametrize("text", TEXTS)
def test_a_value_that_equals_everything_passes_nothing(text, judge):
    assert judge(f"{SAME}def f(x): return Same()\ndef g(): return 9", text).verdict is Verdict.WA
    assert judge(SQUARE, text).verdict is Verdict.AC


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "program",
    [
        "bool = lambda _: True\ndef f(x): return 7",
        "import builtins\nbuiltins.bool = lambda _: True\ndef f(x): return 7",
        f"any = lambda _: False\nid = type = lambda *_: 0\n{SAME}def f(x): return Same()",
        "class Same(int):\n    __eq__ = int.__ne__\ndef f(x): return Same()",
        "class M(type):\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: hash(int)\n"
        "class Same(int, metaclass=M):\n    __eq__ = lambda s, o: True\ndef f(x): return Same()",
        "class f(int):\n    __eq__ = __lt__ = __gt__ = __contains__ = lambda s, o: True\n    __sub__ = lambda s, o: 0",
        "from functools import total_ordering\n@total_ordering\nclass Same(int):\n    __eq__ = __lt__ = lambda s, o: True\n"
        "def f(x): return Same()",
    ],
)
def test_nothing_the_answer_calls_by_our_names_decides(program, judge):
    for text in (
        "assert f(3) == 9\nassert f(2) == 4",
        "assert all(f(i) == i * i for i in range(4))",
        "assert f(3) >= 9",
    ):
        assert judge(program, text).verdict is Verdict.WA, text


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("program", "tests"),
    [
        (
            "from fractions import Fraction\ndef f(x): return Fraction(1, 2)",
            "assert f(1) == 0.5\nassert f(1) - 0.5 == 0\nassert 0 < f(1) <= 0.5\nassert f(1) in (0.5, 2)\nassert f(1) % 1 == 0.5",
        ),
        (
            "from decimal import Decimal as D\ndef f(x): return D('0.5')",
            "assert f(1) == 0.5\nassert abs(f(1) - 1) < 1",
        ),
        (
            "import collections\ndef f(x): return collections.Counter(x)",
            "assert f('aab') == {'a': 2, 'b': 1}\nassert f('aab') != {}\nassert f('aa') - f('a') == {'a': 1}\nassert 'a' in f('a')",
        ),
        (
            "from collections import OrderedDict, defaultdict, deque\ndef f(x): return [OrderedDict({1: x}), defaultdict(int, {1: x}), deque([1])]",
            "from collections import deque\nassert f(2) == [{1: 2}, {1: 2}, deque([1])]\nassert 1 in f(1)[0] and 1 in f(1)[2]",
        ),
        (
            "from dataclasses import dataclass\n@dataclass(order=True)\nclass P:\n    x: int\ndef f(x): return P(x)",
            "assert f(1) == P(1)\nassert f(1) < P(2)\nassert f(1) in [P(1)]\nassert f(1) != f(2)\nassert f(1).x - 1 == 0",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x)\ndef g(x): return P(x)",
            "assert f(1) == g(1) and f(1) != g(2) and f(1) in (g(2), g(1)) and f(1).x == 1",
        ),
        (
            "import enum\nclass E(enum.IntEnum):\n    A = 1\nclass G(enum.Flag):\n    A = 1\n    B = 2\nclass S(str, enum.Enum):\n    A = 'a'\ndef f(x): return [E.A, G.A, S.A]",
            "assert f(1) == [1, G.A, 'a']\nassert f(1)[0] - 1 == 0 and f(1)[0] < 2\nassert f(1)[1] in G.A | G.B\nassert (f(1)[1] ^ G.B) == G.A | G.B",
        ),
        (
            "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\ndef f(x): return P(x)",
            "assert f(1) == (1,)\nassert 1 in f(1)\nassert f(1) < (2,)",
        ),
        (
            "class L(list): pass\nclass I(int): pass\nclass S(str):\n    def up(self): return self.upper()\ndef f(x): return L([I(1), S('a')])",
            "assert f(1) == [1, 'a']\nassert f(1)[0] - 1 == 0\nassert 'a' in f(1)\nassert f(1)[1] in 'abc'\nassert 0 < f(1)[0] <= 1",
        ),
        (
            "class Interval:\n    def __init__(self, a, b): self.a, self.b = a, b\n    def __contains__(self, x): return self.a <= x <= self.b\n"
            "    def __lt__(self, x): return self.b < x\n    def __sub__(self, x): return Interval(self.a - x, self.b - x)",
            "i = Interval(1, 5)\nassert 3 in i and 7 not in i\nassert i < 6\nassert (i - 1).a == 0",
        ),
        (
            "import datetime\ndef f(x): return datetime.date(2020, 1, x)",
            "import datetime as d\nassert f(2) - f(1) == d.timedelta(1)\nassert f(1) < d.date(2021, 1, 1)",
        ),
        (
            "from pathlib import PurePosixPath as P\ndef f(x): return P('a') / x",
            "from pathlib import PurePosixPath\nassert f('b') == PurePosixPath('a/b') and f('b') in [PurePosixPath('a/b')] and f('b') / 'c' != f('c')",
        ),
        ("def f(x): return None", "assert f(1) is None is not True\nassert f(1) == None\nassert not f(1) in [1]"),
        (
            "def f(x): return -3",
            "x = f(1)\nmatch x:\n    case -3 if x - 1 == -4:\n        pass\n    case 3 - 4j:\n        raise ValueError\n"
            "    case _:\n        raise ValueError\nassert '%d' % x == '-3' and x % 5 == 2",
        ),
        ("def f(x):\n    yield from range(x)", "assert 3 in f(5)\nassert [x for x in f(9) if 2 < x <= 4 != 5] == [3, 4]"),
        ("def f(x): return x", "n = []\ndef g(x):\n    n.append(x)\n    return x\nassert not f(3) < g(2) < g(4)\nassert f(1) < g(2) < g(3) and n == [2, 2, 3]"),
        ("def f(x): return x", "seen = set()\nfor i in range(5000):\n    assert f(i) not in seen\n    seen.add(i)\nassert sorted(seen) == list(range(5000))"),
        ("def f(x): return {x}", "s = t = f(1)\ns -= {1}\nassert t == set() and f(1) - {2} == {1} and f(1) ^ {2} == {1, 2}"),
        (SQUARE, "n = 0\nfor i in range(200000):\n    if i % 3 == 0 and 0 <= i < 10 ** 9:\n        n -= 1\nassert f(n) == n * n"),
    ],
)  # fmt: skip
def test_honest_values_pass(program, tests, judge):
    judged = judge(program, tests)
    assert judged.verdict is Verdict.AC, judged


NODE = """from dataclasses import dataclass
@dataclass
class Node:
    v: int
    def __lt__(self, other): return self.v < other.v
class Bare:
    def __lt__(self, other): return True
def f(x): return Node(x)
def g(x): return [Node(i) for i in range(x)]
def h(x): return Bare()
"""
UNLIKE = [
    "assert f(1) != None",
    "assert None != f(1)",
    "assert not f(1) == None",
    "assert not None == f(1)",
    "assert None != f(1) != None",
    "assert g(2) != None and g(2) != [] and [] != g(2)",
    "assert not g(2) == []",
    "assert g(2) != () and g(2) != {} and g(2) != '' and set() != g(2)",
    "assert tuple(g(2)) != () and {1: f(1)} != {} and not {} == {1: f(1)}",
    "assert g(0) == [] and not g(0) != []",
    f"{CASES}self.assertNotEqual(f(1), None)",
    f"{CASES}self.assertNotEqual(None, g(1))",
    f"{CASES}self.assertNotEqual(g(1), [])",
    f"{CASES}self.assertNotEqual(h(1), None)",
]


@pytest.mark.sandbox
@pytest.mark.parametrize("text", UNLIKE)
def test_a_value_of_the_answers_own_differs_from_none_and_from_nothing(text, judge):
    judged = judge(NODE, text)
    assert judged.verdict is Verdict.AC, judged


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "text",
    [
        "assert f(3) == None",
        "assert not f(3) != None",
        "assert all(f(i) == None for i in range(3))",
        "assert [f(3)] == []",
        "assert not [f(3)] != []",
        "assert f(3) != None and f(3) == 9",
        "assert f(3) == []",
        "assert not [f(3)] != [9]",
        "assert [f(3)] != [8]",
        "assert f(3) != 0",
        "assert f(3) != ''",
        "assert 9 in h()",
        f"{CASES}self.assertEqual(f(3), None)",
        f"{CASES}self.assertEqual([f(3)], [])",
        f"{CASES}self.assertNotEqual([f(3)], [8])",
        f"{CASES}self.assertNotEqual(f(3), '')",
    ],
)
def test_nothing_else_is_known_of_a_value_that_equals_everything(text, judge):
    assert judge(f"{SAME}def f(x): return Same()\nh = Same", text).verdict is Verdict.WA


def test_values_of_libraries_are_not_the_answers_own():
    numpy = pytest.importorskip("numpy")
    box = runpy.run_path(str(Path(prepare.__code__.co_filename).parents[1] / "sandbox" / "unit_python.py"))
    own, _, named = box["assay_comparison"](("fractions", "decimal"))
    methods = ("__eq__", "__ne__", "__lt__", "__sub__", "__rsub__", "__contains__")
    values = [numpy.float64(1), numpy.arange(3), numpy.ma.array([1, 2]), numpy.poly1d([1]), numpy.datetime64("2020")]
    for value in (*values, fractions.Fraction(1), decimal.Decimal(1), [1, {2: (3,)}], ModuleType("x")):
        assert not own(value, methods), value
    liar = type("Liar", (), {"__eq__": lambda self, other: True})
    assert own([{1: (liar(),)}], methods) and own(liar(), methods) and not own(liar(), methods[3:])
    named.add(id(liar))
    assert not own(liar(), methods) and own(liar(), methods, False)
