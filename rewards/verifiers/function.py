"""Verifier "function": call the answer's function with arguments, compare what it returns with what is expected.

    {"language": "python", "entry_point": "f", "parameters": [{"name": "xs", "type": "int[]"}], "returns": "int",
     "tests": [{"args": [[1, 2]], "expected": 3}], "limits": {"cpu_s": 2}, "abs_tol": 0, "rel_tol": 0}

Languages are python, c and the rows of `rewards.drivers_rows`; types are int, float, bool, string and those made of
them with `T[]`, `T?` and `map[T]` (`rewards.drivers_types`). In a language with static types the answer's own
parameters say what an argument becomes: any type of integers takes an int that fits it, an array or a list an int[].
C knows int, bool, string and int[] only: `int`, `int` (0 or 1), `const char *` (UTF-8), `const int *xs, int xs_len`;
it returns int or bool.

Arguments go into the box, expected values stay here. A returned value must be of exactly the declared type: True is no
int, 1.0 is none where the language tells them apart, an instance of a subclass is neither (but `collections.Counter`,
`defaultdict` and `OrderedDict` are dicts). Integers are compared exactly, and so are floats where the task names no
tolerance; nan equals nan. No test is skipped: one that reports nothing has failed. Each has a box of its own, or all
have one (`rewards.verifiers.called`).
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from assay.errors import DataError
from assay.types import Task, TestVerdict, Verdict
from rewards import drivers
from rewards.drivers_rows import CALLERS, Caller
from rewards.drivers_types import Fewer, Kind, as_written, fits, fitted, kind_of, same, scalars
from rewards.languages import LANGUAGES, Language, find
from rewards.records import Judge
from rewards.sandbox.base import Limits
from rewards.values import BadValue, decode, parse, parts
from rewards.verifiers.base import Bench, Judged, limits_of, overall, record_of, test_list
from rewards.verifiers.called import Called, judge_calls

_REQUIRED = ("language", "entry_point", "parameters", "returns", "tests")
_TOLERANCES = ("abs_tol", "rel_tol")
_C_TYPES, _C_RETURNS = ("int", "bool", "string", "int[]"), ("int", "bool")
_LANGUAGES = ("python", "c", *CALLERS)
_PYTHON = Caller(driver="driver_python.py", int_bits=0)
_C = Caller(driver="driver_c.c", int_bits=32, nul=False, fewer=Fewer(truth=True))
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
    kinds: tuple[Kind, ...]
    returns: Kind
    tests: tuple[tuple[tuple[Any, ...], Any], ...]
    limits: Mapping[str, float]
    tolerances: Mapping[str, float]

    @property
    def caller(self) -> Caller:
        """What the language tells apart."""
        return {"python": _PYTHON, "c": _C}.get(self.language.name) or CALLERS[self.language.name]


def read(task: Task) -> Signature:
    """The checked signature and tests of a task. Raises DataError naming the task and what is wrong."""
    answer = record_of(task, _REQUIRED, ("limits", *_TOLERANCES))
    language = find(answer["language"])
    if language.name not in _LANGUAGES:
        raise DataError(
            f"task {task.id!r}: functions in {language.name} cannot be called; only {', '.join(_LANGUAGES)}"
        )
    entry = answer["entry_point"]
    reserved = {"c": _C_WORDS, "python": keyword.kwlist}.get(language.name, ("main",))
    if not isinstance(entry, str) or not _NAME.fullmatch(entry) or entry in reserved:
        raise DataError(f"task {task.id!r}: entry_point {entry!r} is not a function name in {language.name}")
    bare = Signature(
        language=language,
        entry_point=entry,
        kinds=tuple(_kind_of(task, language, parameter) for parameter in answer["parameters"]),
        returns=_returns_of(task, language, answer["returns"]),
        tests=(),
        limits=limits_of(task),
        tolerances=_tolerances_of(task),
    )
    tests = tuple(_test_of(f"task {task.id!r}, test {n}", test, bare) for n, test in enumerate(test_list(task)))
    return replace(bare, tests=tests)


class FunctionVerifier:
    """Judges a program by the values one of its functions returns."""

    def check(self, task: Task) -> Language:
        """The language; DataError when the record cannot be judged by."""
        return read(task).language

    def judge(self, task: Task, program: str, bench: Bench) -> Judged:
        """Call the function once per test, each in a box of its own unless the bench says one for all."""
        signature = read(task)
        isolation = str(bench.sandbox.isolation)
        limits = bench.limits_for(signature.limits)
        try:
            called = Called(
                calls=_calls(signature, program, bench, limits),
                tests=_given(signature),
                judges=[_judge(signature, expected) for _, expected in signature.tests],
                limits=limits,
            )
            no_program, tests = judge_calls(bench, called)
        except drivers.CompileError as error:
            no_program, tests = str(error), ()
        if no_program is not None:
            return _not_compiled(len(signature.tests), no_program, isolation)
        verdict, detail = overall(tests)
        if verdict is Verdict.AC:
            detail = next((test.detail for test in tests if test.detail), "")
        return Judged(verdict=verdict, tests=tests, detail=detail, isolation=isolation)


def _calls(signature: Signature, program: str, bench: Bench, limits: Limits) -> drivers.Calls:
    """What calls the answer, which is compiled here and now. Raises CompileError, InfraFailure, EnvironmentProblem."""
    if signature.language is LANGUAGES["c"]:
        types = [str(kind) for kind in signature.kinds]
        return drivers.calls_of_c(bench, limits, program, signature.entry_point, types)
    if signature.language is LANGUAGES["python"]:
        return partial(drivers.call_python, bench, limits, {"answer": program})
    kinds = (signature.returns, *signature.kinds)
    return drivers.calls_of_program(bench, signature.language, limits, program, signature.entry_point, kinds)


def _given(signature: Signature) -> list[Any]:
    """The tests as their driver takes them: argument lists, in Python with the function's name."""
    arguments = [args for args, _ in signature.tests]
    return [(signature.entry_point, args) for args in arguments] if signature.caller is _PYTHON else arguments


