"""Verifier "checker": run the answer as verifier "stdio" does, and let a program of the task judge what it wrote.

    {"language": "c", "tests": [{"input": "4\\n", "output": "2 2\\n"}], "limits": {"cpu_s": 2},
     "checker": {"language": "c++", "source": "...", "protocol": "testlib", "files": {"testlib.h": "..."},
                 "full_points": 100, "limits": {"cpu_s": 20}}}

For tasks with more than one right output. `output` is the judge's answer, which a checker may read or not. `files`
lie beside the checker's source when it is built (or run, in Python, which can import them). The checker runs in a box
of its own, fresh for every test, in which the answer's program never was; it is trusted, and what it reads is not. It
is not asked about a program that was stopped or left with a status other than 0.

    testlib    checker INPUT OUTPUT ANSWER; leaves with
                   0                      AC
                   1, 2, 4, 8             WA: wrong, badly formed, too much or too little (testlib.h: _wa, _pe, _dirt,
                                          _unexpected_eof)
                   7                      "points X" on standard error: AC if X is `full_points`, WA below; a test has
                                          no share of a pass, so the points are in its detail
    domjudge   checker INPUT ANSWER FEEDBACK_DIR < OUTPUT; leaves with 42 (AC) or 43 (WA) (Kattis problem package
               format, "Output validators"); its judgemessage.txt is in the detail

A checker that crashes or leaves with another status fails: because of what it was given to read, or whatever that is.
So it is asked about `output` in the answer's place. Where that is AC, and it fails on the answer's once more, the
answer is WA: what nobody can read is not right, and an answer cannot choose to be masked.

Anything else says nothing about the answer: a checker that does not accept `output`, says that the judge is wrong
(testlib's 3), uses too much of anything (a right output may be larger than the judge's), does not compile or gives
points without a scale is an InfraFailure, tried again by the scorer and then masked. testlib's partial verdict _pc(n)
is one of these: it leaves with n, so that no points at all would look like a pass.
"""

from __future__ import annotations

import math
import re
import signal
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from assay.errors import DataError, InfraFailure
from assay.types import Task, Verdict
from rewards.bench import with_own
from rewards.building import CompileError, build, compile_in_box
from rewards.languages import Language, find
from rewards.sandbox.base import MIB, Job, Limits, RunResult
from rewards.verifiers.base import Bench, Judged, limits_of, record_of
from rewards.verifiers.stdio import Test, judge_tests, language_of, last_words, tests_of

