"""Verifier "checker": both protocols with real checkers, and that a checker that fails is no verdict."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay.errors import DataError, InfraFailure
from assay.types import Completion, FinishReason, Message, RolloutGroup, Task, Verdict
from rewards.config import RewardsConfig
from rewards.sandbox.base import Job, KilledBy, Limits, RunResult
from rewards.sandbox.fake import FakeSandbox, ended
from rewards.scorer import Scorer
from rewards.verifiers.base import Bench, Judged
from rewards.verifiers.checker import KEPT_CHECKERS, CheckerVerifier

AC, WA, RE, TLE, OLE, CE = (Verdict(name) for name in ("AC", "WA", "RE", "TLE", "OLE", "CE"))

ANSWER = Completion(
    token_ids=(1,), logprobs=(0.0,), text="```python\nx\n```", finish_reason=FinishReason.STOP, policy_version=(0, 0)
)

#: The task: two positive numbers whose sum is the input; the judge's answer is one of many.
TESTS = (("4\n", "2 2\n"), ("7\n", "3 4\n"))
RIGHT = "n = int(input()); print(1, n - 1)"

TESTLIB_PYTHON = """
import sys
n = int(open(sys.argv[1]).read())
words = open(sys.argv[2], "rb").read().split()
assert sum(map(int, open(sys.argv[3]).read().split())) == n
if len(words) != 2 or not all(word.isdigit() for word in words):
    sys.stderr.write("wrong output format two numbers expected"); sys.exit(2)
if sum(map(int, words)) != n:
    sys.stderr.write("wrong answer another sum"); sys.exit(1)
sys.stderr.write("ok")
"""
TESTLIB_C = """
#include <stdio.h>
#include "codes.h"
int main(int argc, char **argv) {
    long n, a, b; char rest;
    FILE *input = fopen(argv[1], "r"), *output = fopen(argv[2], "r"), *answer = fopen(argv[3], "r");
    if (argc != 4 || !input || !output || !answer || fscanf(input, "%ld", &n) != 1) return FAIL;
    if (fscanf(output, "%ld %ld %c", &a, &b, &rest) != 2 || a < 1 || b < 1) return PE;
    return a + b == n ? OK : WA;
}
"""
CODES = "enum { OK = 0, WA = 1, PE = 2, FAIL = 3 };\n"
DOMJUDGE_PYTHON = """
import os, sys
n = int(open(sys.argv[1]).read())
assert sum(map(int, open(sys.argv[2]).read().split())) == n and sys.argv[3].endswith("/")
words = sys.stdin.buffer.read().split()
if len(words) == 2 and all(word.isdigit() for word in words) and sum(map(int, words)) == n:
    sys.exit(42)
