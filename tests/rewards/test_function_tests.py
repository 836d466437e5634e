"""Verifier "function": signatures in both languages, exact types, verdicts, and what is refused at load."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from assay.errors import DataError, InfraFailure
from assay.types import Verdict
from rewards.records import read_report, verdicts
from rewards.sandbox.base import Limits, RunResult
from rewards.sandbox.fake import FakeSandbox, ended
from rewards.verifiers.base import NOT_RUN, START_CPU_S, Bench
from rewards.verifiers.function import FunctionVerifier

ALL_C = """
#include <string.h>
int f(const int *xs, int xs_len, const char *s, int k, int b, const int *ys, int ys_len) {
    int sum = 0;
    for (int i = 0; i < xs_len; i++) sum += xs[i];
    for (int i = 0; i < ys_len; i++) sum -= ys[i];
    return sum + 1000 * (int)strlen(s) + k + (b ? 7 : 0);
}
"""
ALL_PYTHON = "def f(xs, s, k, b, ys): return sum(xs) - sum(ys) + 1000 * len(s.encode()) + k + (7 if b is True else 0)"
PARAMETERS = {"xs": "int[]", "s": "string", "k": "int", "b": "bool", "ys": "int[]"}
CASES = [
    ([[1, 2, 3], "abc", -4, True, []], 3009),
    ([[], "", 0, False, []], 0),
    ([[2**31 - 1, -(2**31)], "1234567", 5, False, [1, 2, 3]], 6998),
    ([list(range(100)), "h\u00e9 \u20ac \U0001f600", 1, True, [9]], 4950 - 9 + 12000 + 8),
]


@pytest.mark.sandbox
@pytest.mark.parametrize(("language", "program"), [("c", ALL_C), ("python", ALL_PYTHON)])
def test_all_types_arrive_unchanged(language, program, function_task, bench):
    judged = FunctionVerifier().judge(function_task(language, PARAMETERS, "int", CASES), program, bench)
    assert [test.verdict for test in judged.tests] == [Verdict.AC] * 4, judged


@pytest.mark.sandbox
@pytest.mark.parametrize("returned", ["0", "2147483647", "-2147483648", "-1", "255"])
def test_c_integers_come_back_exactly(returned, function_task, bench):
    task = function_task("c", {}, "int", [([], int(returned))])
    program = f"int f(void) {{ return {'-2147483647 - 1' if returned == '-2147483648' else returned}; }}"
    assert FunctionVerifier().judge(task, program, bench).verdict is Verdict.AC


@pytest.mark.sandbox
def test_a_c_bool_is_0_or_1(function_task, bench):
    task = function_task("c", {"x": "int"}, "bool", [([1], True), ([0], False)])
    assert FunctionVerifier().judge(task, "int f(int x) { return x == 1; }", bench).verdict is Verdict.AC
    judged = FunctionVerifier().judge(task, "int f(int x) { return x * 4; }", replace(bench, stop_on_failure=False))
    assert [test.verdict for test in judged.tests] == [Verdict.WA, Verdict.AC]
    assert "0 or 1" in judged.detail


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("returns", "expected", "right", "wrong"),
    [
        ("string", "ab\n", "'ab' + chr(10)", "b'ab'"),
        ("int[]", [1, 2], "[1, 2]", "(1, 2)"),
        ("int[]", [], "[]", "None"),
        ("int[]", [1], "[1]", "[True]"),
        ("bool", True, "1 == 1", "1"),
        ("int", 2**80, "2 ** 80", "2.0 ** 80"),
        ("int", 0, "0", "False"),
    ],
)
def test_python_types_are_exact(returns, expected, right, wrong, function_task, bench):
    task = function_task("python", {}, returns, [([], expected)])
    assert FunctionVerifier().judge(task, f"def f(): return {right}", bench).verdict is Verdict.AC
    assert FunctionVerifier().judge(task, f"def f(): return {wrong}", bench).verdict is Verdict.WA


@pytest.mark.sandbox
def test_each_test_has_its_own_verdict_and_the_first_failure_is_the_program_s(function_task, bench):
    task = function_task("python", {"x": "int"}, "int", [([n], n) for n in range(5)])
    program = "import os\ndef f(x): return {0: 0, 1: 9, 2: 2}[x] if x < 4 else os._exit(0)"
    for isolate in ("test", "task"):
        judged = FunctionVerifier().judge(task, program, replace(bench, isolate=isolate, stop_on_failure=False))
        assert [test.verdict for test in judged.tests] == ["AC", "WA", "AC", "RE", "RE"]
        assert judged.verdict is Verdict.WA and judged.detail == "test 1: another value"
        assert judged.isolation.startswith("local:")


@pytest.mark.sandbox
def test_no_state_passes_from_test_to_test(function_task, bench):
    task = function_task("python", {"x": "int"}, "int", [([1], 1)] * 4)
    program = "seen = []\ndef f(x):\n  seen.append(x)\n  return len(seen)"
    assert FunctionVerifier().judge(task, program, bench).verdict is Verdict.AC
    task = function_task("c", {"x": "int"}, "int", [([1], 1)] * 4)
    assert FunctionVerifier().judge(task, "int seen; int f(int x) { return ++seen; }", bench).verdict is Verdict.AC


@pytest.mark.sandbox
def test_arguments_may_be_changed_without_harm(function_task, bench):
    task = function_task("python", {"xs": "int[]"}, "int", [([[3, 1, 2]], 1)] * 2)
    assert FunctionVerifier().judge(task, "def f(xs): xs.sort(); return xs.pop(0)", bench).verdict is Verdict.AC


@pytest.mark.sandbox
def test_a_time_out_ends_the_tests_only_when_nothing_can_be_earned_by_the_rest(function_task, sandbox):
    task = function_task("python", {"x": "int"}, "int", [([0], 0), ([1], 1)], limits={"cpu_s": 0.2, "wall_s": 1})
    program = "def f(x):\n  while x == 0: pass\n  return x"
    for stop, expected in ((True, ["TLE", "TLE"]), (False, ["TLE", "AC"])):
        for isolate in ("test", "task"):
            bench = Bench(
                sandbox=sandbox, limits=Limits(), stop_on_timeout=stop, stop_on_failure=False, isolate=isolate
            )
            assert [t.verdict for t in FunctionVerifier().judge(task, program, bench).tests] == expected


@pytest.mark.sandbox
def test_more_processor_time_is_more_wall_time(function_task, sandbox):
    bench = Bench(sandbox=sandbox, limits=Limits(cpu_s=0.1, wall_s=0.3))
    program = "import time\ndef f(x):\n  while time.process_time() < 0.6: pass\n  return x"
    for given, verdict in ({"cpu_s": 2}, Verdict.AC), ({"cpu_s": 2, "wall_s": 20}, Verdict.AC), ({}, Verdict.TLE):
        task = function_task("python", {"x": "int"}, "int", [([1], 1)], limits=given)
        assert FunctionVerifier().judge(task, program, bench).verdict is verdict
    assert bench.limits_for({"cpu_s": 2}).wall_s == pytest.approx(6)
    assert bench.limits_for({"cpu_s": 0.01}).wall_s == bench.limits_for({"memory_bytes": 1 << 28}).wall_s == 0.3
    assert bench.limits_for({"wall_s": 0.05}).wall_s == 0.05


@pytest.mark.sandbox
@pytest.mark.parametrize("isolate", ["test", "task"])
def test_what_the_machine_delayed_is_run_once_more_and_what_waits_no_oftener(isolate, function_task, sandbox):
    bench = Bench(sandbox=sandbox, limits=Limits(cpu_s=0.2, wall_s=0.5), isolate=isolate)
    task = function_task("python", {"x": "int"}, "int", [([1], 1)])
    until = time.time() + 0.8  # by the clock on the wall: too late for a run that begins now, soon enough for the next
    waits = f"import time\ndef f(x):\n  while time.time() < {until}: time.sleep(0.01)\n  return x"
    assert FunctionVerifier().judge(task, waits, bench).verdict is Verdict.AC
    started = time.monotonic()
    for language, sleeps in (("python", "import time\ndef f(x): time.sleep(30)"), ("c", "int f(int x) { sleep(30); }")):
        task = function_task(language, {"x": "int"}, "int", [([1], 1), ([2], 2)])
        judged = FunctionVerifier().judge(task, f"#include <unistd.h>\n{sleeps}" if language == "c" else sleeps, bench)
        assert judged.verdict is Verdict.TLE and "wall time (run twice)" in judged.detail
    assert time.monotonic() - started < 8


@pytest.mark.sandbox
def test_a_compile_error_carries_the_compiler_s_words(function_task, bench):
    judged = FunctionVerifier().judge(function_task("c", {}, "int", [([], 1)]), "int f(void) { return y; }", bench)
    assert judged.verdict is Verdict.CE and "undeclared" in judged.detail
    judged = FunctionVerifier().judge(function_task("python", {}, "int", [([], 1)]), "def f(:", bench)
    assert judged.verdict is Verdict.CE and judged.detail.startswith("SyntaxError")


@pytest.mark.sandbox
def test_a_c_answer_without_the_function_does_not_link(function_task, bench):
    judged = FunctionVerifier().judge(function_task("c", {}, "int", [([], 1)]), "int g(void) { return 1; }", bench)
    assert judged.verdict is Verdict.CE and "undefined reference to `f'" in judged.detail


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tests": []}, "at least one test"),
        ({"tests": None}, "at least one test"),
        ({"tests": [{"args": [1]}]}, "exactly the keys"),
        ({"tests": [{"args": [], "expected": 1}]}, "a list of 1"),
        ({"tests": [{"args": [True], "expected": 1}]}, "True is not of type int"),
        ({"tests": [{"args": [1], "expected": 1.0}]}, "1.0 is not of type int"),
        ({"tests": [{"args": [2**31], "expected": 1}]}, "does not fit a C int"),
        ({"entry_point": "f; }"}, "not a function name"),
        ({"entry_point": "main"}, "not a function name"),
        ({"returns": "string"}, "c functions return int, bool"),
        ({"parameters": [{"name": "x", "type": "float"}]}, "one of the types"),
        ({"language": "klingon"}, "no language 'klingon'"),
        ({"limits": {"cpu": 1}}, "no limit 'cpu'"),
        ({"limits": {"cpu_s": 0}}, "positive"),
        ({"limits": {"cpu_s": 3, "wall_s": 2}}, "a busy machine would decide verdicts"),
        ({"limits": {"memory_bytes": 1000}}, "a driver needs"),
        ({"timeout": 3}, "unknown keys 'timeout'"),
    ],
)
def test_records_that_cannot_be_judged_by_are_refused_at_load(change, complaint, function_task):
    task = function_task("c", {"x": "int"}, "int", [([1], 1)])
    broken = type(task)(id="t", messages=task.messages, verifier="function", answer={**task.answer, **change})
    with pytest.raises(DataError, match=complaint):
        FunctionVerifier().check(broken)


def bench_that_says(stdout: bytes, **rest) -> Bench:
    return Bench(sandbox=FakeSandbox([ended(stdout, **rest)]), limits=Limits(), isolate="task")


READY = b"-2 0 0 0 0 0 0\n"


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        (READY + b'0 0 0 5 6 7 10\nV["i","1"]1 0 0 5 6 7 10\nV["i","2"]', ["AC", "AC"]),
        (READY + b'0 0 0 5 6 7 10\nV["i","1"]', ["AC", "RE"]),
        (READY + b'1 0 0 5 6 7 10\nV["i","2"]', ["RE", "RE"]),  # out of order
        (READY + b'0 0 0 5 6 7 10\nV["i","1"]0 0 0 5 6 7 10\nV["i","2"]', ["AC", "RE"]),  # the same one twice
        (READY + b'0 0 0 5 6 7 10\nV["i","1"]1 0 0 5 6 7 99\nV["i","2"]', ["AC", "RE"]),  # cut off
        (READY + b'0 0 1 5 6 7 10\nV["i","1"]', ["TLE", "TLE"]),  # in time is part of right
        (READY + b'0 0 3 5 6 7 10\nV["i","1"]', ["OLE", "RE"]),
        (READY + b"0 9 0 5 6 7 0\n1 256 0 5 6 7 0\n", ["RE", "RE"]),
        (READY + b"0 0 0 5 6 7 2\nAC1 0 0 5 6 7 4\nPASS", ["RE", "RE"]),
        (READY + b'0 0 0 5 6 7 21\nV["i","1"]V["i","1"]\n', ["WA", "RE"]),  # two claims in one
        (READY + b'0 0 0 5 6 7 10\nV["b",1]  1 0 0 5 6 7 10\nV["i","2"]', ["WA", "AC"]),
        (READY, ["RE", "RE"]),
    ],
)
def test_verdicts_follow_from_records_and_only_values_pass(stdout, expected, function_task):
    task = function_task("python", {"x": "int"}, "int", [([1], 1), ([2], 2)])
    judged = FunctionVerifier().judge(task, "def f(x): return x", bench_that_says(stdout))
    assert [test.verdict for test in judged.tests] == expected
    assert judged.isolation == "fake:"


def test_a_driver_that_did_not_start_is_the_harness_failing(function_task):
    task = function_task("python", {"x": "int"}, "int", [([1], 1)])
    with pytest.raises(InfraFailure, match="did not start"):
        FunctionVerifier().judge(task, "def f(x): return x", bench_that_says(b"", exit_code=1, stderr=b"no module"))


def test_a_report_of_nothing_gives_no_verdict_for_free():
    assert [v.verdict for v in verdicts(ended(b""), read_report(b""), [lambda data: True] * 3)] == ["RE"] * 3


@pytest.mark.sandbox
def test_a_driver_s_own_work_for_many_tests_is_no_answer_s_time(function_task, bench):
    """Starting and ending 400 tests takes the driver more than the tenth of a second one of them may use."""
    task = function_task("python", {"x": "int"}, "int", [([n], n + 1) for n in range(400)], limits={"cpu_s": 0.1})
    judged = FunctionVerifier().judge(task, "def f(x): return x + 1", replace(bench, isolate="task"))
    assert judged.verdict is Verdict.AC, judged.detail


# A box for each test


def claims(value: int) -> RunResult:
    return ended(READY + b'0 0 0 5 6 7 10\nV["i","%d"]' % value)


def test_tests_with_a_box_each_end_with_the_first_that_fails_unless_every_one_counts(function_task):
    task = function_task("python", {"x": "int"}, "int", [([n], n) for n in range(4)])
    for stop, jobs, expected in ((True, 2, ["AC", "WA", "WA", "WA"]), (False, 4, ["AC", "WA", "AC", "AC"])):
        sandbox = FakeSandbox([claims(0), claims(7), claims(2), claims(3)])
        judged = FunctionVerifier().judge(
            task, "def f(x): return x", Bench(sandbox=sandbox, limits=Limits(), stop_on_failure=stop)
        )
        assert [test.verdict for test in judged.tests] == expected and judged.verdict is Verdict.WA
        assert len(sandbox.jobs) == jobs
        assert [test.detail.startswith(NOT_RUN) for test in judged.tests] == [False, False, stop, stop]
    assert [job.limits.cpu_s for job in sandbox.jobs] == [START_CPU_S + Limits().cpu_s] * 4


def test_a_box_is_given_the_arguments_of_its_own_test_only(function_task):
    task = function_task("python", {"x": "int"}, "int", [([1000 + n], n) for n in range(3)])
    sandbox = FakeSandbox([claims(0), claims(1), claims(2)])
    assert FunctionVerifier().judge(task, "", Bench(sandbox=sandbox, limits=Limits())).verdict is Verdict.AC
    assert [[b"100%d" % n in job.stdin for n in range(3)] for job in sandbox.jobs] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


def test_only_the_first_box_says_that_there_is_no_program(function_task):
    task = function_task("python", {"x": "int"}, "int", [([0], 0), ([1], 1)])
    refused = ended(READY + b'-1 0 0 0 0 0 4\nC"no"')
    for answers, expected in (([refused], ["CE", "CE"]), ([claims(0), refused], ["AC", "RE"])):
        bench = Bench(sandbox=FakeSandbox(answers), limits=Limits())
        assert [test.verdict for test in FunctionVerifier().judge(task, "", bench).tests] == expected


@pytest.mark.sandbox
def test_an_answer_is_compiled_once_however_many_boxes_it_runs_in(function_task, sandbox):
    seen = []

    class Counting:
        def __getattr__(self, name):
            return getattr(sandbox, name)

        def run(self, job):
            seen.append(job.collect)
            return sandbox.run(job)

    task = function_task("c", {"x": "int"}, "int", [([n], n) for n in range(5)])
    bench = Bench(sandbox=Counting(), limits=Limits())
    assert FunctionVerifier().judge(task, "int f(int x) { return x; }", bench).verdict is Verdict.AC
    assert sum(map(bool, seen)) == 2 and len(seen) == 2 + 5  # the driver, the answer


#: Each returns 2 when called first and 6 when called again, if it can tell.
LEAVES = {
    "a file": """
