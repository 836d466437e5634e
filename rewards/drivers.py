"""The host's half of the drivers: what goes into a box to have an answer called, and how an answer is built for that.

No expected value passes through here.
"""

from __future__ import annotations

import importlib.util
import marshal
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from assay.errors import InfraFailure
from rewards.building import CompileError, compile_in_box, require
from rewards.drivers_rows import CALLERS, Caller
from rewards.drivers_types import Kind, tokens_of
from rewards.languages import ARTEFACT, LANGUAGES, Language, interpreter
from rewards.records import Report, read_report, require_start
from rewards.rewriting import replaced
from rewards.sandbox.base import PYTHON_FLAGS, Job, Limits, RunResult
from rewards.verifiers.base import Bench, whole
from rewards.verifiers.harness_row import macros

#: Runs tests one after another in one fresh box.
Calls = Callable[[Sequence[Any]], tuple[RunResult, Report]]

_HERE = Path(__file__).resolve().parent / "sandbox"
_C = LANGUAGES["c"]
_APART = "driver"  #: a driver that is compiled by itself, in the box of a run
_C_CALLED = "assay_call_the_answer"
#: type -> what it is in C; an array is followed by its length
C_TYPES = {"int": "int", "bool": "int", "string": "const char *", "int[]": "const int *"}


def call_python(
    bench: Bench,
    limits: Limits,
    parts: Mapping[str, str],
    tests: Sequence[Any],
    files: Mapping[str, bytes] | None = None,
) -> tuple[RunResult, Report]:
    """Run `tests` against an answer in Python, each in a fresh child.

    `parts` holds the sources prelude, answer and setup, run in this order in one namespace. A test is an expression,
    or a tuple (function name, arguments). `files` lie in the working folder. Raises InfraFailure when the driver did
    not start.
    """
    job = {"prelude": "", "setup": "", **parts, "tests": list(tests), "argv": ()}
    return _driven(bench, limits, job, files or {}, whole(limits, len(tests)))


def calls_of_c(bench: Bench, limits: Limits, program: str, entry: str, types: Sequence[str]) -> Calls:
    """Compile an answer in C; what calls `entry` with argument lists, in one box, each in a fresh child.

    The driver is compiled by itself, once per signature, and linked: macros of the answer never touch it. Behind the
    answer stands a function of ours, so that the answer's own declaration says how it is called: what it takes as
    `long` is not passed as `int`, and of a wide integer it returns nothing is cut. A `main` the answer has is renamed.
    Raises CompileError, InfraFailure, EnvironmentProblem where there is no compiler.
    """
    driver = bench.keep(("driver_c", tuple(types)), lambda: _compile_driver(bench, types))
    artefact = compile_in_box(
        bench,
        _C,
        _C.compile_argv(flags=("-Dmain=main_of_the_answer",), objects=("driver.o",)),
        {_C.source: (program + _c_after(program, entry, types)).encode("utf-8", "replace"), "driver.o": driver},
        ARTEFACT,
    )

    def call(tests: Sequence[Sequence[Any]]) -> tuple[RunResult, Report]:
        stdin, box = _packed(bench, limits, types, tests), whole(limits, len(tests))
        run = bench.sandbox.run(Job(argv=_C.run_argv(), files={ARTEFACT: artefact}, stdin=stdin, limits=box))
        return run, read_report(run.stdout)

    return call


def calls_of_program(
    bench: Bench, language: Language, limits: Limits, program: str, entry: str, kinds: Sequence[Kind]
) -> Calls:
    """Compile an answer in a language of `CALLERS`; what calls `entry` with argument lists, each in a process.

    `kinds` are what it returns and those of its parameters.
    Raises CompileError, EnvironmentProblem where a tool is missing; a call InfraFailure when the driver did not start.
    """
    caller = CALLERS[language.name]
    files, argv, loaded = _prepared(bench, language, caller, program, entry, tuple(kinds))
    argv = (*argv, *(map(str, kinds) if caller.told else ()))
    each = language.limits(limits)

    def call(tests: Sequence[Sequence[Any]]) -> tuple[RunResult, Report]:
        heads = ((loaded, entry, str(len(test))) for test in tests)
        tails = ([token for value in test for token in tokens_of(value)] for test in tests)
        given = ["\n".join((*head, *tail, "")).encode() for head, tail in zip(heads, tails, strict=True)]
        return _driven(bench, each, {"argv": argv, "tests": given}, files, whole(each, len(tests)))

    return call


