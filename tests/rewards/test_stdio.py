"""Verifier "stdio": verdicts of real programs, what time-outs are tried again, and outputs that want to be right."""

# ruff: noqa: E501 - a program per line reads better than a program in pieces
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from assay.errors import DataError, InfraFailure
from assay.types import Completion, FinishReason, Message, RolloutGroup, Task, Verdict
from rewards.config import RewardsConfig
from rewards.languages import LANGUAGES
from rewards.sandbox.base import Job, KilledBy, Limits, RunResult
from rewards.sandbox.fake import FakeSandbox, ended
from rewards.scorer import Scorer, verifier_of
from rewards.verifiers.base import Bench, Judged
from rewards.verifiers.stdio import StdioVerifier

AC, WA, RE, TLE, MLE, OLE, CE = (Verdict(name) for name in ("AC", "WA", "RE", "TLE", "MLE", "OLE", "CE"))

ANSWER = Completion(
    token_ids=(1,), logprobs=(0.0,), text="```python\nx\n```", finish_reason=FinishReason.STOP, policy_version=(0, 0)
)


def stdio(*tests: tuple[str, str], language: str = "python", **rest: Any) -> Task:
    answer = {"language": language, "tests": [{"input": i, "output": o} for i, o in tests], **rest}
    return Task(id="s", messages=(Message(role="user", content="add"),), verifier="stdio", answer=answer)


ADD = (("1 2\n", "3\n"), ("5 -9\n", "-4\n"), ("0 0", "0"))
ADD_C = '#include <stdio.h>\nint main(void) { long a, b; if (scanf("%ld %ld", &a, &b) != 2) return 1; printf("%ld\\n", a + b); }'
ADD_PYTHON = "print(sum(map(int, input().split())))"


def judge(program: str, bench: Bench, *tests: tuple[str, str], **rest: Any) -> Judged:
    return StdioVerifier().judge(stdio(*(tests or ADD), **rest), program, bench)


def verdicts(judged: Judged) -> list[Verdict]:
    return [test.verdict for test in judged.tests]


@pytest.mark.sandbox
@pytest.mark.parametrize(("language", "program"), [("c", ADD_C), ("python", ADD_PYTHON)])
def test_a_right_program_passes_every_test(language, program, bench, nothing_left):
    judged = judge(program, bench, language=language)
    assert judged.verdict is AC and verdicts(judged) == [AC] * 3 and judged.detail == ""
    assert judged.isolation.startswith("local:") and all(test.memory_bytes > 0 for test in judged.tests)


@pytest.mark.sandbox
def test_input_and_output_are_utf_8_and_arrive_as_they_are(bench):
    text = "\ufeffa\r\n\u00e9\0\u20ac \U0001f600"
    copy, reverse = (f"import sys; sys.stdout.buffer.write(sys.stdin.buffer.read(){how})" for how in ("", "[::-1]"))
    assert judge(copy, bench, (text, text), comparator="exact").verdict is AC
    assert judge(reverse, bench, ("abc\n", "\ncba"), comparator="exact").verdict is AC
    assert judge(reverse, bench, (text, text), comparator="exact").verdict is WA  # not UTF-8 at all


PROGRAMS: dict[str, tuple[str, Verdict]] = {
    "wrong": ("print(4)", WA),
    "nothing": ("pass", WA),
    "status after the right output": (f"{ADD_PYTHON}; raise SystemExit(3)", RE),
    "exception after the right output": (f"{ADD_PYTHON}; 1 / 0", RE),
    "signal after the right output": ("import os; print(3, flush=True); os.kill(os.getpid(), 11)", RE),
    "syntax": ("print(3", RE),
    "spin after the right output": ("print(3, flush=True)\nwhile 1: pass", TLE),
    "sleep after the right output": ("import time; print(3, flush=True); time.sleep(99)", TLE),
    "memory": (
        "import os, time\nfor i in range(9):\n  if os.fork() == 0: kept = bytearray(60 * 10**6); time.sleep(9)\ntime.sleep(9)",
        MLE,
    ),
    "allocation refused": ("kept = bytearray(10**10)", RE),
    "flood": ("while 1: print('x' * 10000)", OLE),
    "flood of whitespace behind the right output": ("print(3)\nwhile 1: print(' ' * 10000)", OLE),
    "flood of standard error": ("import sys\nprint(3)\nwhile 1: print('x' * 10000, file=sys.stderr)", OLE),
}