import os
def f(x):
    seen = os.path.exists("seen")
    open("seen", "w").close()
    return 6 if seen else 2
""",
    "a process number": "import os\ndef f(x): return {3: 2, 4: 6}.get(os.getpid(), 0)",
    "a semaphore": """
import ctypes
def f(x):
    libc = ctypes.CDLL(None)
    seen = libc.semget(0x7777, 1, 0) >= 0
    libc.semget(0x7777, 1, 0o1600)
    return 6 if seen else 2
""",
    "a dead process": """
import os, time
def f(x):
    ours = (1, os.getpid(), os.getppid())
    others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in ours]
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(9)
        os._exit(0)
    os.wait()
    return 6 if others else 2
""",
}


@pytest.mark.sandbox
@pytest.mark.parametrize("leaves", LEAVES)
def test_what_a_test_leaves_is_gone_with_its_box_and_only_then(leaves, function_task, bench):
    task = function_task("python", {"x": "int"}, "int", [([1], 2), ([5], 6)])
    verdicts_of = {
        isolate: FunctionVerifier().judge(task, LEAVES[leaves], replace(bench, isolate=isolate)).verdict
        for isolate in ("test", "task")
    }
    assert verdicts_of == {"test": Verdict.WA, "task": Verdict.AC}


@pytest.mark.sandbox
def test_time_of_processes_that_nobody_waited_for_is_their_test_s(function_task, bench):
    task = function_task("python", {"x": "int"}, "int", [([0], 0), ([1], 1), ([2], 2)], limits={"cpu_s": 0.2})
    program = """
import os, signal, time
def f(x):
    if x == 1:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if os.fork() == 0:
            while time.process_time() < 0.6: pass
            os._exit(0)
        time.sleep(0.9)
    return x
"""
    judged = FunctionVerifier().judge(task, program, replace(bench, stop_on_failure=False, stop_on_timeout=False))
    assert [test.verdict for test in judged.tests] == ["AC", "TLE", "AC"], judged
    assert "nobody waited for" in judged.tests[1].detail
