"""Verifier "project", unittest and minitest: what an answer may change of what its tests use, and how its file is found."""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import pytest

from assay.errors import DataError
from assay.types import Message, Task, Verdict
from rewards.check_tasks import check_tasks
from rewards.config import RewardsConfig, SandboxConfig
from rewards.scorer import Scorer, check_answers, probes
from rewards.verifiers.base import Judged
from rewards.verifiers.project import ProjectVerifier
from rewards.verifiers.unit_tests import UnitTestsVerifier


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


# --- Ruby

_MINITEST = "class TwiceTest < Minitest::Test\n  def test_a\n    assert_equal 'aa', twice('a')\n    refute_equal 'a', twice('b')\n  end\nend\n"
_TEST_UNIT = "require 'test/unit'\n" + _MINITEST.replace("Minitest::Test", "Test::Unit::TestCase").replace(
    "refute_equal", "assert_not_equal"
)
RUBY = {
    "project": task({"language": "ruby", "files": ["twice.rb"], "report": "minitest", "run": ["/usr/bin/ruby", "twice_test.rb"], "given": {"twice_test.rb": f"require 'minitest/autorun'\nrequire_relative 'twice'\n{_MINITEST}"}}),
    "minitest": task({"language": "ruby", "tests": [_MINITEST]}, "unit_tests"),
    "test-unit": task({"language": "ruby", "tests": [_TEST_UNIT]}, "unit_tests"),
}  # fmt: skip
_WRONG = "def twice(x) = x\n"
_RIGHT = "def twice(x) = x + x\n"
WRONG_RUBY = {
    "nothing else": "",
    "exit!": "def exit!(*) = nil\n",
    "exit! of Kernel": "module Kernel\n def exit!(*) = nil\nend\n",
    "raise": "def raise(*) = nil\n",
    "an assertion": "class FRAME\n def assert_equal(*) = (self.assertions += 1)\nend\n",
    "an assertion that counts": "class FRAME\n def assert_equal(*) = add_assertion\nend\n",
    "==": "class String\n def ==(o) = true\nend\n",
    "== in front": "String.prepend(Module.new { def ==(o) = true })\n",
    "!": "class BasicObject\n def !; false; end\nend\n",
    "a result": "class RESULT\n def passed? = true\nend\n",
    "one method": "module Minitest\n def self.run_one_method(k, n)\n  r = Minitest::Result.new(n); r.assertions = 1; r\n end\nend\n",
    "a hook": "class FRAME\n def self.inherited(k)\n  super\n  k.define_method(:assert_equal) { |*| self.assertions += 1 }\n end\nend\n",
    "a hook of all classes": "class Class\n def inherited(k)\n  super\n  k.define_method(:assert_equal) { |*| nil } if k.name =~ /Twice/ || k < FRAME\n end\nend\n",
    "a hook of objects": "class Object\n def self.inherited(k)\n  super\n  k.define_method(:assert_equal) { |*| nil } if k < FRAME\n end\nend\n",
    "a trace": "TracePoint.new(:class) { |t| t.self.define_method(:assert_equal) { |*| nil } if t.self.to_s == 'TwiceTest' }.enable\n",
    "output": "def STDERR.puts(*) = nil\ndef $stderr.puts(*) = nil\nclass IO\n def exit!(*) = nil\nend\n",
    "rescue": "class Minitest::Assertion\n def self.===(o) = false\nend\n",
    "what compares methods": "class UnboundMethod\n def ==(o) = true\n def bind_call(*) = true\nend\nclass String\n def ==(o) = true\nend\n",
    "what loops": "class Array\n def each; end\nend\nclass String\n def ==(o) = true\nend\n",
    "at the call": "def twice(x)\n TwiceTest.define_method(:assert_equal) { |*| nil }\n TwiceTest.define_method(:refute_equal) { |*| nil }\n TwiceTest.define_method(:assert_not_equal) { |*| nil }\n x\nend\nclass TwiceTest; end if false\n",
}  # fmt: skip
RIGHT_RUBY = {
    "nothing else": "",
    "its own tests": "require 'KIND'\nclass MineTest < FRAME\n def test_mine = assert(true)\nend\n",
    "more of what is there": "class String\n def twice = self * 2\nend\nclass Array\n def second = self[1]\nend\nclass Integer\n def roman = 'I'\nend\n",
    "functions of the library's names": "def trap(x) = x\ndef test(x) = x\ndef format(x) = x\ndef select(x) = x\n",
    "a class of its own": "class Pair\n include Comparable\n def <=>(o) = 0\n def ==(o) = true\n def hash = 1\n def self.inherited(k) = super\nend\nclass More < Pair\nend\n",
    "a main": "if __FILE__ == $0\n exit 1\nend\n",
}  # fmt: skip


def ruby(how: str, text: str, bench) -> Judged:
    mini = how != "test-unit"
    text = text.replace("FRAME", "Minitest::Test" if mini else "Test::Unit::TestCase")
    text = text.replace("RESULT", "Minitest::Result" if mini else "Test::Unit::TestResult")
    text = text.replace("KIND", "minitest/autorun" if mini else "test/unit")
    verifier = ProjectVerifier() if how == "project" else UnitTestsVerifier()
    return verifier.judge(RUBY[how], text, bench)


@pytest.mark.parametrize("what", WRONG_RUBY)
@pytest.mark.parametrize("how", RUBY)
def test_no_class_opened_again_passes_tests_in_ruby(bench, how, what):
    judged = ruby(how, _WRONG + WRONG_RUBY[what], bench)
    assert judged.verdict not in (Verdict.AC, Verdict.INFRA), judged


