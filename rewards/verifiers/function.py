"""Verifier "function": call the answer's function with arguments, compare what it returns with what is expected.

    {"language": "python", "entry_point": "f", "parameters": [{"name": "xs", "type": "int[]"}], "returns": "int",
     "tests": [{"args": [[1, 2]], "expected": 3}], "limits": {"cpu_s": 2}}

Types are int, bool, string and int[]. In C an int is `int`, a bool is `int` (0 or 1), a string is `const char *`
(UTF-8), an int[] is `const int *xs, int xs_len`; C returns int or bool. Arguments go into the box, expected values
stay here. A returned value must be of exactly the declared type: True is no int, an instance of a subclass is
neither. Numbers are compared exactly, and no test is skipped: one that reports nothing has failed.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.errors import DataError
from assay.types import Task, TestVerdict, Verdict
from rewards import drivers
from rewards.languages import LANGUAGES, Language, find
from rewards.records import Judge, verdicts
from rewards.values import BadValue, decode, parse, parts
from rewards.verifiers.base import Bench, Judged, limits_of, overall, record_of, test_list

_REQUIRED = ("language", "entry_point", "parameters", "returns", "tests")
_TYPES = ("int", "bool", "string", "int[]")
_RETURNS = {"python": _TYPES, "c": ("int", "bool")}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_C_WORDS = frozenset(
    (
        *("auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern"),
        *("float", "for", "goto", "if", "inline", "int", "long", "main", "register", "restrict", "return", "short"),
        *(
            "signed",
            "sizeof",
            "static",
            "struct",
            "switch",
            "typedef",
            "union",
            "unsigned",
            "void",
            "volatile",
            "while",
        ),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A task's answer record, checked. `tests` pairs argument lists with expected values."""

    language: Language
    entry_point: str
    types: tuple[str, ...]
    returns: str
    tests: tuple[tuple[tuple[Any, ...], Any], ...]
    limits: Mapping[str, float]


def read(task: Task) -> Signature:
    """The checked signature and tests of a task. Raises DataError naming the task and what is wrong."""
    answer = record_of(task, _REQUIRED, ("limits",))
    language = find(answer["language"])
    if language.name not in _RETURNS:
        raise DataError(f"task {task.id!r}: functions in {language.name} cannot be called; only {', '.join(_RETURNS)}")
    entry = answer["entry_point"]
    reserved = _C_WORDS if language.name == "c" else keyword.kwlist
    if not isinstance(entry, str) or not _NAME.fullmatch(entry) or entry in reserved:
        raise DataError(f"task {task.id!r}: entry_point {entry!r} is not a function name in {language.name}")
    types = tuple(_type_of(task, parameter) for parameter in answer["parameters"])
    returns = answer["returns"]
    if returns not in _RETURNS[language.name]:
        allowed = ", ".join(_RETURNS[language.name])
        raise DataError(f"task {task.id!r}: {language.name} functions return {allowed}, not {returns!r}")
    tests = tuple(_test_of(task, number, test, types, returns, language) for number, test in enumerate(test_list(task)))
    return Signature(
        language=language, entry_point=entry, types=types, returns=returns, tests=tests, limits=limits_of(task)
    )


class FunctionVerifier:
    """Judges a program by the values one of its functions returns."""

    def check(self, task: Task) -> Language:
        """The language; DataError when the record cannot be judged by."""
        return read(task).language

    def judge(self, task: Task, program: str, bench: Bench) -> Judged:
        """Call the function once per test, all in one box."""
        signature = read(task)
        limits = bench.limits_for(signature.limits)
        isolation = str(bench.sandbox.isolation)
        arguments = [args for args, _ in signature.tests]
        if signature.language is LANGUAGES["c"]:
            try:
                run, report = drivers.call_c(bench, limits, program, signature.entry_point, signature.types, arguments)
            except drivers.CompileError as error:
                return _not_compiled(len(arguments), str(error), isolation)
        else:
            calls = [(signature.entry_point, args) for args in arguments]
            run, report = drivers.call_python(bench, limits, {"answer": program}, calls)
        if report.no_program is not None:
            return _not_compiled(len(arguments), report.no_program, isolation)
        judges = [_judge(signature, expected) for _, expected in signature.tests]
        tests = verdicts(run, report, judges)
        verdict, detail = overall(tests)
        return Judged(verdict=verdict, tests=tests, detail=detail, isolation=isolation)


def _judge(signature: Signature, expected: Any) -> Judge:
    as_c_bool = signature.language is LANGUAGES["c"] and signature.returns == "bool"

    def judge(data: bytes) -> bool:
        value = decode(parse(data), exact=True, expected_parts=parts(expected))
        if as_c_bool:
            if value not in (0, 1):
                raise BadValue(f"returned {value} where 0 or 1 is required")
            value = value == 1
        if not _is_of(signature.returns, value):
            raise BadValue(f"returned a {type(value).__name__} where {signature.returns} is required")
        return value == expected

    return judge


def _not_compiled(tests: int, message: str, isolation: str) -> Judged:
    each = TestVerdict(verdict=Verdict.CE, detail="no program to run")
    return Judged(verdict=Verdict.CE, tests=(each,) * tests, detail=message, isolation=isolation)


def _is_of(kind: str, value: Any) -> bool:
    if kind == "int[]":
        return type(value) is list and all(type(item) is int for item in value)
    return type(value) is {"int": int, "bool": bool, "string": str}[kind]


def _type_of(task: Task, parameter: Any) -> str:
    if not isinstance(parameter, Mapping) or parameter.get("type") not in _TYPES or "name" not in parameter:
        raise DataError(
            f"task {task.id!r}: parameter {parameter!r} needs a name and one of the types {', '.join(_TYPES)}"
        )
    return parameter["type"]


def _test_of(
    task: Task, number: int, test: Any, types: tuple[str, ...], returns: str, language: Language
) -> tuple[tuple[Any, ...], Any]:
    where = f"task {task.id!r}, test {number}"
    if not isinstance(test, Mapping) or set(test) != {"args", "expected"}:
        raise DataError(f"{where}: a test has exactly the keys args and expected")
    args = test["args"]
    if not isinstance(args, list | tuple) or len(args) != len(types):
        raise DataError(f"{where}: args must be a list of {len(types)}")
    for kind, value in (*zip(types, args, strict=True), (returns, test["expected"])):
        value = list(value) if kind == "int[]" and isinstance(value, tuple) else value
        if not _is_of(kind, value):
            raise DataError(f"{where}: {value!r} is not of type {kind}")
        if language is LANGUAGES["c"]:
            _require_c(where, kind, value)
    expected = list(test["expected"]) if returns == "int[]" else test["expected"]
    return tuple(list(arg) if kind == "int[]" else arg for kind, arg in zip(types, args, strict=True)), expected


def _require_c(where: str, kind: str, value: Any) -> None:
    numbers = value if kind == "int[]" else [value] if kind == "int" else []
    if any(not -(2**31) <= item < 2**31 for item in numbers):
        raise DataError(f"{where}: {value!r} does not fit a C int")
    if kind == "string" and "\0" in value:
        raise DataError(f"{where}: a C string cannot hold a NUL")
