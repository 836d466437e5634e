"""Does a row of the language table work in this sandbox: five small programs of each, run as answers are.

    self_test(sandbox, find("java"))  ->  LanguageReport: hello, sum, syntax error, runtime error, endless loop

A recipe that is wrong, a tool-chain that cannot find its files inside a box, or limits that a runtime cannot live
under are found here, before a training run takes them for bad answers. The programs are in `language_examples`, one
file a row.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from assay.errors import DataError, EnvironmentProblem
from rewards.bench import Bench
from rewards.building import CompileError, build, run
from rewards.languages import Language
from rewards.sandbox.base import Limits, RunResult, Sandbox

CHECKS = ("hello", "sum", "syntax error", "runtime error", "endless loop")

_FOLDER = Path(__file__).resolve().parent / "language_examples"
_LIMITS = Limits(cpu_s=3.0, wall_s=15.0)
_SHORT = replace(_LIMITS, cpu_s=0.5, wall_s=10.0)  #: for the program that never ends by itself
_NUMBERS, _TOTAL = b"40\n-5\n7\n", b"42"
_DETAIL_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Check:
    """One program's outcome."""

    name: str
    passed: bool
    detail: str  #: what happened, one line
    cpu_s: float = 0.0  #: of the run, not of compiling


@dataclass(frozen=True, slots=True)
class LanguageReport:
    """What became of one language; where `missing` says what to install, there are no checks."""

    language: str
    checks: tuple[Check, ...] = ()
    missing: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it is installed and every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def __str__(self) -> str:
        if self.missing:
            return f"{self.language}: not installed: {self.missing}"
        wrong = [f"{check.name}: {check.detail}" for check in self.checks if not check.passed]
        return f"{self.language}: {'; '.join(wrong) or 'ok'}"


@cache
def examples(name: str) -> Mapping[str, str]:
    """The programs of the row called `name`, by check. Raises DataError where there are none or one is unknown."""
    path = _FOLDER / f"{name.replace(' ', '-')}.txt"
    if not path.is_file():
        raise DataError(f"language {name!r} has no example programs: {path} is missing")
    _, *rest = re.split(r"^=== (.*)\n", path.read_text(), flags=re.MULTILINE)
    programs = dict(zip(rest[::2], rest[1::2], strict=True))
    if unknown := [title for title in programs if title not in CHECKS]:
        raise DataError(f"{path}: {unknown[0]!r} is no check; there are {', '.join(CHECKS)}")
    return programs


def self_test(sandbox: Sandbox, language: Language) -> LanguageReport:
    """Build and run the row's programs. Raises InfraFailure where the sandbox itself fails, and DataError."""
    programs = examples(language.name)
    bench = Bench(sandbox=sandbox, limits=_LIMITS)
    try:
        checks = tuple(_check(bench, language, name, programs[name]) for name in CHECKS if name in programs)
    except EnvironmentProblem as problem:
        source = f"; Debian has none: {language.archive}" if language.archive else ""
        return LanguageReport(language.name, missing=f"{problem}{source}")
    return LanguageReport(language.name, checks)


def _check(bench: Bench, language: Language, name: str, program: str) -> Check:
    try:
        files = build(bench, language, program)
    except CompileError as error:
        return Check(name, name == "syntax error", f"does not compile: {_line(str(error))}")
    limits = _SHORT if name == "endless loop" else _LIMITS
    result = run(bench, language, files, limits, _NUMBERS if name == "sum" else b"")
    return Check(name, _as_it_should(language, name, result), _ending(result), result.cpu_s)


def _as_it_should(language: Language, name: str, result: RunResult) -> bool:
    said = result.stdout.split()
    if name == "hello":
        return result.ok and said == [b"hello"]
    if name == "sum":
        return result.ok and said == [_TOTAL]
    if name == "endless loop":
        # or by the kernel, which counts a little differently and may be first
        return result.killed_by == "cpu" or result.signal == signal.SIGXCPU
    if result.killed_by is not None:
        return False
    # Where the status does not tell, a complaint on any output does; but the program must not go on as if nothing was.
    failed = not result.ok or (not language.status_tells and bool(result.stderr or len(said) > 1))
    if name == "runtime error":
        return failed and said[:1] == [b"before"]
    return failed and not language.compile and said != [b"hello"]


def _ending(result: RunResult) -> str:
    if result.killed_by is not None:
        how = f"stopped for its {result.killed_by} limit"
    else:
        how = f"status {result.exit_code}" if result.signal is None else f"signal {result.signal}"
    output = _line(result.stdout.decode("utf-8", "replace"))
    complaint = _line(result.stderr.decode("utf-8", "replace"))
    return f"{how}; stdout {output!r}; stderr {complaint!r}"


def _line(text: str) -> str:
    """The beginning of a text, on one line."""
    return " ".join(text.split())[:_DETAIL_CHARACTERS]