def _judge(signature: Signature, expected: Any) -> Judge:
    kind, fewer = signature.returns, signature.caller.fewer
    size = parts(expected)

    def judge(data: bytes) -> bool:
        # a list has no keys, and the item of a list of one is less than the list
        claimed = decode(parse(data), exact=True, expected_parts=size, fewer=fewer.one_container)
        value = fitted(kind, claimed, fewer)
        if signature.language is LANGUAGES["c"] and kind.name == "bool" and type(value) is not bool:
            raise BadValue(f"returned {value} where 0 or 1 is required")
        if not fits(kind, value):
            raise BadValue(f"returned a {type(value).__name__} where {kind} is required")
        return same(value, expected, **signature.tolerances)

    return judge


def _not_compiled(tests: int, message: str, isolation: str) -> Judged:
    each = TestVerdict(verdict=Verdict.CE, detail="no program to run")
    return Judged(verdict=Verdict.CE, tests=(each,) * tests, detail=message, isolation=isolation)


def _kind_of(task: Task, language: Language, parameter: Any) -> Kind:
    kind = kind_of(parameter.get("type")) if isinstance(parameter, Mapping) and "name" in parameter else None
    if kind is None or (language.name == "c" and str(kind) not in _C_TYPES):
        types = ", ".join(_C_TYPES) if language.name == "c" else "int, float, bool, string, T[], T?, map[T]"
        raise DataError(f"task {task.id!r}: parameter {parameter!r} needs a name and one of the types {types}")
    return kind


def _returns_of(task: Task, language: Language, returns: Any) -> Kind:
    kind = kind_of(returns)
    if kind is None or (language.name == "c" and str(kind) not in _C_RETURNS):
        allowed = ", ".join(_C_RETURNS) if language.name == "c" else "int, float, bool, string, T[], T?, map[T]"
        raise DataError(f"task {task.id!r}: {language.name} functions return {allowed}, not {returns!r}")
    return kind


def _tolerances_of(task: Task) -> dict[str, float]:
    given = {key: task.answer[key] for key in _TOLERANCES if key in task.answer}
    if given and "float" not in str(task.answer["returns"]):
        raise DataError(f"task {task.id!r}: {', '.join(given)} goes with floats, not with {task.answer['returns']!r}")
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise DataError(f"task {task.id!r}: {key}={value!r} must be a number that is not negative")
    if given.get("rel_tol", 0) >= 1:
        raise DataError(f"task {task.id!r}: rel_tol={given['rel_tol']} would let 0 pass for anything")
    return given


def _test_of(where: str, test: Any, signature: Signature) -> tuple[tuple[Any, ...], Any]:
    if not isinstance(test, Mapping) or set(test) != {"args", "expected"}:
        raise DataError(f"{where}: a test has exactly the keys args and expected")
    args = test["args"]
    if not isinstance(args, list | tuple) or len(args) != len(signature.kinds):
        raise DataError(f"{where}: args must be a list of {len(signature.kinds)}")
    *given, expected = (
        _value_of(where, kind, value, signature)
        for kind, value in (*zip(signature.kinds, args, strict=True), (signature.returns, test["expected"]))
    )
    return tuple(given), expected


def _value_of(where: str, kind: Kind, value: Any, signature: Signature) -> Any:
    """A value of a record as it is called with or compared. Raises DataError where it is none of its type."""
    name, caller = signature.language.name, signature.caller
    bits = caller.int_bits
    value = as_written(kind, value)
    if not fits(kind, value):
        raise DataError(f"{where}: {value!r} is not of type {kind}")
    if not caller.null_items and type(value) in (list, dict) and None in scalars(value):
        raise DataError(f"{where}: a table in {name} cannot hold a null")
    for item in scalars(value):
        if type(item) is int and bits and not -(2 ** (bits - 1)) <= item < 2 ** (bits - 1):
            raise DataError(f"{where}: {item!r} does not fit a {name.upper() if name == 'c' else name} int")
        if type(item) is str and not caller.nul and "\0" in item:
            raise DataError(f"{where}: a string in {name} cannot hold a NUL")
        if type(item) is str and name != "python" and any("\ud800" <= letter <= "\udfff" for letter in item):
            raise DataError(f"{where}: {item!r} cannot be written as UTF-8")
    return value
