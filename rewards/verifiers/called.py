"""Tests that are calls of an answer's function: a box for each of them, or one box for all.

    test 0 -> box -> value -> verdict        isolate: test    nothing of a test is there for a later one
    test 1 -> box -> value -> verdict

    tests 0, 1, ... -> box -> values         isolate: task    a process each, one after another, in one box

A run that wall time stopped may owe that to the machine or to a slow disk: it is made once more, and then it counts.

With a box each, files, processes, System V objects, process numbers and memory of a test are gone with its box, and
the time of processes that nobody waited for is its own. In one box they are not: an answer can tell there which test
it is called for. What was compiled, and the driver, enter every box as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.types import TestVerdict, Verdict
from rewards.drivers import Calls
from rewards.records import Judge, verdicts
from rewards.sandbox.base import Limits, RunResult
from rewards.verifiers.base import Bench, one_by_one

DRIVER_S = 0.02  #: more than a driver takes to start and end one test: about 1 ms, several on a slow machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """The tests of a task, and how an answer is called with them."""

    calls: Calls
    tests: Sequence[Any]
    judges: Sequence[Judge]
    limits: Limits  #: of one test


def judge_calls(bench: Bench, called: Called) -> tuple[str | None, tuple[TestVerdict, ...]]:
    """Why there is no program, or None; and one verdict per test. Raises InfraFailure.

    Whether there is a program is said by the first box alone.
    """
    count = len(called.tests)
    if bench.isolate == "task":
        return _in_one_box(bench, called, 0, count)
    no_program, first = _in_one_box(bench, called, 0, 1)
    if no_program is not None:
        return no_program, first * count
    return None, one_by_one(bench, count, lambda n: (_in_one_box(bench, called, n, n + 1)[1] if n else first)[0])


def _in_one_box(bench: Bench, called: Called, start: int, end: int) -> tuple[str | None, tuple[TestVerdict, ...]]:
    """Some of the tests in one box; a second one where wall time alone decided in the first, and that one counts."""
    no_program, found = _attempt(called, start, end)
    failed = [test for test in found if test.verdict is not Verdict.AC]
    deciding = failed[:1] if bench.stop_on_failure else failed
    if any(test.verdict is Verdict.TLE and test.detail.startswith("wall time") for test in deciding):
        no_program, found = _attempt(called, start, end)
        found = tuple(replace(test, detail=f"{test.detail} (run twice)".strip()) for test in found)
    return no_program, found


def _attempt(called: Called, start: int, end: int) -> tuple[str | None, tuple[TestVerdict, ...]]:
    run, report = called.calls(called.tests[start:end])
    return report.no_program, _with_orphans(verdicts(run, report, called.judges[start:end]), run, called.limits)


def _with_orphans(tests: tuple[TestVerdict, ...], run: RunResult, limits: Limits) -> tuple[TestVerdict, ...]:
    """Out of time where the box used more than a test's limit beside its tests.

    A test's own time leaves out descendants whose parent did not wait for them; the box counts those too, with what
    the answer does before its first call, and the driver's own work for every test.
    """
    beside = run.cpu_s - sum(test.cpu_s for test in tests)
    if beside <= limits.cpu_s + DRIVER_S * len(tests) or any(test.verdict is not Verdict.AC for test in tests):
        return tests
    detail = f"processor time: {beside:.1f} s beside the tests, in processes that nobody waited for or before the first"
    return (*tests[:-1], replace(tests[-1], verdict=Verdict.TLE, detail=detail))
