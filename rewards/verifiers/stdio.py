"""Verifier "stdio": run the answer as a program, give it an input, compare what it writes.

    {"language": "c", "tests": [{"input": "1 2\\n", "output": "3\\n"}], "comparator": "lines",
     "abs_tol": 1e-6, "rel_tol": 1e-6, "limits": {"cpu_s": 2}}

The answer is built once; every test runs it in a fresh box. Input goes in as it stands, as UTF-8; expected output
stays here. `comparator` is a row of `rewards.comparators.COMPARATORS`; the tolerances go with "float" only. The
default is "lines", the strictest one that a right answer meets without being told how the text must end: it forgives
what nobody can see, while "tokens" would pass three numbers on one line where three lines were asked for.

A verdict is reached in this order:

    1. what the box stopped: TLE (processor or wall time), MLE, OLE
    2. a signal or a status other than 0: RE, even after the right output. A program that fails has not solved the
       task, and Kattis and DOMjudge hold the same
    3. processor time over the limit: TLE. Wall time alone decides only where it stops the program
    4. the output: AC or WA

Standard error is shown to people and decides nothing. In a language without a compile step a syntax error is found by
running, and so RE rather than CE.

A run that ended at most `MARGIN` over its processor time, or that wall time stopped, may owe that to the machine: the
test runs once more, the second run counts, and the detail says so. The box therefore allows `MARGIN` more than the
limit; a program that uses up even that is not tried again.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from assay.errors import DataError
from assay.types import Task, TestVerdict, Verdict
from rewards import building
from rewards.comparators import COMPARATORS, Comparator, difference
from rewards.languages import Language, find
from rewards.sandbox.base import KilledBy, Limits, RunResult
from rewards.verifiers.base import Bench, Judged, limits_of, one_by_one, overall, record_of, test_list

DEFAULT_COMPARATOR = "lines"
MARGIN = 0.1  #: of the processor time; a run that ended within it is tried once more
_SHOWN_BYTES = 400
_KILLED = {
    KilledBy.CPU: (Verdict.TLE, "processor time"),
    KilledBy.WALL: (Verdict.TLE, "wall time"),
    KilledBy.MEMORY: (Verdict.MLE, "memory"),
    KilledBy.OUTPUT: (Verdict.OLE, "too much output"),
}
#: Signals that are the kernel's word for a limit.
_SIGNALLED: dict[int, tuple[Verdict, str]] = {
    signal.SIGXCPU: (Verdict.TLE, "processor time of one process"),
    signal.SIGXFSZ: (Verdict.OLE, "a file grew too large"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One input, and the judge's output for it."""

    __test__ = False  # not a pytest class

    input: bytes
    output: bytes