@pytest.mark.sandbox
@pytest.mark.parametrize("name", PROGRAMS)
def test_how_a_program_fails(name, bench, nothing_left):
    program, expected = PROGRAMS[name]
    judged = judge(program, bench, ADD[0], limits={"wall_s": 0.8} if expected is TLE else {})
    assert judged.verdict is expected, judged


@pytest.mark.sandbox
def test_a_compile_error_carries_the_compiler_s_words(bench):
    judged = judge("int main(void) { return y; }", bench, language="c")
    assert verdicts(judged) == [CE] * 3 and "undeclared" in judged.detail


@pytest.mark.sandbox
def test_a_c_program_that_fails(bench):
    for body, expected in (
        ('puts("3"); return 1;', RE), ("abort();", RE), ("char *p = 0; *p = 1;", RE), ('puts("4");', WA),
        ('puts("3"); FILE *out = fopen("x", "w"); while (1) fputs("xxxxxxxx", out);', OLE),
    ):  # fmt: skip
        judged = judge(
            f"#include <stdio.h>\n#include <stdlib.h>\nint main(void) {{ {body} }}", bench, ADD[0], language="c"
        )
        assert judged.verdict is expected, (body, judged)


# --- what the hostile list says of standard output (sandboxes.md, D28 to D36) --------------------------------------

SAID = "12 Yes\n0.5 two\n"
HOSTILE_OUTPUT: dict[str, str] = {
    "D29 first line only": "print('12 Yes')",
    "D29 last line missing its last letter": "print('12 Yes\\n0.5 tw')",
    "D29 an extra line": "print('12 Yes\\n0.5 two\\n1')",
    "D29 an extra line before": "print('ok\\n12 Yes\\n0.5 two')",
    "D29 everything twice": "print('12 Yes\\n0.5 two\\n' * 2)",
    "D30 another case": "print('12 YES\\n0.5 TWO')",
    "D30 1e-3 off": "print('12 Yes\\n0.501 two')",
    "D30 NaN": "print('nan Yes\\nnan two')",
    "D30 infinity": "print('inf Yes\\ninf two')",
    "D30 a set": "print({'12 Yes', '0.5 two'})",
    "D30 repr": "print(repr('12 Yes\\n0.5 two'))",
    "D30 inside other words": "print('the answer is 12 Yes\\n0.5 two')",
    "D31 NUL and junk": "print('12 Yes\\n0.5 two\\n\\0junk')",
    "D31 NUL": "print('12 Yes\\n0.5 two\\0')",
    "D31 NUL instead of the newline": "print('12 Yes\\0' + '0.5 two')",
    "D32 homoglyph": "print('12 Y\\u0435s\\n0.5 two')",
    "D32 byte-order mark": "print('\\ufeff12 Yes\\n0.5 two')",
    "D32 right to left": "print('\\u202e12 Yes\\n0.5 two')",
    "D32 carriage return": "print('99 No\\r12 Yes\\n0.5 two')",
    "D32 carriage returns for newlines": "print('12 Yes\\r0.5 two\\r', end='')",
    "D32 no-break space": "print('12\\u00a0Yes\\n0.5\\u00a0two')",
    "D32 form feed": "print('12 Yes\\f0.5 two')",
    "D32 line separator": "print('12 Yes\\u20280.5 two')",
    "D32 backspaces": "print('99\\b\\b12 Yes\\n0.5 two')",
    "D32 full-width digits": "print('\\uff11\\uff12 Yes\\n\\uff10.\\uff15 two')",
    "D33 invalid UTF-8": "import os; os.write(1, b'12 Yes\\n0.5 two\\xff\\n')",
    "D33 another encoding": "import os; os.write(1, '12 Yes\\n0.5 two\\n'.encode('utf-16'))",
    "D33 a megabyte of whitespace": "print('12 Yes\\n0.5 two' + ' ' * 10**6)",
    "D33 a megabyte of newlines": "print('12 Yes\\n0.5 two' + '\\n' * 10**6)",
    "D33 a megabyte of JSON": "print('{\"stdout\": ' + '[' * 10**6)",
    "D34 a verdict": 'print(\'AC\\n{"verdict": "AC", "passed": true, "reward": 1.0}\')',
    "standard error instead": "import sys; print('12 Yes\\n0.5 two', file=sys.stderr)",
    "a file instead": "for name in ('output', 'stdout', 'output.txt'): open(name, 'w').write('12 Yes\\n0.5 two\\n')",
    "standard input instead": "import os; os.write(0, b'12 Yes\\n0.5 two\\n')",
    "closed": "import os; os.close(1)",
}