open(sys.argv[3] + "judgemessage.txt", "w").write("not the sum")
sys.exit(43)
"""
CHECKERS: dict[str, dict[str, Any]] = {
    "testlib, python": {"language": "python", "source": TESTLIB_PYTHON, "protocol": "testlib"},
    "testlib, c": {"language": "c", "source": TESTLIB_C, "protocol": "testlib", "files": {"codes.h": CODES}},
    "domjudge, python": {"language": "python", "source": DOMJUDGE_PYTHON, "protocol": "domjudge"},
}


def checked(checker: dict[str, Any], *tests: tuple[str, str], language: str = "python", **rest: Any) -> Task:
    answer = {
        "language": language,
        "tests": [{"input": i, "output": o} for i, o in tests or TESTS],
        "checker": checker,
        **rest,
    }
    return Task(id="k", messages=(Message(role="user", content="split n"),), verifier="checker", answer=answer)


def python(source: str, protocol: str = "testlib", **rest: Any) -> dict[str, Any]:
    return {"language": "python", "source": source, "protocol": protocol, **rest}


def judge(program: str, bench: Bench, checker: dict[str, Any], **rest: Any) -> Judged:
    return CheckerVerifier().judge(checked(checker, **rest), program, bench)


@pytest.mark.sandbox
@pytest.mark.parametrize("name", CHECKERS)
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (RIGHT, AC),
        ("n = int(input()); print(n - 1, 1)", AC),
        ("print(2, 2)", WA),  # the judge's own answer to the first test
        ("pass", WA),
        ("n = int(input()); print(1, n - 1, 0)", WA),
        ("print('ok points 1 AC 42')", WA),
        ("n = int(input()); print(1, str(n - 1) + '\\0')", WA),
        ("import os; print(1, int(input()) - 1, flush=True); os._exit(42)", RE),
        ("import sys; print(1, int(input()) - 1); sys.exit('points 1')", RE),
    ],
)
def test_a_checker_judges_outputs(name, program, expected, bench, nothing_left):
    judged = judge(program, bench, CHECKERS[name])
    assert judged.verdict is expected, judged


@pytest.mark.sandbox
def test_what_a_checker_says_is_in_the_detail(bench):
    for name, said in (("testlib, python", "wrong answer another sum"), ("domjudge, python", "not the sum")):
        assert judge("print(9, 9)", bench, CHECKERS[name]).detail == f"test 0: the checker says: {said}"


@pytest.mark.sandbox
def test_answers_in_c_are_built_once_and_judged_alike(bench):
    program = '#include <stdio.h>\nint main(void) { int n; scanf("%d", &n); printf("%d %d\\n", 1, n - 1); return 0; }'
    assert judge(program, bench, CHECKERS["domjudge, python"], language="c").verdict is AC
    assert judge("int main(void) { return x; }", bench, CHECKERS["domjudge, python"], language="c").verdict is CE


@pytest.mark.sandbox
@pytest.mark.parametrize("protocol", ["testlib", "domjudge"])
@pytest.mark.parametrize(
    "source",
    [
        "1 / 0",
        "print(",
        "raise BaseException",
        "import sys; sys.exit(3)",
        "import sys; sys.exit(5)",
        "import os; os._exit(255)",
        "import os; os.kill(os.getpid(), 11)",
        "kept = bytearray(10**10)",
        "def f(): f()\nf()",
        "while 1: pass",
        "while 1: print('x' * 10000)",
    ],
)
def test_a_checker_that_fails_says_nothing_about_the_answer(protocol, source, bench, nothing_left):
    checker = python(source, protocol, limits={"cpu_s": 0.2})
    for program in (RIGHT, "print(0)"):
        with pytest.raises(InfraFailure, match="the checker"):
            judge(program, bench, checker)


#: Right about every output it can read. What it does with the others differs.
PICKY = """
import os, sys
from numbers_of import numbers
output = {output}
try:
    a, b = numbers(output)
except ValueError:
    {stuck}
sys.exit({right} if a + b == int(open(sys.argv[1]).read()) else {wrong})
"""
NUMBERS = "def numbers(text): return map(int, text.split())"


@pytest.mark.sandbox
@pytest.mark.parametrize("protocol", ["testlib", "domjudge"])
@pytest.mark.parametrize("stuck", ["raise", "sys.exit(5)", "os.abort()", "os._exit(255)"])
def test_an_answer_that_a_sound_checker_cannot_read_is_wrong(protocol, stuck, bench, nothing_left):
    words = {"testlib": ("open(sys.argv[2]).read()", 0, 1), "domjudge": ("sys.stdin.read()", 42, 43)}[protocol]
    source = PICKY.format(stuck=stuck, **dict(zip(("output", "right", "wrong"), words, strict=True)))
    checker = python(source, protocol, limits={"cpu_s": 0.2}, files={"numbers_of.py": NUMBERS})
    for program, expected in ((RIGHT, AC), ("print(9, 9)", WA), ("print('hello')", WA)):
        judged = judge(program, bench, checker)
        assert judged.verdict is expected, judged
    assert "reads the judge's output, and not this: the checker" in judged.detail
    failing = checked(checker, ("4\n", "none\n"))
    with pytest.raises(InfraFailure, match="the checker"):  # it reads not even the judge's
        CheckerVerifier().judge(failing, "print('hello')", bench)


@pytest.mark.sandbox
@pytest.mark.parametrize("stuck", ["kept = bytearray(10**10)", "while 1: pass", "while 1: print('x' * 10000)"])
def test_an_output_that_is_too_much_for_its_checker_is_masked(stuck, bench, nothing_left):
    """It may be right, and larger than the judge's."""
    source = PICKY.format(stuck=stuck, output="open(sys.argv[2]).read()", right=0, wrong=1)
    checker = python(source, "testlib", limits={"cpu_s": 0.2}, files={"numbers_of.py": NUMBERS})
    assert judge(RIGHT, bench, checker).verdict is AC
    with pytest.raises(InfraFailure, match="the checker used too much"):
        judge("print('hello')", bench, checker)


