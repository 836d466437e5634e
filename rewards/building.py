"""From the text of an answer to something that runs: compiled in one box, so that only its artefact enters others."""

from __future__ import annotations

from collections.abc import Mapping

from assay.errors import EnvironmentProblem
from rewards.bench import Bench
from rewards.languages import Language
from rewards.precompiled import ensure
from rewards.sandbox.base import PYTHON_FLAGS, Job, Limits, RunResult, Sandbox

_MESSAGE_BYTES = 4000


class CompileError(ValueError):
    """The compiler's complaint about an answer."""


def build(bench: Bench, language: Language, program: str) -> dict[str, bytes]:
    """The files a run of `program` needs. Raises CompileError, InfraFailure, EnvironmentProblem."""
    source = {language.source: program.encode("utf-8", "replace")}
    require(bench.sandbox, language)
    if not language.compile:
        return source
    return {language.artefact: compile_in_box(bench, language, language.compile_argv(), source, language.artefact)}


def run(bench: Bench, language: Language, files: Mapping[str, bytes], limits: Limits, stdin: bytes = b"") -> RunResult:
    """One run of what `build` made, in a fresh box, under a test's `limits`."""
    argv = language.run_argv(python=bench.sandbox.python)
    return bench.sandbox.run(
        Job(
            argv=argv,
            files=files,
            stdin=stdin,
            limits=language.limits(limits),
            warm=argv[:-1] == (bench.sandbox.python, *PYTHON_FLAGS),
        )
    )


def _use_precompiled(bench: Bench, language: Language, files: Mapping[str, bytes]) -> None:
    """Have the row's precompiled header made once, when the first program comes that includes it."""
    key, header = ("precompiled", language.name), language.precompiled.encode()
    if header and key not in bench.kept and any(header in data for data in files.values()):
        bench.kept[key] = ensure(bench.sandbox, language) or None
        if bench.kept[key] is None:  # another worker is at it: asked again with the next program
            del bench.kept[key]


def compile_in_box(
    bench: Bench, language: Language, argv: tuple[str, ...], files: Mapping[str, bytes], artefact: str
) -> bytes:
    """Run a compiler and return the artefact it wrote. Raises as `build` does."""
    require(bench.sandbox, language)
    _use_precompiled(bench, language, files)
    job = Job(argv=argv, files=files, limits=language.compile_limits, collect=(artefact,))
    run = bench.sandbox.run(job)
    if run.killed_by == "wall":  # a machine in trouble, or an answer that makes the compiler wait: once may be chance
        run = bench.sandbox.run(job)
    message = (run.stderr or run.stdout)[:_MESSAGE_BYTES].decode("utf-8", "replace")
    if run.killed_by is not None:
        raise CompileError(f"the compiler used too much ({run.killed_by}): {message}")
    if not run.ok or artefact not in run.files:
        raise CompileError(message or f"the compiler ended with {run.exit_code} (signal {run.signal})")
    return run.files[artefact]


def require(sandbox: Sandbox, language: Language) -> None:
    """Raises EnvironmentProblem, saying what to install, where a tool of the language is missing."""
    missing = [tool for tool in language.tools if not sandbox.has(tool)]
    if missing:
        install = f" ({language.install})" if language.install else ""
        raise EnvironmentProblem(f"{missing[0]} is not installed; answers in {language.name} need it{install}")