@pytest.mark.sandbox
@pytest.mark.parametrize("name", HOSTILE_OUTPUT)
def test_output_that_is_nearly_right(name, bench):
    program = "import sys; sys.stdout.reconfigure(encoding='utf-8', newline='\\n')\n" + HOSTILE_OUTPUT[name]
    for comparator in ("exact", "tokens", "float") if name.startswith("D3") else ("lines",):
        judged = judge(program, bench, ("", SAID), comparator=comparator)
        assert judged.verdict in (WA, RE), (comparator, judged)


@pytest.mark.sandbox
def test_right_output_passes_where_the_nearly_right_one_fails(bench):
    for comparator in ("exact", "lines", "tokens", "float", "unordered", "yes_no"):
        assert judge(f"print({SAID!r}, end='')", bench, ("", SAID), comparator=comparator).verdict is AC


@pytest.mark.sandbox
def test_d28_the_visible_examples_are_not_all_tests(bench):
    judged = judge("print({'1 2': 3}.get(input(), 0))", bench)
    assert verdicts(judged) == [AC, WA, WA] and judged.detail == "test 1: line 1 is '0', expected '-4'"


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "words", ["Resource temporarily unavailable", "MemoryError", "timelimit exceeded", "SandboxError: infra"]
)
@pytest.mark.parametrize(("ending", "expected"), [("print(3)", AC), ("print(4)", WA), ("raise SystemExit(1)", RE)])
def test_d34_standard_error_decides_nothing(words, ending, expected, bench):
    assert judge(f"import sys; print({words!r}, file=sys.stderr); {ending}", bench, ADD[0]).verdict is expected


@pytest.mark.sandbox
@pytest.mark.parametrize("status", [1, 2, 3, 7, 42, 43, 124, 127, 137, 255])
def test_d33_no_status_of_a_program_is_the_harness_s(status, bench):
    assert judge(f"import os; print(3, flush=True); os._exit({status})", bench, ADD[0]).verdict is RE


@pytest.mark.sandbox
def test_d33_an_attack_on_the_harness_is_a_failure_of_the_program(bench, nothing_left):
    program = "import os; print(3, flush=True); os.kill(os.getppid(), 9); os.kill(-1, 9); os.kill(os.getpid(), 9)"
    assert judge(program, bench, ADD[0]).verdict is RE


@pytest.mark.sandbox
def test_d35_and_d36_a_test_cannot_tell_which_one_it_is(bench, nothing_left):
    """Three equal tests; a program that sees anything left of the one before answers something else."""
    program = (
        "import os\nseen = 0\nfor place in ('.', '/tmp', '/dev/shm', '/var/tmp'):\n"
        "  try:\n    seen += os.path.exists(place + '/marker'); open(place + '/marker', 'w').close()\n  except OSError: pass\n"
        "print(seen, os.getpid(), sorted(os.listdir('.')))"
    )
    assert verdicts(judge(program, bench, *[("", "0 2 ['answer.py', 'marker']")] * 3)) == [AC] * 3


@pytest.mark.sandbox
def test_only_what_was_written_before_the_end_counts(bench, nothing_left):
    late = "import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(0.3); os.write(1, b'3\\n')\nos._exit(0)"
    assert judge(late, bench, ADD[0]).verdict is WA
    mixed = "import os\nif os.fork() == 0:\n  os.write(1, b'3\\n'); os._exit(0)\nos.wait()"
    assert judge(mixed, bench, ADD[0]).verdict is AC


# --- what the box is given, and what follows from what it says ------------------------------------------------------


def bench_of(*answers: RunResult | InfraFailure | Callable[[Job], RunResult], **rest: Any) -> tuple[Bench, FakeSandbox]:
    fake = FakeSandbox(answers)
    return Bench(sandbox=fake, limits=Limits(cpu_s=2.0, wall_s=6.0), **rest), fake


