"""Test texts in Python without the answer beside them: what is called and told, and what an answer can do about it."""

from __future__ import annotations

import pytest

from assay.types import Message, Task
from rewards.sandbox.base import MIB, Job, Limits, RunResult
from rewards.verifiers.asserts import COMPARED_INSIDE
from rewards.verifiers.base import Bench, Judged
from rewards.verifiers.replay import _entry
from rewards.verifiers.unit_tests import UnitTestsVerifier

LIMITS = Limits(cpu_s=1, wall_s=6, memory_bytes=512 * MIB)
CHECK = """
def check(candidate):
    import random
    for _ in range(20):
        x = random.randint(0, 1000)
        assert candidate(x) == x + 1
    assert candidate(123456) == 123457
check(f)
"""


class Seen:
    """A sandbox that keeps what went in."""

    def __init__(self, sandbox) -> None:
        self.sandbox, self.jobs = sandbox, list[bytes]()

    def __getattr__(self, name):
        return getattr(self.sandbox, name)

    def run(self, job: Job) -> RunResult:
        self.jobs.append(b"\n".join((job.stdin, *job.files.values())))
        return self.sandbox.run(job)


def judged(sandbox, text: str, program: str, **rest) -> Judged:
    answer = {"language": "python", "tests": [text], **rest}
    task = Task(id="u", messages=(Message(role="user", content="f"),), verifier="unit_tests", answer=answer)
    return UnitTestsVerifier().judge(task, program, Bench(sandbox=sandbox, limits=LIMITS))


@pytest.mark.parametrize(
    ("text", "prompt", "entry_point", "entry"),
    [
        (CHECK, "", "", "f"),
        (CHECK, "", "f", "f"),
        (CHECK, "", "g", ""),
        ("def check(f):\n    assert f(1)\ncheck(f)", "", "f", "f"),
        ("import math\nassert f(len([1]), *[math.pi for x in range(3)])", "", "", "f"),
        ("assert f(1) == g(1)", "", "", ""),
        ("assert f(1) == g(1)", "def g(x): return 2\ndef f(x):\n    'more'", "f", "f"),
        ("f = abs\nassert f(1)", "", "", ""),
        ("class A: pass\nassert f(1)", "", "", ""),
        ("assert f(1)", "def g(:", "", ""),
    ],
)
def test_the_one_name_that_a_text_wants_of_the_answer(text, prompt, entry_point, entry):
    assert _entry(text, prompt, entry_point) == entry


RIGHT = "def f(x, *rest, **named): return x + 1"


@pytest.mark.sandbox
def test_answer_and_tests_are_never_in_one_box(sandbox):
    seen = Seen(sandbox)
    found = judged(seen, CHECK, "def f(x): return x + 1 # the answer")
    assert (found.verdict, [test.detail for test in found.tests]) == ("AC", [""])
    has_answer = [b"# the answer" in job for job in seen.jobs]
    has_tests = [b"x + 1" in job.replace(b"x + 1 # the answer", b"") or b"123457" in job for job in seen.jobs]
    assert has_answer == [False, True, False] and has_tests == [True, False, True]


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        (CHECK, RIGHT, "def f(x): return x + 1 if x < 1000 else 0"),
        (CHECK, RIGHT, "def f(x): return x"),
        ("xs = [3, 1]\nf(xs)\nassert xs == [1, 3]", "def f(xs): xs.sort()", "def f(xs): return sorted(xs)"),
        ("assert f([1], k={2: (3.5, None)}) == 3.5", "def f(xs, k): return k[2][0]", "def f(xs, k): return k[2]"),
        ("try:\n    f('x')\nexcept ValueError as e:\n    assert 'x' in str(e)\nelse:\n    assert False",
         "def f(x): return int(x)", "def f(x): return 0"),
        ("assert f(1) == 2 and f(1) == 2 or f(2) == 5", RIGHT, "def f(x): return 1"),
        ("for n in range(3):\n    if f(n) > 1:\n        assert f(10 * n) == 10 * n + 1", RIGHT, "def f(x): return 2"),
        ("assert all(f(x) == y for x, y in ((1, 2), (3, 4)))", RIGHT, "def f(x): return 2"),
        ("assert not [x for x in (1, 2) if len(f(x)) != x]", "def f(x): return 'a' * x", "def f(x): return 'a'"),
        ("assert isinstance(f(2), int) and abs(f(0.5) - 1.5) < 1e-9", RIGHT, "def f(x): return 1.5"),
    ],
)  # fmt: skip
def test_honest_answers_pass_and_wrong_ones_do_not(text, right, wrong, sandbox):
    good, bad = judged(sandbox, text, right), judged(sandbox, text, wrong)
    assert (good.verdict, good.tests[0].detail) == ("AC", ""), good
    assert bad.verdict == "WA", bad


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("assert f(f(1)) == 3", RIGHT),  # an argument that is a result
        ("assert f(lambda: 3) == 4", "def f(g): return g() + 1"),  # no built-in value
        ("for x in f(3):\n    assert f([x])[0] == x", "def f(x): return x if type(x) is list else [1, 2]"),
        ("assert f(float('inf')) > 3", RIGHT),
        ("assert f(1).value == 2", "class N: value = 2\ndef f(x): return N"),
    ],
)
def test_other_texts_run_beside_the_answer_and_say_so_or_want_built_in_values(text, program, sandbox):
    found = judged(sandbox, text, program)
    if ".value" in text:
        assert found.verdict != "AC"  # an object cannot be told
    else:
        assert (found.verdict, found.tests[0].detail) == ("AC", COMPARED_INSIDE), found


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "program",
    [
        "class Yes:\n  __eq__ = __ge__ = lambda s, o: True\n  __hash__ = lambda s: 0\ndef f(x): return Yes()",
        "class Yes(int):\n  __eq__ = lambda s, o: True\n  __hash__ = lambda s: 0\ndef f(x): return Yes()",
        "def assay_call(f, given, named): return True\ndef f(x): return 0",
        "import builtins\nbuiltins.all = builtins.len = lambda *a: True\ndef f(x): return None",
        "import os\ndef f(x): os._exit(0)",
        "def f(x): raise SystemExit",
        "import os\nos.write(4, b'V[\"b\",1]'); os._exit(0)",
        "class AssayUnforeseen(BaseException): pass\ndef f(x): raise AssayUnforeseen('a call')",
        "class AssayUnforeseen(Exception): pass\ndef f(x): raise AssayUnforeseen('a call')",
    ],
)
def test_nothing_an_answer_does_passes_for_a_value(program, sandbox):
    found = judged(sandbox, CHECK, program)
    assert found.verdict in ("WA", "RE"), found