CHECKER_LIMITS = Limits(
    cpu_s=10.0, wall_s=30.0, memory_bytes=1024 * MIB, output_bytes=MIB, processes=16, file_bytes=64 * MIB
)
#: Languages whose programs cannot leave with testlib's 1 ("wrong answer") because of an error nobody caught: what is
#: compiled here dies of a signal, and Python is started by _GUARD.
CHECKER_LANGUAGES = ("c", "cpp", "python")
KEPT_CHECKERS = 8  #: built ones; the completions of a task are judged one after another
_INPUT, _OUTPUT, _ANSWER, _MESSAGE = "input.txt", "output.txt", "answer.txt", "judgemessage.txt"
_GUARDED = "checker.py"
_OUT_OF_MEMORY = 71
_JUDGE_IS_WRONG = 3  #: testlib.h: _fail
_GUARD = f"""\
import os, runpy, sys, traceback
sys.path.insert(0, os.getcwd())
try:
    runpy.run_path("{_GUARDED}", run_name="__main__")
except SystemExit:
    raise
except BaseException as error:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit({_OUT_OF_MEMORY} if isinstance(error, MemoryError) else 70)
"""
_POINTS = re.compile(rb"\s*points\s+([0-9]{1,15}(?:\.[0-9]{1,20})?)(?!\S)")
_REQUIRED, _OPTIONAL = ("language", "source", "protocol"), ("files", "full_points", "limits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """A task's checker, as its record gives it."""

    language: Language
    source: str
    protocol: str
    files: tuple[tuple[str, str], ...]
    full_points: float | None
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a checker is called, and what its leaving means."""

    arguments: tuple[str, ...]
    output_on_stdin: bool
    read: Callable[[Checker, RunResult], tuple[Verdict, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A task's answer record, checked."""

    language: Language
    tests: tuple[Test, ...]
    checker: Checker
    limits: Mapping[str, float]


def read(task: Task) -> Plan:
    """The checked record of a task. Raises DataError naming the task and what is wrong."""
    record_of(task, ("language", "tests", "checker"), ("limits",))
    tests = tests_of(task)
    return Plan(language=language_of(task, tests), tests=tests, checker=_checker_of(task), limits=limits_of(task))


class CheckerVerifier:
    """Judges what a program writes by a checker of the task."""

    def check(self, task: Task) -> Language:
        """The language of the answers; DataError when the record cannot be judged by."""
        return read(task).language

    def judge(self, task: Task, program: str, bench: Bench) -> Judged:
        """Run the program on every test and ask the checker about each output. A checker that fails: InfraFailure."""
        plan = read(task)
        limits = bench.limits_for(plan.limits)
        return judge_tests(bench, plan.language, program, plan.tests, limits, partial(_asked, bench, plan.checker))


class _Stuck(InfraFailure):
    """The checker failed in a way that what it read may have been the reason for."""


def _asked(bench: Bench, checker: Checker, test: Test, output: bytes) -> tuple[Verdict, str]:
    """What the checker says about an output; WA where it fails on this one twice and not on the judge's between."""
    try:
        return _said(bench, checker, test, output)
    except _Stuck as failure:
        if _said(bench, checker, test, test.output)[0] is not Verdict.AC:
            raise InfraFailure(f"{failure}; nor does it accept the judge's output") from None
        try:
            return _said(bench, checker, test, output)
        except _Stuck:
            return Verdict.WA, f"the checker reads the judge's output, and not this: {failure}"


def _said(bench: Bench, checker: Checker, test: Test, output: bytes) -> tuple[Verdict, str]:
    protocol = PROTOCOLS[checker.protocol]
    files = {**_built(bench, checker), _INPUT: test.input, _ANSWER: test.output}
    if not protocol.output_on_stdin:
        files[_OUTPUT] = output
    run = bench.sandbox.run(
        Job(
            argv=(*checker.language.run_argv(python=bench.sandbox.python), *protocol.arguments),
            files=files,
            stdin=output if protocol.output_on_stdin else b"",
            limits=checker.language.limits(checker.limits),
            collect=(_MESSAGE,),
        )
    )
    if run.killed_by is not None:
        raise InfraFailure(f"the checker used too much ({run.killed_by}){last_words(run)}")
    if checker.language.name == "python" and run.exit_code == _OUT_OF_MEMORY:
        raise InfraFailure(f"the checker used too much (memory){last_words(run)}")
    if run.signal is not None:  # SIGKILL is no crash: that was somebody else's, such as the kernel's when memory is out
        failure = InfraFailure if run.signal == signal.SIGKILL else _Stuck
        raise failure(f"the checker crashed (signal {run.signal}){last_words(run)}")
    return protocol.read(checker, run)


def _testlib(checker: Checker, run: RunResult) -> tuple[Verdict, str]:
    if run.stderr.startswith(b"partially correct"):
        raise InfraFailure(f"the checker used testlib's _pc, which has no exit status of its own{last_words(run)}")
    said = f"the checker says{last_words(run) or ' nothing'}"
    if run.exit_code == 0:
        return Verdict.AC, ""
    if run.exit_code in (1, 2, 4, 8):
        return Verdict.WA, said
    if run.exit_code == 7:
        return _pointed(checker, run)
    failure = InfraFailure if run.exit_code == _JUDGE_IS_WRONG else _Stuck
    raise failure(f"the checker failed with status {run.exit_code}; {said}")


def _pointed(checker: Checker, run: RunResult) -> tuple[Verdict, str]:
    match = _POINTS.match(run.stderr)
    if match is None:
        raise InfraFailure(f"the checker gave points but does not say how many{last_words(run)}")
    points, full = float(match.group(1)), checker.full_points
    if full is None:
        raise InfraFailure(f"the checker gave {points:g} points; the task must say what is full (checker.full_points)")
    if math.isclose(points, full, rel_tol=1e-9):
        return Verdict.AC, f"{points:g} of {full:g} points"
    if points > full:
        raise InfraFailure(f"the checker gave {points:g} points where {full:g} are all there are")
    return Verdict.WA, f"{points:g} of {full:g} points"


def _domjudge(checker: Checker, run: RunResult) -> tuple[Verdict, str]:
    if run.exit_code == 42:
        return Verdict.AC, ""
    if run.exit_code == 43:
        message = " ".join(run.files.get(_MESSAGE, b"")[:400].decode("utf-8", "replace").split())
        return Verdict.WA, f"the checker says: {message}" if message else f"the checker says{last_words(run) or ' no'}"
    raise _Stuck(f"the checker failed with status {run.exit_code}, neither 42 nor 43{last_words(run)}")


PROTOCOLS: dict[str, Protocol] = {
    "testlib": Protocol(arguments=(_INPUT, _OUTPUT, _ANSWER), output_on_stdin=False, read=_testlib),
    # the format wants a path that ends with a separator; the working folder is the checker's own
    "domjudge": Protocol(arguments=(_INPUT, _ANSWER, "./"), output_on_stdin=True, read=_domjudge),
}


def _built(bench: Bench, checker: Checker) -> dict[str, bytes]:
    """The files a run of the checker needs, built once for as long as a few other checkers are not needed."""
    kept: OrderedDict[Any, dict[str, bytes]] = bench.keep("checkers", OrderedDict)
    key = (checker.language.name, checker.source, checker.files)
    files = kept.get(key)
    if files is None:
        files = kept[key] = _build(bench, checker)
        if len(kept) > KEPT_CHECKERS:
            kept.popitem(last=False)
    return files


def _build(bench: Bench, checker: Checker) -> dict[str, bytes]:
    language = checker.language
    files = {name: text.encode("utf-8", "replace") for name, text in checker.files}
    source = checker.source.encode("utf-8", "replace")
    if language.name == "python":
        return {**build(bench, language, _GUARD), **files, _GUARDED: source}
    try:
        sources = {**files, language.source: source}
        artefact = compile_in_box(bench, language, language.compile_argv(), sources, language.artefact)
    except CompileError as error:
        raise InfraFailure(f"the checker does not compile: {' '.join(str(error).split())}") from None
    return {language.artefact: artefact}


def _checker_of(task: Task) -> Checker:
    given = task.answer["checker"]
    where = f"task {task.id!r}, checker"
    if not isinstance(given, Mapping) or not set(_REQUIRED) <= set(given) <= {*_REQUIRED, *_OPTIONAL}:
        raise DataError(f"{where}: needs the keys {', '.join(_REQUIRED)} and may have {', '.join(_OPTIONAL)}")
    if not isinstance(given["source"], str) or not given["source"].strip():
        raise DataError(f"{where}: source must be the text of a program")
    if not isinstance(given["protocol"], str) or given["protocol"] not in PROTOCOLS:
        raise DataError(f"{where}: no protocol {given['protocol']!r}; there are {', '.join(PROTOCOLS)}")
    language = find(given["language"])
    if language.name not in CHECKER_LANGUAGES:
        raise DataError(f"{where}: cannot be in {language.name}, only in {', '.join(CHECKER_LANGUAGES)}")
    own_limits = limits_of(replace(task, answer={"limits": given.get("limits", {})}))
    return Checker(
        language=language,
        source=given["source"],
        protocol=given["protocol"],
        files=_files_of(where, given.get("files", {}), language),
        full_points=_full_points_of(where, given.get("full_points")),
        limits=with_own(CHECKER_LIMITS, own_limits),
    )


def _files_of(where: str, files: Any, language: Language) -> tuple[tuple[str, str], ...]:
    taken = {language.source, language.artefact, _GUARDED, _INPUT, _OUTPUT, _ANSWER, _MESSAGE}
    if not isinstance(files, Mapping) or not all(isinstance(part, str) for pair in files.items() for part in pair):
        raise DataError(f"{where}: files must map names to texts")
    for name in files:
        if name in taken or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}", name):
            raise DataError(f"{where}: a file cannot be called {name!r}")
    return tuple(sorted(files.items()))


def _full_points_of(where: str, points: Any) -> float | None:
    if points is None:
        return None
    if isinstance(points, bool) or not isinstance(points, int | float) or not (math.isfinite(points) and points > 0):
        raise DataError(f"{where}: full_points={points!r} must be a positive number")
    return float(points)