def _prepared(
    bench: Bench, language: Language, caller: Caller, program: str, entry: str, kinds: tuple[Kind, ...]
) -> tuple[dict[str, bytes], tuple[str, ...], str]:
    """The files and the command of one call, and the file in which the driver finds the answer."""
    require(bench.sandbox, language)
    types = caller.types(program, entry, kinds[1:]) if caller.types else ""
    after = caller.after.replace("@ENTRY@", entry).replace("@TYPES@", types)
    text = caller.before + rewritten(caller, program) + after
    header = f"#include <{language.precompiled}>" if language.precompiled else ""
    if header and header in program:  # what is precompiled is taken where it is the first
        text = f"{header}\n" + replaced(re.escape(header), "", text, caller.kept)
    driver = (_HERE / caller.driver).read_bytes()
    name, content = language.source, text.encode("utf-8", "replace")
    if language.compile:
        given = {name: content, **({caller.driver: driver} if caller.way == "beside" else {})}
        argv = language.compile_argv(flags=caller.flags, objects=caller.objects)
        name, content = language.artefact, compile_in_box(bench, language, argv, given, language.artefact)
    files = {name: content}
    if caller.way == "apart":
        files[_APART] = bench.keep(("driver", caller.driver), lambda: _compile_apart(bench, caller, driver))
    elif caller.way == "loads":
        files[caller.driver] = driver
        language = replace(language, file=caller.driver, artefact=caller.driver)
    return files, replace(language, run=caller.run or language.run).run_argv(), name


def rewritten(caller: Caller, program: str) -> str:
    """The answer as it is compiled or loaded: changed by the row's rules, outside of its comments and texts."""
    for pattern, instead in caller.rewrite:
        program = replaced(pattern, instead, program, caller.kept)
    return program


def _compile_apart(bench: Bench, caller: Caller, driver: bytes) -> bytes:
    row = replace(LANGUAGES[caller.written_in], file=caller.driver, artefact=_APART)
    try:
        return compile_in_box(bench, row, row.compile_argv(), {row.source: driver}, _APART)
    except CompileError as error:
        raise InfraFailure(f"our own driver {caller.driver} does not compile: {error}") from None


def _driven(
    bench: Bench, limits: Limits, job: dict[str, Any], files: Mapping[str, bytes], box: Limits
) -> tuple[RunResult, Report]:
    """Run driver_python.py on a job, each test under `limits`. Raises InfraFailure when it did not start."""
    job = {
        **job,
        "cpu_s": limits.cpu_s,
        "wall_s": limits.wall_s,
        "value_bytes": bench.value_bytes,
        "stop_on_timeout": bench.stop_on_timeout,
        "alone": "pid" in bench.sandbox.isolation.features,
    }
    name, driver = bench.keep("driver_python", lambda: _python_driver(bench.sandbox.python))
    run = bench.sandbox.run(
        Job(
            argv=(bench.sandbox.python, *PYTHON_FLAGS, name),
            warm=True,
            files={**files, name: driver},
            stdin=ascii(job).encode(),
            limits=box,
        )
    )
    report = read_report(run.stdout)
    require_start(run, report)
    return run, report


