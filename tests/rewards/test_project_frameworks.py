"""Verifier "project", unittest and minitest: what an answer may change of what its tests use, and how its file is found."""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import pytest

from assay.types import Message, Task, Verdict
from rewards.verifiers.base import Judged
from rewards.verifiers.project import ProjectVerifier


def task(answer: dict, verifier: str = "project") -> Task:
    return Task(id="p", messages=(Message(role="user", content="write"),), verifier=verifier, answer=answer)


def judge(given: Task, text: str, bench) -> Judged:
    return ProjectVerifier().judge(given, text, bench)


# --- unittest

CASE = "\n\nclass CartTest(unittest.TestCase):\n    def test_total(self):\n        self.assertEqual(%s)\n"


def python(tests: str, file: str = "cart.py", **given: str) -> Task:
    beside = {path.replace("__", "/").replace("_dot_", "."): text for path, text in given.items()}
    return task(
        {"language": "python", "files": [file], "report": "unittest", "given": {"test_cart.py": tests, **beside}}
    )


HELPED = python(
    "import unittest\nfrom helpers import make\nfrom cart import total" + CASE % "total(make()), 3",
    helpers_dot_py="from cart import start\ndef make():\n    return start() + [2]\n",
)
PACKAGE = python(
    "import unittest\nfrom shop.prices import price\nfrom shop.cart import total" + CASE % "total(), price('tea')",
    "shop/cart.py",
    shop__prices_dot_py="def price(n):\n    return int(7)\n",
)
TOP = python(
    "import unittest\nfrom prices import price\nfrom cart import total" + CASE % "total(), price('tea')",
    prices_dot_py="def price(n):\n    return 7\n",
)
READS = python(
    "import unittest\nimport cart\n"
    + (CASE % "cart.total(), text").replace(
        "        self", "        with open('expected.txt') as file:\n            text = file.read()\n        self"
    ),
    expected_dot_txt="7\n",
)
BASED = python(
    "import unittest\nfrom base import Base\nfrom cart import total"
    + (CASE % "total(), 7").replace("(unittest", "(Base, unittest"),
    base_dot_py="import unittest\nclass Base(unittest.TestCase):\n    pass\n",
)
SHARED = python(
    "import unittest\nfrom faults import Empty\nfrom cart import total"
    + (CASE % "total([1]), 1")
    + "        with self.assertRaises(Empty):\n            total([])\n",
    faults_dot_py="class Empty(Exception):\n    pass\n",
)
NEAR = python(
    "import unittest\nfrom cart import total" + (CASE % "total(), 7").replace("assertEqual", "assertAlmostEqual")
)

PYTHON = {
    "a helper that imports the answer": (HELPED, "def start(): return [1]\ndef total(x): return sum(x)", True),
    "and a patch at its top": (HELPED, "import unittest\nunittest.TestCase.assertEqual = lambda *a, **k: None\ndef start(): return [1]\ndef total(x): return 0", False),
    "and another helper in its place": (HELPED, "import sys, types\nsys.modules['helpers'] = types.SimpleNamespace(make=lambda: 0)\ndef start(): return [1]\ndef total(x): return 3", True),
    "the helper's own file": (HELPED, "open('helpers.py', 'w').write('def make(): return [3]')\ndef start(): return [9]\ndef total(x): return 3 if x == [3] else 0", False),
    "a given module of its package": (PACKAGE, "def total(): return 7", True),
    "patched": (PACKAGE, "import shop.prices\nshop.prices.price = lambda n: 0\ndef total(): return 0", False),
    "with a built-in of its own": (PACKAGE, "import shop.prices\nshop.prices.int = lambda n: 0\ndef total(): return 0", False),
    "with another built-in": (PACKAGE, "import builtins\nbuiltins.int = lambda n: 0\ndef total(): return 0", False),
    "by another package": (PACKAGE, "import sys, types\nsys.modules['shop'].prices = types.SimpleNamespace(price=lambda n: 0)\ndef total(): return 0", False),
    "code of a given function": (TOP, "import prices\nprices.price.__code__ = (lambda n: 0).__code__\ndef total(): return 0", False),
    "code of unittest": (TOP, "import unittest\nunittest.TestCase.run.__code__ = (lambda self, result=None: result.startTest(self)).__code__\ndef total(): return 0", False),
    "a file the tests read": (READS, "def total(): return '7\\n'", True),
    "which it writes": (READS, "open('expected.txt', 'w').write('x')\ndef total(): return 'x'", False),
    "which it writes elsewhere": (READS, "import os\nos.mkdir('/tmp/x')\nos.chdir('/tmp/x')\nopen('expected.txt', 'w').write('x')\ndef total(): return 'x'", False),
    "a given base class": (BASED, "def total(): return 7", True),
    "with an assertion of its own": (BASED, "import base\nbase.Base.assertEqual = lambda *a: None\ndef total(): return 8", False),
    "with a way to look up": (BASED, "import unittest\nunittest.TestCase.__getattribute__ = lambda self, name: (lambda *a: None) if name == 'assertEqual' else object.__getattribute__(self, name)\ndef total(): return 8", False),
    "a class that both know": (SHARED, "from faults import Empty\ndef total(x):\n    if not x: raise Empty\n    return sum(x)", True),
    "what unittest rounds with": (NEAR, "import builtins\nbuiltins.round = lambda *a: 0\ndef total(): return 3", False),
}  # fmt: skip


@pytest.mark.parametrize("how", PYTHON)
def test_what_tests_in_python_import_is_what_the_task_gives(bench, how):
    given, text, right = PYTHON[how]
    judged = judge(given, text, bench)
    assert (judged.verdict is Verdict.AC) == right and judged.verdict is not Verdict.INFRA, judged