def test_expected_output_never_enters_a_box_and_a_program_is_built_once():
    def box(job: Job) -> RunResult:
        return replace(ended(b"SECRET 3\n"), files={name: b"code" for name in job.collect})

    bench, fake = bench_of(box)
    judged = judge("int main;", bench, ("in1", "SECRET 3"), ("in2", "SECRET 3"), language="c")
    assert judged.verdict is AC and judged.isolation == "fake:"
    assert [bool(job.collect) for job in fake.jobs] == [True, False, False]
    assert [job.stdin for job in fake.jobs] == [b"", b"in1", b"in2"]
    assert not any(b"SECRET" in part for job in fake.jobs for part in (*job.files.values(), job.stdin))
    assert all("SECRET" not in word for job in fake.jobs for word in job.argv)


def test_tests_after_a_failure_are_not_run_and_have_not_passed():
    bench, fake = bench_of(ended(b"3\n"), ended(b"7\n"), ended(b"0\n"))
    judged = judge(ADD_PYTHON, bench)
    assert verdicts(judged) == [AC, WA, WA] and len(fake.jobs) == 2 and judged.verdict is WA
    assert judged.tests[2].detail == "not run: test 1 had failed" and "not run" not in judged.tests[1].detail


def test_partial_credit_wants_every_test():
    bench, fake = bench_of(ended(b"3\n"), ended(b"7\n"), ended(b"0\n"), stop_on_failure=False)
    judged = judge(ADD_PYTHON, bench)
    assert verdicts(judged) == [AC, WA, AC] and len(fake.jobs) == 3 and judged.verdict is WA


SPUN = replace(ended(), exit_code=None, signal=9, killed_by=KilledBy.CPU, cpu_s=2.25, wall_s=2.5)


@pytest.mark.parametrize(("stop", "expected"), [(True, [TLE, TLE, TLE]), (False, [TLE, AC, AC])])
def test_a_time_out_alone_may_end_the_tests(stop, expected):
    bench, _ = bench_of(SPUN, ended(b"-4\n"), ended(b"0\n"), stop_on_failure=False, stop_on_timeout=stop)
    assert verdicts(judge(ADD_PYTHON, bench)) == expected


def test_a_scorer_asks_for_all_tests_only_where_each_is_worth_something():
    for partial, rewards in ((True, 2 / 3), (False, 0.0)):
        fake = FakeSandbox([ended(b"3\n"), ended(b"7\n"), ended(b"0\n")])
        group = RolloutGroup(task=stdio(*ADD), prompt_ids=(1,), completions=(ANSWER,))
        (result,) = Scorer(RewardsConfig(partial=partial), fake).score_group(group)
        assert (result.verdict, result.reward) == (WA, pytest.approx(rewards))


def test_a_failure_of_the_harness_is_no_verdict():
    bench, _ = bench_of(ended(b"3\n"), InfraFailure("the box died"))
    with pytest.raises(InfraFailure, match="the box died"):
        judge(ADD_PYTHON, bench)


SLOW = replace(ended(b"3\n"), cpu_s=2.1, wall_s=2.2)  # ended by itself, 5 % over
WAITED = replace(ended(), exit_code=None, signal=9, killed_by=KilledBy.WALL, cpu_s=0.1, wall_s=6.0)
QUICK = replace(ended(b"3\n"), cpu_s=1.9, wall_s=2.0)


@pytest.mark.parametrize(
    ("runs", "expected", "jobs", "words"),
    [
        ([QUICK], AC, 1, ""),
        ([SLOW, QUICK], AC, 2, "run twice, the first time over: processor time (2.10 of 2 s"),
        ([SLOW, SLOW], TLE, 2, "run twice"),
        ([WAITED, QUICK], AC, 2, "over: wall time (0.10 of 2 s processor, 6.00 of 6 s wall)"),
        ([WAITED, WAITED], TLE, 2, "run twice"),
        ([WAITED, SPUN], TLE, 2, "run twice"),
        ([SLOW, replace(QUICK, stdout=b"4\n")], WA, 2, "line 1 is '4', expected '3'; run twice"),
        ([SPUN, QUICK], TLE, 1, "processor time (2.25 of 2 s processor"),
        ([replace(SLOW, stdout=b"3\n", exit_code=1), QUICK], RE, 1, "left with status 1"),
    ],
)
def test_a_time_out_that_may_be_the_machine_s_is_tried_once_more(runs, expected, jobs, words):
    bench, fake = bench_of(*runs)
    judged = judge(ADD_PYTHON, bench, ADD[0])
    assert (judged.verdict, len(fake.jobs)) == (expected, jobs) and words in judged.tests[0].detail
    assert all(job.limits.cpu_s == pytest.approx(2.2) and job.limits.wall_s == 6.0 for job in fake.jobs)