def _python_driver(python: str) -> tuple[str, bytes]:
    """The driver's file name and content: byte code where the box has the Python running here, saving 5 ms a box."""
    source = (_HERE / "driver_python.py").read_bytes()
    if python != interpreter():
        return "driver.py", source
    code = compile(source, "driver", "exec", dont_inherit=True)
    return "driver.pyc", importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def _compile_driver(bench: Bench, types: Sequence[str]) -> bytes:
    source = (_HERE / "driver_c.c").read_text() + _call_shim(types)
    flags = ("-O1", "-std=gnu17", "-ffreestanding", "-fno-stack-protector", "-c", "-o", "driver.o", "driver.c")
    try:
        return compile_in_box(bench, _C, (_C.compile[0], *flags), {"driver.c": source.encode()}, "driver.o")
    except CompileError as error:
        raise InfraFailure(f"our own C driver does not compile: {error}") from None


def _c_after(program: str, entry: str, types: Sequence[str]) -> str:
    """What stands behind an answer in C (once, where it includes itself): the function that the driver calls."""
    undefined = "".join(f"#undef {macro}\n" for macro in macros(program))
    declared = ", ".join(
        f"{C_TYPES[kind]} a{n}" + (f", int n{n}" if kind == "int[]" else "") for n, kind in enumerate(types)
    )
    call = f"{entry}({', '.join(f'a{n}, n{n}' if kind == 'int[]' else f'a{n}' for n, kind in enumerate(types))})"
    return f"""
/* */
;
#if __INCLUDE_LEVEL__ == 0
{undefined}#pragma GCC diagnostic error "-Wincompatible-pointer-types"
#pragma GCC diagnostic error "-Wint-conversion"
__int128 {_C_CALLED}({declared or "void"}) {{
    _Static_assert(_Generic({call}, float: 0, double: 0, long double: 0, default: 1), "{entry} returns a float");
    return {call};
}}
#endif
"""


def _call_shim(types: Sequence[str]) -> str:
    """C that unpacks one argument list and calls the function behind the answer."""
    declared, loads, passed = [], [], []
    for n, kind in enumerate(types):
        declared.append(C_TYPES[kind] + (", int" if kind == "int[]" else ""))
        if kind in ("int", "bool"):
            loads.append(f"    int a{n} = (int)*at++;\n")
        else:
            step = f"(n{n} + 1) / 2" if kind == "int[]" else f"(n{n} + 8) / 8"
            loads.append(
                f"    long long n{n} = *at++;\n    {C_TYPES[kind]}a{n} = (const void *)at;\n    at += {step};\n"
            )
        passed.append(f"a{n}" + (f", (int)n{n}" if kind == "int[]" else ""))
    return (
        f"\nextern __int128 {_C_CALLED}({', '.join(declared) or 'void'});\n"
        f"static __int128 assay_call(const long long *at) {{\n{''.join(loads)}    (void)at;\n"
        f"    return {_C_CALLED}({', '.join(passed)});\n}}\n"
    )


def _packed(bench: Bench, limits: Limits, types: Sequence[str], tests: Sequence[Sequence[Any]]) -> bytes:
    """The words that `main` in driver_c.c reads."""
    alone = "pid" in bench.sandbox.isolation.features
    head = (int(limits.cpu_s * 1e6), int(limits.wall_s * 1e6), alone, bench.stop_on_timeout, len(tests))
    body = []
    for arguments in tests:
        packed = b"".join(_pack_argument(kind, value) for kind, value in zip(types, arguments, strict=True))
        body.append(struct.pack("=q", len(packed) // 8) + packed)
    rest = struct.pack("=5q", *head) + b"".join(body)
    return struct.pack("=q", 1 + len(rest) // 8) + rest


def _pack_argument(kind: str, value: Any) -> bytes:
    if kind in ("int", "bool"):
        return struct.pack("=q", value)
    if kind == "int[]":
        data = struct.pack(f"={len(value)}i", *value)
        return struct.pack("=q", len(value)) + data + b"\0" * (-len(data) % 8)
    text = value.encode("utf-8")
    return struct.pack("=q", len(text)) + text + b"\0" * (8 - len(text) % 8)