@pytest.mark.parametrize("what", RIGHT_RUBY)
@pytest.mark.parametrize("how", RUBY)
def test_right_answers_in_ruby_pass_with_what_else_they_define(bench, how, what):
    judged = ruby(how, _RIGHT + RIGHT_RUBY[what], bench)
    assert judged.verdict is Verdict.AC, judged


# --- one file among the blocks of an answer

SCRIPT = '#!/usr/bin/env bash\nprintf "%s%s\\n" "$1" "$1"\n'
BATS = '#!/usr/bin/env bats\n@test "a word" {\n    run bash twice.sh ab\n    [[ "$output" == "abab" ]]\n}\n'
BLOCKS = {
    "its name, then how it is run": f"**twice.sh**\n```bash\n{SCRIPT}```\n\nRun it:\n```bash\nbash twice.sh ab\n```\n",
    "no name, then how it is run": f"```bash\n{SCRIPT}```\n\nTo run `twice.sh`:\n```bash\nbash twice.sh ab\n```\n",
    "its name behind the fence": f"```bash:twice.sh\n{SCRIPT}```\n\nRun it:\n```bash\nbash twice.sh ab\n```\n",
    "its name in the first line": f"```bash\n# twice.sh\n{SCRIPT}```\n\nA draft was:\n```bash\necho one\necho two\necho three\necho four\n```\n",
    "the tests once more": f"### `twice.sh`\n\n```bash\n{SCRIPT}```\n\n**twice.bats**\n```bash\n{BATS}```\n",
    "the tests behind a program without a name": f"```bash\n{SCRIPT}```\n\nFile: `twice.bats`\n```bash\n{BATS}```\n",
    "permissions": f"```bash\n{SCRIPT}```\n```sh\nchmod +x twice.sh\n```\n",
    "a session": f"```bash\n{SCRIPT}```\n```bash\n$ ./twice.sh ab\nabab\n$ ./twice.sh c\ncc\n$ ./twice.sh\n```\n",
    "a draft before": f"```bash\necho one\necho two\necho three\n```\nBetter:\n```bash\n{SCRIPT}```\n",
    "the tests first": f"Given **twice.bats**\n\n**twice.bats**\n```bash\n{BATS}```\nI write\n```bash\n{SCRIPT}```\n",
    "how it will be run, first": f"It is run so:\n```bash\nbash twice.sh ab\n```\n**twice.sh**\n```bash\n{SCRIPT}```\n",
    "how it will be run, first, and no name": f"It is run so:\n```bash\nbash twice.sh ab\n```\nSo:\n```bash\n{SCRIPT}```\n",
    "what it says": f"**twice.sh**\n```bash\n{SCRIPT}```\nOutput of `twice.sh`:\n```\nabab\n```\n",
    "only a name": f"```twice.sh\n{SCRIPT}```\n",
}  # fmt: skip


@pytest.mark.parametrize("how", BLOCKS)
def test_the_one_file_is_found_among_the_blocks_of_an_answer(how):
    given = task({"language": "bash", "files": ["twice.sh"], "given": {"twice.bats": BATS}, "run": ["/usr/bin/bats", "--tap", "twice.bats"], "report": "bats"})  # fmt: skip
    found = ProjectVerifier().extract(given, BLOCKS[how], whole_text=False)
    assert found.replace("# twice.sh\n", "").strip() == SCRIPT.strip()


def test_a_short_program_behind_a_longer_draft_is_the_program():
    text = f"```ruby\n{'# long' * 3}\ndef twice(x)\n  x\nend\n```\nThat is wrong:\n```ruby\ndef twice(x) = x + x\n```\n"
    assert ProjectVerifier().extract(RUBY["project"], text, whole_text=False) == "def twice(x) = x + x\n"
    text = f"{BLOCKS['its name, then how it is run']}Better:\n```bash twice.sh\necho $1$1\n```\n"
    given = task({"language": "bash", "files": ["twice.sh"], "given": {"twice.bats": BATS}, "run": ["/usr/bin/bats", "--tap", "twice.bats"], "report": "bats"})  # fmt: skip
    assert ProjectVerifier().extract(given, text, whole_text=False) == "echo $1$1\n"


# --- what can be known before a step draws the task

NO_HEADER = task({"language": "c", "files": ["f.c"], "given": {"test_f.c": "void t(void);\nint main(void) { RUN_TEST(t); return 0; }\n"}, "build": ["/usr/bin/gcc", "-o", "t", "test_f.c", "f.c"], "artefact": "t", "run": ["./t"], "report": "unity"})  # fmt: skip
BELIEVES = task({"language": "python", "files": ["add.py"], "given": {"run.py": "import sys\nsys.path.insert(0, '.')\nimport add\nassert add.f()\n"}, "run": ["{python}", "run.py"], "report": "exit"})  # fmt: skip


def test_tests_that_cannot_be_taken_apart_are_refused_before_anything_runs():
    with pytest.raises(DataError, match="does not include unity.h"):
        check_answers([NO_HEADER])


def test_a_status_that_says_nothing_is_found_before_a_run_and_listed_beside_others():
    scorer = Scorer(RewardsConfig(sandbox=SandboxConfig(tier="local", cpu_s=3, wall_s=10)))
    try:
        assert probes([BELIEVES]) and not probes([RUBY["minitest"]])
        with pytest.raises(DataError, match="only leaves with status 0 passes"):
            scorer.probe([RUBY["minitest"], BELIEVES])
        report = check_tasks([BELIEVES, NO_HEADER, RUBY["minitest"]], scorer)
    finally:
        scorer.close()
    status, header = (found.cause for found in report.disagreements)
    assert "an answer that only leaves with status 0 passes" in status
    assert header.endswith("test_f.c does not include unity.h")