@pytest.mark.sandbox
def test_real_time_outs_are_told_apart(bench):
    spun = judge("while 1: pass", bench, ADD[0], limits={"cpu_s": 0.2, "wall_s": 20})
    assert spun.verdict is TLE and "processor time" in spun.detail and "run twice" not in spun.detail
    slept = judge("import time; time.sleep(9)", bench, ADD[0], limits={"wall_s": 0.3})
    assert slept.verdict is TLE and "wall time" in slept.detail and "run twice" in slept.detail


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (replace(ended(b"3\n"), killed_by=KilledBy.MEMORY), MLE),
        (replace(ended(b"3\n"), killed_by=KilledBy.OUTPUT), OLE),
        (replace(ended(b"3\n"), stdout_truncated=True), OLE),
        (replace(ended(b"3\n"), exit_code=None, signal=24), TLE),  # SIGXCPU
        (replace(ended(b"3\n"), exit_code=None, signal=25), OLE),  # SIGXFSZ
        (replace(ended(b"3\n"), exit_code=None, signal=9), RE),
        (replace(ended(b"3\n"), exit_code=None, signal=99), RE),
        (ended(b"3\n", exit_code=1, stderr=b"Traceback\xff"), RE),
        (ended(b"3\n", stderr=b"Traceback"), AC),
    ],
)
def test_right_output_is_not_enough(run, expected):
    assert judge(ADD_PYTHON, bench_of(run)[0], ADD[0]).verdict is expected


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tests": []}, "at least one test"),
        ({"tests": [{"input": "1"}]}, "exactly the keys input and output"),
        ({"tests": [{"input": "1", "output": "2", "expected": "3"}]}, "exactly the keys"),
        ({"tests": [{"input": 1, "output": "2"}]}, "test 0, input: is a int, expected text"),
        ({"tests": [{"input": "1", "output": "\ud800"}]}, "cannot be written as UTF-8"),
        ({"tests": [{"input": "1", "output": ""}, {"input": "2", "output": " \n"}]}, "does nothing would pass"),
        ({"comparator": "loose"}, "no comparator 'loose'; there are exact, lines, tokens"),
        ({"comparator": ["exact"]}, "no comparator"),
        ({"abs_tol": 1e-3}, "abs_tol goes with comparator float, not 'lines'"),
        ({"comparator": "float", "abs_tol": -1}, "not negative"),
        ({"comparator": "float", "abs_tol": float("nan")}, "not negative"),
        ({"comparator": "float", "abs_tol": float("inf")}, "not negative"),
        ({"comparator": "float", "rel_tol": True}, "not negative"),
        ({"comparator": "float", "rel_tol": 1}, "0 pass for anything"),
        ({"language": "kobold"}, "no language 'kobold'"),
        ({"limits": {"cpu": 1}}, "no limit 'cpu'"),
        ({"timeout": 3}, "unknown keys 'timeout'"),
    ],
)
def test_records_that_cannot_be_judged_by_are_refused_at_load(change, complaint):
    task = stdio(*ADD)
    with pytest.raises(DataError, match=complaint):
        StdioVerifier().check(replace(task, answer={**task.answer, **change}))


def test_a_language_that_cannot_read_takes_no_input():
    deaf = [row.name for row in LANGUAGES.values() if not row.reads_input]
    for name in deaf:
        with pytest.raises(DataError, match="cannot read an input"):
            StdioVerifier().check(stdio(*ADD, language=name))
        assert StdioVerifier().check(stdio(("", "3"), language=name)).name == name


def test_a_record_survives_json_and_is_found_by_name():
    task = stdio(*ADD, comparator="float", abs_tol=0.01, rel_tol=0)
    again = replace(task, answer=json.loads(json.dumps(task.answer)))
    assert verifier_of(again).check(again).name == "python"
    assert judge(ADD_PYTHON, bench_of(ended(b"3.009"))[0], ADD[0], comparator="float", abs_tol=0.01).verdict is AC
    assert judge(ADD_PYTHON, bench_of(ended(b"3.009"))[0], ADD[0], comparator="float").verdict is WA