def test_a_checker_that_refuses_the_judges_output_condemns_no_answer():
    bench, _ = bench_of(ended(b"1 3\n"), ended(exit_code=70), ended(exit_code=1))
    with pytest.raises(InfraFailure, match="nor does it accept the judge's output"):
        judge(RIGHT, bench, CHECKERS["testlib, python"])


def test_what_is_no_fault_of_an_output_stays_a_failure():
    """The machine was slow, or without memory; the checker found the judge wrong; it failed once and not again."""
    output, fine, failed = ended(b"1 3\n"), ended(), ended(exit_code=70)
    late = replace(ended(), exit_code=None, signal=9, killed_by=KilledBy.WALL)
    for run in (late, replace(late, killed_by=None), ended(exit_code=3)):
        bench, fake = bench_of(output, run, fine)
        with pytest.raises(InfraFailure, match="the checker"):
            judge(RIGHT, bench, CHECKERS["testlib, python"])
        assert len(fake.jobs) == 2
    bench, fake = bench_of(output, failed, fine, ended())
    assert CheckerVerifier().judge(checked(CHECKERS["testlib, python"], TESTS[0]), RIGHT, bench).verdict is AC
    assert [job.files["output.txt"] for job in fake.jobs[1:]] == [b"1 3\n", b"2 2\n", b"1 3\n"]
    for runs in ([failed, late], [failed, fine, late]):
        with pytest.raises(InfraFailure, match="used too much"):
            judge(RIGHT, bench_of(output, *runs)[0], CHECKERS["testlib, python"])


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "body", ["abort();", "char *p = 0; return *p;", "return -1;", "for (;;);", "return 3;", "sleep(9);"]
)
def test_a_checker_in_c_that_fails(body, bench):
    source = f"#include <stdlib.h>\n#include <unistd.h>\nint main(void) {{ {body} }}"
    checker = {"language": "c", "source": source, "protocol": "testlib", "limits": {"cpu_s": 0.2, "wall_s": 0.4}}
    with pytest.raises(InfraFailure, match="the checker"):
        judge(RIGHT, bench, checker)


@pytest.mark.sandbox
def test_a_checker_that_does_not_compile_is_no_compile_error_of_the_answer(bench):
    checker = {"language": "c", "source": "int main(void) { return x; }", "protocol": "testlib"}
    with pytest.raises(InfraFailure, match="the checker does not compile: .*undeclared"):
        judge(RIGHT, bench, checker)


@pytest.mark.sandbox
def test_a_checker_that_needs_its_header_has_it_only_by_name(bench):
    checker = {key: value for key, value in CHECKERS["testlib, c"].items() if key != "files"}
    with pytest.raises(InfraFailure, match=r"codes\.h"):
        judge(RIGHT, bench, checker)
    beside = python("import json\nassert json.load(open('table.json')) == [1]", files={"table.json": "[1]"})
    assert judge(RIGHT, bench, beside).verdict is AC


@pytest.mark.sandbox
@pytest.mark.skipif(not Path("/usr/bin/g++").exists(), reason="g++ is not installed")
def test_a_checker_in_cpp_dies_of_an_exception_nobody_caught(bench):
    source = "#include <stdexcept>\nint main(int argc, char **) { if (argc != 4) throw std::exception(); return 0; }"
    checker = {"language": "c++", "source": source, "protocol": "testlib"}
    assert judge(RIGHT, bench, checker).verdict is AC
    with pytest.raises(InfraFailure, match="signal 6"):
        judge(RIGHT, bench, {**checker, "source": source.replace("!= 4", "== 4")})


# --- scripted boxes --------------------------------------------------------------------------------------------------


def bench_of(*answers: RunResult | InfraFailure | Callable[[Job], RunResult]) -> tuple[Bench, FakeSandbox]:
    fake = FakeSandbox(answers)
    return Bench(sandbox=fake, limits=Limits(cpu_s=2.0, wall_s=6.0)), fake