#: What the output of a run that ended in order is worth, AC or WA, with a reason for people. May raise InfraFailure.
Worth = Callable[[Test, bytes], tuple[Verdict, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A task's answer record, checked."""

    language: Language
    tests: tuple[Test, ...]
    compare: Comparator
    limits: Mapping[str, float]


def read(task: Task) -> Plan:
    """The checked record of a task. Raises DataError naming the task and what is wrong."""
    record_of(task, ("language", "tests"), ("comparator", "abs_tol", "rel_tol", "limits"))
    tests, compare = tests_of(task), _comparator_of(task)
    if all(compare(b"", test.output) for test in tests):
        raise DataError(f"task {task.id!r}: no test expects any output, so a program that does nothing would pass")
    return Plan(language=language_of(task, tests), tests=tests, compare=compare, limits=limits_of(task))


class StdioVerifier:
    """Judges a program by what it writes to its standard output."""

    def check(self, task: Task) -> Language:
        """The language; DataError when the record cannot be judged by."""
        return read(task).language

    def judge(self, task: Task, program: str, bench: Bench) -> Judged:
        """Run the program on every test, each in a box of its own."""
        plan = read(task)

        def worth(test: Test, output: bytes) -> tuple[Verdict, str]:
            if plan.compare(output, test.output):
                return Verdict.AC, ""
            return Verdict.WA, difference(output, test.output, plan.compare)

        return judge_tests(bench, plan.language, program, plan.tests, bench.limits_for(plan.limits), worth)


def tests_of(task: Task) -> tuple[Test, ...]:
    """The inputs and outputs of a task. Raises DataError."""
    return tuple(_test_of(f"task {task.id!r}, test {number}", test) for number, test in enumerate(test_list(task)))


def language_of(task: Task, tests: Sequence[Test]) -> Language:
    """The language of a task's answers. Raises DataError where its programs cannot read what the tests give them."""
    language = find(task.answer["language"])
    if not language.reads_input and any(test.input for test in tests):
        raise DataError(f"task {task.id!r}: programs in {language.name} cannot read an input, and its tests have one")
    return language


def judge_tests(
    bench: Bench, language: Language, program: str, tests: Sequence[Test], limits: Limits, worth: Worth
) -> Judged:
    """Build `program` and run it on `tests` under `limits`: one verdict per test, as `one_by_one` has them.

    Raises InfraFailure, EnvironmentProblem.
    """
    isolation = str(bench.sandbox.isolation)
    try:
        files = building.build(bench, language, program)
    except building.CompileError as error:
        each = TestVerdict(verdict=Verdict.CE, detail="no program to run")
        return Judged(verdict=Verdict.CE, tests=(each,) * len(tests), detail=str(error), isolation=isolation)
    found = one_by_one(bench, len(tests), lambda n: _judge_test(bench, language, files, tests[n], limits, worth))
    verdict, detail = overall(found)
    return Judged(verdict=verdict, tests=found, detail=detail, isolation=isolation)


def failure_of(run: RunResult, language: Language) -> tuple[Verdict, str] | None:
    """How a run failed before anything it wrote was looked at; None where it ended in order.

    `language` is the seam for runtimes whose status does not tell (Mono leaves with 0 after a crash): what is to be
    done about such a row is done here and nowhere else. So far its output alone decides.
    """
    if run.killed_by is not None:
        return _KILLED[run.killed_by]
    if run.stdout_truncated:
        return _KILLED[KilledBy.OUTPUT]
    if run.signal is not None:
        return _SIGNALLED.get(run.signal, (Verdict.RE, f"killed by {_signal_name(run.signal)}{last_words(run)}"))
    if run.exit_code != 0:
        return Verdict.RE, f"left with status {run.exit_code}{last_words(run)}"
    return None


def last_words(run: RunResult) -> str:
    """The end of a run's standard error on one line, for people; empty where there is none."""
    text = " ".join(run.stderr[-_SHOWN_BYTES:].decode("utf-8", "replace").split())
    return f": {text}" if text else ""


def _judge_test(
    bench: Bench, language: Language, files: Mapping[str, bytes], test: Test, limits: Limits, worth: Worth
) -> TestVerdict:
    run, verdict, detail = _attempt(bench, language, files, test, limits, worth)
    if verdict is Verdict.TLE and run.killed_by is not KilledBy.CPU:
        first = detail
        run, verdict, detail = _attempt(bench, language, files, test, limits, worth)
        detail = "; ".join(filter(None, (detail, f"run twice, the first time over: {first}")))
    return TestVerdict(
        verdict=verdict, cpu_s=run.cpu_s, wall_s=run.wall_s, memory_bytes=run.memory_bytes, detail=detail
    )


def _attempt(
    bench: Bench, language: Language, files: Mapping[str, bytes], test: Test, limits: Limits, worth: Worth
) -> tuple[RunResult, Verdict, str]:
    allowed = language.limits(limits)
    run = building.run(bench, language, files, replace(limits, cpu_s=limits.cpu_s * (1 + MARGIN)), test.input)
    failure = failure_of(run, language)
    if failure is None and run.cpu_s > allowed.cpu_s:
        failure = _KILLED[KilledBy.CPU]
    verdict, detail = failure or worth(test, run.stdout)
    if verdict is Verdict.TLE:
        used = f"{run.cpu_s:.2f} of {allowed.cpu_s:g} s processor, {run.wall_s:.2f} of {allowed.wall_s:g} s wall"
        detail = f"{detail} ({used})"
    return run, verdict, detail


def _comparator_of(task: Task) -> Comparator:
    name = task.answer.get("comparator", DEFAULT_COMPARATOR)
    if not isinstance(name, str) or name not in COMPARATORS:
        raise DataError(f"task {task.id!r}: no comparator {name!r}; there are {', '.join(COMPARATORS)}")
    tolerances = {key: task.answer[key] for key in ("abs_tol", "rel_tol") if key in task.answer}
    if not tolerances:
        return COMPARATORS[name]
    if name != "float":
        raise DataError(f"task {task.id!r}: {', '.join(tolerances)} goes with comparator float, not {name!r}")
    for key, value in tolerances.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise DataError(f"task {task.id!r}: {key}={value!r} must be a number that is not negative")
    if tolerances.get("rel_tol", 0) >= 1:
        raise DataError(f"task {task.id!r}: rel_tol={tolerances['rel_tol']} would let 0 pass for anything")
    return partial(COMPARATORS[name], **tolerances)


def _test_of(where: str, test: Any) -> Test:
    if not isinstance(test, Mapping) or set(test) != {"input", "output"}:
        raise DataError(f"{where}: a test has exactly the keys input and output")
    return Test(input=_bytes_of(f"{where}, input", test["input"]), output=_bytes_of(f"{where}, output", test["output"]))


def _bytes_of(where: str, text: Any) -> bytes:
    if not isinstance(text, str):
        raise DataError(f"{where}: is a {type(text).__name__}, expected text")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: cannot be written as UTF-8: {error}") from None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
