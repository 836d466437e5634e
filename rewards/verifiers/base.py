"""What a verifier is given and what it returns.

A program verifier judges one program by its tests; the scorer extracts the program, shares the verdict among equal
programs, retries and fills in the reward. A group verifier judges all completions of a prompt at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from assay.errors import DataError
from assay.types import RewardResult, RolloutGroup, Task, TestVerdict, Verdict
from rewards.bench import Bench
from rewards.languages import Language
from rewards.sandbox.base import MIB, Limits

START_CPU_S, START_WALL_S = 2.0, 5.0  #: on top of the tests' own limits, for the driver around them
LEAST_MEMORY = 64 * MIB
NOT_RUN = "not run"  #: how the detail of a test begins that was left out because an earlier one had failed
_LIMIT_KEYS = {"cpu_s": float, "wall_s": float, "memory_bytes": int, "output_bytes": int, "processes": int}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of one program."""

    verdict: Verdict
    tests: tuple[TestVerdict, ...] = ()
    detail: str = ""
    isolation: str = ""


class ProgramVerifier(Protocol):
    """Judges one program at a time."""

    def check(self, task: Task) -> Language:
        """The language of the task's programs. Raises DataError when its answer record cannot be judged by."""
        ...

    def judge(self, task: Task, program: str, bench: Bench) -> Judged:
        """Run `program` against the task's tests. Raises InfraFailure; never reports it as a verdict."""
        ...


@runtime_checkable
class Extracting(Protocol):
    """A program verifier that finds its programs in an answer itself."""

    def extract(self, task: Task, text: str, *, whole_text: bool) -> str:
        """What `judge` takes as the program. Raises NoProgram, saying what is missing."""
        ...


@runtime_checkable
class Probing(Protocol):
    """A program verifier that can say of some records only by a run whether they can judge."""

    def probe(self, task: Task, bench: Bench) -> None:
        """Raises DataError for a record that would believe anything, EnvironmentProblem where a tool is missing."""
        ...


@runtime_checkable
class GroupVerifier(Protocol):
    """Judges all completions of one prompt at once."""

    def check_group(self, task: Task) -> None:
        """Raises DataError when the task's answer record cannot be judged by."""
        ...

    def judge_group(self, group: RolloutGroup) -> list[RewardResult]:
        """One result per completion, in order."""
        ...


def whole(limits: Limits, tests: int) -> Limits:
    """The limits of a box that runs `tests` tests one after another, each under `limits`."""
    return replace(limits, cpu_s=START_CPU_S + tests * limits.cpu_s, wall_s=START_WALL_S + tests * limits.wall_s)


def one_by_one(bench: Bench, tests: int, judge: Callable[[int], TestVerdict]) -> tuple[TestVerdict, ...]:
    """The verdicts of tests that have a box each, as far as the bench wants them run.

    The tests behind the one that ends it take that one's verdict, as `rewards.records` does after a time-out, and
    their detail begins with NOT_RUN: they have not passed, and the number of verdicts stays the number of tests.
    """
    found: list[TestVerdict] = []
    for number in range(tests):
        found.append(judge(number))
        if _ends(bench, found[-1].verdict):
            rest = TestVerdict(verdict=found[-1].verdict, detail=f"{NOT_RUN}: test {number} had failed")
            return (*found, *[rest] * (tests - len(found)))
    return tuple(found)


def _ends(bench: Bench, verdict: Verdict) -> bool:
    """Whether no further test is run after one with this verdict."""
    if verdict is Verdict.TLE:
        return bench.stop_on_failure or bench.stop_on_timeout
    return verdict is not Verdict.AC and bench.stop_on_failure


def overall(tests: Sequence[TestVerdict]) -> tuple[Verdict, str]:
    """The first verdict that is not AC, with its detail; AC only if there is a test and all of them passed."""
    if not tests:
        raise DataError("a program cannot be judged by no tests")
    for number, test in enumerate(tests):
        if test.verdict is not Verdict.AC:
            return test.verdict, f"test {number}: {test.detail}"
    return Verdict.AC, ""


def record_of(task: Task, required: Sequence[str], optional: Sequence[str]) -> Mapping[str, Any]:
    """The task's answer, after checking its keys. Raises DataError naming the task."""
    missing = [key for key in required if key not in task.answer]
    unknown = [key for key in task.answer if key not in required and key not in optional]
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has unknown keys {', '.join(map(repr, unknown))}"
        raise DataError(f"task {task.id!r}: its answer {wrong} (verifier {task.verifier!r})")
    return task.answer


def limits_of(task: Task) -> dict[str, float]:
    """The limits a task sets for one test. Raises DataError."""
    given = task.answer.get("limits", {})
    if not isinstance(given, Mapping):
        raise DataError(f"task {task.id!r}: limits must be a mapping")
    for key, value in given.items():
        if key not in _LIMIT_KEYS:
            raise DataError(f"task {task.id!r}: no limit {key!r}; there are {', '.join(_LIMIT_KEYS)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise DataError(f"task {task.id!r}: limit {key}={value!r} must be a positive number")
    if given.get("memory_bytes", LEAST_MEMORY) < LEAST_MEMORY:
        raise DataError(
            f"task {task.id!r}: memory_bytes={given['memory_bytes']} is below the {LEAST_MEMORY} a driver needs"
        )
    if given.get("wall_s", math.inf) < given.get("cpu_s", 0):
        raise DataError(
            f"task {task.id!r}: wall_s={given['wall_s']} is below cpu_s={given['cpu_s']}, so a busy machine would "
            f"decide verdicts; leave it out, and it grows with cpu_s"
        )
    return {key: _LIMIT_KEYS[key](value) for key, value in given.items()}


def test_list(task: Task) -> list[Any]:
    """The task's tests. Raises DataError where there are none: nothing passes by having nothing to do."""
    tests = task.answer.get("tests")
    if not isinstance(tests, list | tuple) or not tests:
        raise DataError(
            f"task {task.id!r}: `tests` must be a list with at least one test; an empty one would pass anything"
        )
    return list(tests)