def test_the_checker_never_shares_a_box_with_the_answer():
    bench, fake = bench_of(ended(b"1 3\n"), ended(), ended(b"1 6\n"), ended())
    assert judge("print('ANSWER')", bench, CHECKERS["testlib, python"]).verdict is AC
    answers, checkers = fake.jobs[::2], fake.jobs[1::2]
    assert [dict(job.files) for job in answers] == [{"answer.py": b"print('ANSWER')"}] * 2
    assert [job.stdin for job in answers] == [b"4\n", b"7\n"] and [job.stdin for job in checkers] == [b"", b""]
    seen = ([b"4\n", b"1 3\n", b"2 2\n"], [b"7\n", b"1 6\n", b"3 4\n"])
    for job, contents in zip(checkers, seen, strict=True):
        assert job.argv[-3:] == ("input.txt", "output.txt", "answer.txt")
        assert [job.files[name] for name in job.argv[-3:]] == contents
        assert not any(b"ANSWER" in part for part in job.files.values())


def test_domjudge_gives_the_output_on_standard_input():
    bench, fake = bench_of(ended(b"1 3\n"), ended(exit_code=42), ended(b"1 6\n"), ended(exit_code=42))
    assert judge(RIGHT, bench, CHECKERS["domjudge, python"]).verdict is AC
    job = fake.jobs[1]
    assert job.argv[-3:] == ("input.txt", "answer.txt", "./") and job.stdin == b"1 3\n"
    assert "output.txt" not in job.files and job.files["answer.txt"] == b"2 2\n"


@pytest.mark.parametrize(
    ("protocol", "rest", "code", "stderr", "expected"),
    [
        ("testlib", {}, 0, b"ok 2 numbers", AC),
        ("testlib", {}, 0, b"", AC),
        ("testlib", {}, 0, b"partially correct (0) nothing found", None),
        ("testlib", {}, 1, b"partially correct (1) nothing found", None),
        ("testlib", {}, 1, b"", WA),
        ("testlib", {}, 2, b"", WA),
        ("testlib", {}, 4, b"", WA),
        ("testlib", {}, 8, b"", WA),
        ("testlib", {}, 3, b"FAIL the judge's answer is wrong", None),
        ("testlib", {}, 5, b"", None),
        ("testlib", {}, 42, b"", None),
        ("testlib", {}, 70, b"", None),
        ("testlib", {}, 7, b"points 1 good", None),
        ("testlib", {"full_points": 1}, 7, b"points 1 good", AC),
        ("testlib", {"full_points": 1}, 7, b"points 1.0000000000 good", AC),
        ("testlib", {"full_points": 100}, 7, b"points 1 good", WA),
        ("testlib", {"full_points": 100}, 7, b"points 99.99", WA),
        ("testlib", {"full_points": 100}, 7, b"points 0", WA),
        ("testlib", {"full_points": 100}, 7, b"points 101", None),
        ("testlib", {"full_points": 100}, 7, b"points nan", None),
        ("testlib", {"full_points": 100}, 7, b"points -1", None),
        ("testlib", {"full_points": 100}, 7, b"points 1e2", None),
        ("testlib", {"full_points": 100}, 7, b"100", None),
        ("testlib", {"full_points": 100}, 7, b"the answer wrote: points 100", None),
        ("testlib", {"full_points": 100}, 7, b"", None),
        ("domjudge", {}, 42, b"", AC),
        ("domjudge", {}, 43, b"", WA),
        ("domjudge", {}, 0, b"", None),
        ("domjudge", {}, 1, b"", None),
        ("domjudge", {}, 44, b"", None),
    ],
)
def test_what_leaving_means(protocol, rest, code, stderr, expected):
    bench, _ = bench_of(ended(b"1 3\n"), ended(exit_code=code, stderr=stderr))
    checker = python("x", protocol, **rest)
    task = checked(checker, TESTS[0])
    if expected is None:
        with pytest.raises(InfraFailure, match="the checker"):
            CheckerVerifier().judge(task, RIGHT, bench)
        return
    judged = CheckerVerifier().judge(task, RIGHT, bench)
    assert judged.verdict is expected
    assert ("points" in judged.tests[0].detail) == (code == 7)


@pytest.mark.parametrize("killed_by", list(KilledBy))
def test_a_checker_that_uses_too_much_is_no_verdict_whatever_it_left_with(killed_by):
    for code, protocol in itertools.product((0, 1, 42, 43), ("testlib", "domjudge")):
        bench, _ = bench_of(ended(b"1 3\n"), replace(ended(exit_code=code), killed_by=killed_by))
        with pytest.raises(InfraFailure, match=f"the checker used too much .{killed_by}"):
            judge(RIGHT, bench, python("x", protocol))


def test_no_checker_is_asked_about_a_run_that_failed():
    stopped = replace(ended(b"1 3\n"), exit_code=None, signal=9, killed_by=KilledBy.OUTPUT)
    late = replace(ended(b"1 3\n"), cpu_s=2.1)
    for run, expected in ((ended(b"1 3\n", exit_code=1), RE), (stopped, OLE), (late, TLE)):
        bench, fake = bench_of(run)
        assert judge(RIGHT, bench, CHECKERS["testlib, python"]).verdict is expected
        assert not any("output.txt" in job.files for job in fake.jobs)


def test_a_failed_checker_is_tried_again_and_then_masked():
    task = checked(CHECKERS["testlib, python"], TESTS[0])
    group = RolloutGroup(task=task, prompt_ids=(1,), completions=(ANSWER,))
    output, failed = ended(b"1 3\n"), ended(exit_code=3, stderr=b"FAIL")
    for last, verdict, reward in ((ended(), AC, 1.0), (ended(exit_code=1), WA, 0.0), (failed, Verdict.INFRA, None)):
        (result,) = Scorer(RewardsConfig(), FakeSandbox([output, failed, output, last])).score_group(group)
        assert (result.verdict, result.reward) == (verdict, reward)
    assert "failed with status 3" in result.detail


def test_checkers_are_built_once_and_not_kept_for_ever():
    def box(job: Job) -> RunResult:
        return replace(ended(b"1 3\n"), files={name: b"code" for name in job.collect if name == "program"})

    bench, fake = bench_of(box)
    for number in [*range(KEPT_CHECKERS + 1), *range(KEPT_CHECKERS, 0, -1)]:
        judge(RIGHT, bench, {"language": "c", "source": f"int main({number});", "protocol": "testlib"})
    built = [job for job in fake.jobs if "answer.c" in job.files]
    assert len(built) == KEPT_CHECKERS + 1
    judge(RIGHT, bench, {"language": "c", "source": "int main(0);", "protocol": "testlib"})
    assert len([job for job in fake.jobs if "answer.c" in job.files]) == KEPT_CHECKERS + 2


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"source": ""}, "must be the text of a program"),
        ({"source": 3}, "must be the text of a program"),
        ({"protocol": "cms"}, "no protocol 'cms'; there are testlib, domjudge"),
        ({"protocol": ["testlib"]}, "no protocol"),
        ({"language": "kobold"}, "no language 'kobold'"),
        ({"language": "java"}, "cannot be in java, only in c, cpp, python"),
        ({"files": {"a/b.h": ""}}, "cannot be called 'a/b.h'"),
        ({"files": {"..": ""}}, "cannot be called"),
        ({"files": {"input.txt": ""}}, "cannot be called 'input.txt'"),
        ({"files": {"checker.py": ""}}, "cannot be called"),
        ({"files": {"answer.py": ""}}, "cannot be called"),
        ({"files": {"a.h": 3}}, "names to texts"),
        ({"files": ["a.h"]}, "names to texts"),
        ({"full_points": 0}, "positive number"),
        ({"full_points": float("nan")}, "positive number"),
        ({"full_points": True}, "positive number"),
        ({"limits": {"cpu": 1}}, "no limit 'cpu'"),
        ({"flags": "-x"}, "may have files, full_points, limits"),
    ],
)
def test_checkers_that_cannot_be_asked_are_refused_at_load(change, complaint):
    with pytest.raises(DataError, match=complaint):
        CheckerVerifier().check(checked({**CHECKERS["testlib, python"], **change}))


def test_a_record_without_a_checker_is_refused():
    task = checked(CHECKERS["testlib, python"])
    without = {key: value for key, value in task.answer.items() if key != "checker"}
    for answer, complaint in (
        (without, "lacks checker"),
        ({**task.answer, "checker": "x"}, "needs the keys"),
        ({**task.answer, "checker": {"language": "c", "source": "x"}}, "needs the keys language, source, protocol"),
        ({**task.answer, "comparator": "lines"}, "unknown keys 'comparator'"),
        ({**task.answer, "tests": []}, "at least one test"),
    ):
        with pytest.raises(DataError, match=complaint):
            CheckerVerifier().check(replace(task, answer=answer))
