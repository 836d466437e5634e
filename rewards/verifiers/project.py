"""Verifier "project": an answer of one or several files, judged by the task's own test files in their framework.

    {"language": "c", "files": ["acronym.c", "acronym.h"],
     "given": {"test_acronym.c": "...", "test-framework/unity.c": "...", "test-framework/unity.h": "..."},
     "build": ["/usr/bin/gcc", "-o", "tests.out", "test-framework/unity.c", "acronym.c", "test_acronym.c"],
     "artefact": "tests.out", "run": ["./tests.out"], "report": "unity", "limits": {"cpu_s": 2}}

    files      the paths the answer is made of; for one see `rewards.extract.file_of`, where there are several each
               block names its own (see `rewards.extract.files_of`); one that is missing is a refusal
    given      path -> text of all others; an answer has no way to replace one of these
    language   a name, or a list of them, of which the first is that of the tests
    build, run argument lists for a box with these files in it; no shell unless you write one. {python} is the
               interpreter of programs. With `build` only the file `artefact` and the paths of `beside` are there to run
    report     a row of `rewards.verifiers.project_rows.FRAMEWORKS`
    test_files those of `given` that hold tests; by default those in which the framework finds any
    tests      how many there are, where they cannot be counted in the text

What is demanded of a framework, so that neither leaving early nor a printed report is a pass:

    exit      status 0, for runners that start the answer as a process of its own. Where the answer's code shares a
              process with them, `exit(0)` would win: a runner whose text loads the answer is refused as data, and so is
              a task that is passed by an answer that does nothing else, or does it in front of the reference. The
              given files cannot be written, moved or removed while it runs, which tier "local" alone can see to; on
              others such a task is refused
    unity     the tests' `main` is called by ours, which has taken a token from standard input before anything of the
              answer ran, reads Unity's counts, and writes both by system calls; names of Unity's are drawn for the run,
              so the answer cannot reach its counts. One process, for one that forks could try every value. The answer
              is preprocessed and compiled in boxes without the tests (`rewards.verifiers.project_unity`): of a header
              the tests read what was judged, word for word; an object has only ordinary sections and no symbol of
              the C library's, and assembly and what shows callers' frames are refused. So `build` calls gcc or clang
              itself, sanitizers and profiles (which bring constructors) are out, and a header is read by itself
    bats      a box for every test, so none finds what an earlier one left; its file is gone before the answer runs,
              and a token is written behind the last line of the test. What tests source runs in another bash, and only
              values come back, see `project_bats`
    unittest  as "unit_tests" in Python, with the files beside; every comparison is asked who makes it. When the answer
              has been loaded, given files and modules are put back (see `rewards.verifiers.project_python`)
    minitest  as "unit_tests" in Ruby (see `rewards.verifiers.harness_ruby`); tests are run one by one, and the token is
              written behind the last

A skipped or ignored test has not run; a record whose tests say so themselves is refused. As many tests must have run as
the files of tests have.

What remains: tests and answer share a process in unity, unittest and minitest; else they share a user. An answer that
sets out to search memory can find the token or what is expected. In C it can read both in /proc/self (the program's own
file holds what is expected), write over its callers' frames from the address of a variable of its own, so as to return
behind a test, and be called by the C library while Unity prints a failure (a stream or a signal handler of its own). A
macro of its header can be a variable's name in the tests. A bats test that gives output to arithmetic (`(( ))`,
`[[ $output -eq 5 ]]`) or to `eval` runs it. For "exit": a runner that loads the answer by a name it puts together, and
looks into it first, where the task has no reference; one that loads modules from its folder after the answer ran, which
may have put new ones there. Under unittest a function of the answer's, when tests call it, may still write given files
or patch `unittest` and given modules for what comes after; and a class of a given module that itself imports the answer
is not the one that the answer imported. Every accepted test says COMPARED_INSIDE.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.errors import DataError, EnvironmentProblem
from assay.types import Task, TestVerdict, Verdict
from rewards import building
from rewards.bench import Bench
from rewards.extract import NoProgram, as_answer, file_of, files_of
from rewards.languages import Language, find
from rewards.sandbox.base import Job, KilledBy, Limits, RunResult
from rewards.verifiers import project_exit, project_unity, unit_python
from rewards.verifiers.asserts import COMPARED_INSIDE
from rewards.verifiers.base import Judged, limits_of, one_by_one, overall, record_of
from rewards.verifiers.project_python import module_of, sorted_out
from rewards.verifiers.project_rows import FRAMEWORKS, Framework, Secret, Texts
from rewards.verifiers.stdio import failure_of, last_words

_REQUIRED = ("language", "files", "given", "report")
_OPTIONAL = ("run", "build", "artefact", "beside", "test_files", "tests", "limits")
_PATH = re.compile(r"(?!-)(?!(?:[^/]*/)*\.\.?(?:/|$))[\w.+-]+(?:/[\w.+-]+)*")
_SHOWN_BYTES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A task's answer record, checked."""

    languages: tuple[Language, ...]
    files: tuple[str, ...]
    given: Mapping[str, str]
    build: tuple[str, ...]
    artefact: str
    beside: tuple[str, ...]
    run: tuple[str, ...]
    framework: Framework
    report: str
    test_files: tuple[str, ...]
    tests: int
    limits: Mapping[str, float]

    @property
    def language(self) -> Language:
        """That of the tests."""
        return self.languages[0]


def read(task: Task) -> Plan:
    """The checked record of a task. Raises DataError naming the task and what is wrong."""
    answer = record_of(task, _REQUIRED, _OPTIONAL)
    where = f"task {task.id!r}"
    names = answer["language"] if isinstance(answer["language"], list | tuple) else [answer["language"]]
    given, files = answer["given"], _texts(where, "files", answer["files"])
    if not isinstance(given, Mapping) or not all(isinstance(text, str) for pair in given.items() for text in pair):
        raise DataError(f"{where}: given must map paths to texts")
    _check_paths(where, (*files, *given))
    if answer["report"] not in FRAMEWORKS:
        raise DataError(f"{where}: no report {answer['report']!r}; there are {', '.join(FRAMEWORKS)}")
    framework = FRAMEWORKS[answer["report"]]
    build = _texts(where, "build", answer["build"]) if "build" in answer else ()
    if bool(build) != ("artefact" in answer):
        raise DataError(f"{where}: `build` and `artefact`, the file it makes, go together")
    beside = _texts(where, "beside", answer["beside"]) if "beside" in answer else ()
    plan = Plan(
        languages=tuple(find(_text(where, "language", name)) for name in names),
        files=files,
        given=given,
        build=build,
        artefact=_text(where, "artefact", answer.get("artefact", "")),
        beside=beside,
        run=_texts(where, "run", answer["run"]) if "run" in answer else (),
        framework=framework,
        report=answer["report"],
        test_files=_test_files(where, framework, answer),
        tests=0,
        limits=limits_of(task),
    )
    _check(where, plan)
    return replace(plan, tests=_count(where, plan, answer.get("tests")))


class ProjectVerifier:
    """Judges the files of an answer by the test files of its task."""

    def check(self, task: Task) -> Language:
        """The language of the tests; DataError when the record cannot be judged by."""
        plan = read(task)
        _parts(f"task {task.id!r}", plan, Secret(*("0" * 16, "0" * 32, "0" * 32)))
        return plan.language

    def probe(self, task: Task, bench: Bench) -> None:
        """Raises DataError where the status of a run, report "exit", says nothing."""
        plan = read(task)
        if plan.report == "exit":
            _require(bench, plan)
            bench.keep(("project", task.id, repr(task.answer)), lambda: self._probe(task, plan, bench))

    def extract(self, task: Task, text: str, *, whole_text: bool) -> str:
        """The answer's files as one text, which `judge` takes. Raises NoProgram with the name of a missing one."""
        plan = read(task)
        if len(plan.files) == 1:
            found = file_of(text, plan.files[0], tuple(plan.given), plan.languages)
            if found is None and whole_text and text.strip():
                return text
            if found is None:
                raise NoProgram(f"no program: no block holds {plan.files[0]}")
            return found
        files = files_of(text, plan.files)
        missing = [path for path in plan.files if path not in files]
        if missing:
            raise NoProgram(f"no program: no block names {', '.join(missing)}")
        return as_answer({path: files[path] for path in plan.files})

    def judge(self, task: Task, program: str, bench: Bench) -> Judged:
        """Build the answer beside the tests, run them, read their report."""
        plan = read(task)
        files = {plan.files[0]: program} if len(plan.files) == 1 else files_of(program, plan.files)
        _require(bench, plan)
        isolation = str(bench.sandbox.isolation)
        self.probe(task, bench)
        count = plan.tests if plan.framework.apart else 1
        try:
            tests = _judge(f"task {task.id!r}", plan, files, bench)
        except building.CompileError as error:
            return _no_program(str(error), count, isolation)
        verdict, detail = overall(tests)
        return Judged(verdict=verdict, tests=tests, detail=detail, isolation=isolation)

    def _probe(self, task: Task, plan: Plan, bench: Bench) -> bool:
        try:
            text = self.extract(task, task.reference, whole_text=True) if task.reference else ""
        except NoProgram:
            text = ""
        whole = {plan.files[0]: text} if len(plan.files) == 1 else files_of(text, plan.files)
        return _probe(f"task {task.id!r}", plan, bench, whole if text else None)


def _no_program(complaint: str, count: int, isolation: str) -> Judged:
    each = TestVerdict(verdict=Verdict.CE, detail="no program to run")
    return Judged(verdict=Verdict.CE, tests=(each,) * count, detail=complaint, isolation=isolation)


def _judge(where: str, plan: Plan, files: Mapping[str, str], bench: Bench) -> tuple[TestVerdict, ...]:
    if plan.report == "unittest":
        paths = plan.test_files
        return one_by_one(bench, len(paths), lambda number: _judge_python(where, plan, files, bench, paths[number]))
    framework = plan.framework
    secret = Secret(secrets.token_hex(8), secrets.token_hex(16), secrets.token_hex(16))
    parts = _parts(where, plan, secret)
    limits = _limits(plan, bench)
    each = 1 if framework.apart else plan.tests
    build, own = _filled(plan.build, bench), _bytes(files)
    if framework.words is not None:
        words = framework.words(plan.given, plan.test_files)
        build, own = project_unity.alone(bench, plan.language, build, files, words)

    def one(number: int) -> TestVerdict:
        box = _built(bench, plan, build, {**own, **_bytes(parts[number])})
        job = Job(
            argv=_filled(plan.run, bench),
            files=box,
            fixed=tuple(path for path in box if path not in plan.files) if plan.report == "exit" else (),
            stdin=secret.tail.encode() if framework.reads_token else b"",
            limits=limits,
        )
        run = bench.sandbox.run(job)
        if run.killed_by is KilledBy.WALL:  # the machine may have been busy: once may be chance
            run = bench.sandbox.run(job)
        return _verdict(run, plan, secret, each)

    return one_by_one(bench, len(parts), one)


def _parts(where: str, plan: Plan, secret: Secret) -> list[Texts]:
    """The given files of each run. Raises DataError where the framework cannot make them of these."""
    try:
        return plan.framework.parts(plan.given, plan.test_files, plan.files, secret)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _verdict(run: RunResult, plan: Plan, secret: Secret, tests: int) -> TestVerdict:
    verdict, detail = failure_of(run, plan.language) or (Verdict.AC, "")
    what = plan.framework.passed(run.stdout, secret, tests)
    said = " ".join(run.stdout[-_SHOWN_BYTES:].decode("utf-8", "replace").split())[-300:]
    if verdict is Verdict.RE and run.exit_code is not None:
        # runners say by their status that tests failed; a program that ended them has left no report of that
        told = bool(what) and not what.startswith("left")
        if told or plan.report == "exit" or b"Failure:" in run.stderr:
            verdict = Verdict.WA
        detail = what if told else detail if run.stderr else f"{detail}: {said}"
    elif verdict is Verdict.AC and what:
        verdict, detail = Verdict.WA, f"{what}{last_words(run)}"
    return TestVerdict(
        verdict=verdict,
        cpu_s=run.cpu_s,
        wall_s=run.wall_s,
        memory_bytes=run.memory_bytes,
        detail=COMPARED_INSIDE if verdict is Verdict.AC else detail,
    )


def _judge_python(where: str, plan: Plan, files: Mapping[str, str], bench: Bench, path: str) -> TestVerdict:
    """`unittest`: a file of tests is taken apart on the host and runs after the answer's modules were loaded."""
    tests = unit_python.prepare(f"{where}, {path}", plan.given[path], module="", entry_point="")
    beside = {each: text for each, text in plan.given.items() if each != path}
    library, given = sorted_out(plan.given[path], beside, plan.files)
    tests = replace(tests, modules=library)
    program = "".join(f"from {module_of(each)} import *\n" for each in files if each.endswith(".py"))
    box = {each: text.encode("utf-8", "replace") for each, text in {**beside, **files}.items()}
    complaint, found = unit_python.judge(bench, _limits(plan, bench), program, tests, "", files=box, given=given)
    if complaint is not None:
        raise building.CompileError(complaint)
    return replace(found, detail=COMPARED_INSIDE) if found.verdict is Verdict.AC else found


def _bytes(texts: Mapping[str, str]) -> dict[str, bytes]:
    return {path: text.encode("utf-8", "replace") for path, text in texts.items()}


def _built(bench: Bench, plan: Plan, build: tuple[str, ...], sources: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a run. Raises CompileError."""
    if not build:
        return sources
    artefact = building.compile_in_box(bench, plan.language, build, sources, plan.artefact)
    return {**{path: sources[path] for path in plan.beside}, plan.artefact: artefact}


def _probe(where: str, plan: Plan, bench: Bench, reference: Mapping[str, str] | None) -> bool:
    """Raises DataError where an answer that only leaves with status 0 passes: the status says nothing there."""
    built = False
    for files in project_exit.leaving(plan.files, reference):
        try:
            tests = _judge(where, plan, files, bench)
        except building.CompileError:
            continue
        built = True
        if overall(tests)[0] is Verdict.AC:
            raise DataError(f"{where}: an answer that only leaves with status 0 passes, so the status says nothing")
    if not built:
        raise DataError(f"{where}: no answer that only leaves can be built, so nobody knows what the status says")
    return True


def _limits(plan: Plan, bench: Bench) -> Limits:
    limits, framework = plan.language.limits(bench.limits_for(plan.limits)), plan.framework
    processes = limits.processes if "processes" in plan.limits else framework.processes or limits.processes
    return replace(
        limits,
        cpu_s=limits.cpu_s + framework.start_cpu_s,
        wall_s=limits.wall_s + 2 * framework.start_cpu_s,
        processes=processes + framework.beside,
    )


def _filled(argv: Sequence[str], bench: Bench) -> tuple[str, ...]:
    return tuple(argument.replace("{python}", bench.sandbox.python) for argument in argv)


def _require(bench: Bench, plan: Plan) -> None:
    """Raises EnvironmentProblem, saying what to install, where a tool is missing."""
    for language in plan.languages:
        building.require(bench.sandbox, language)
    tier = bench.sandbox.isolation.tier
    if plan.report == "exit" and tier != "local":
        raise EnvironmentProblem(
            f"report 'exit' believes the task's own files, which an answer can rewrite on tier {tier!r}: set "
            "rewards.sandbox.tier=local for such tasks, or use a framework's report"
        )
    tool, install = plan.framework.tool, plan.framework.install
    if tool and not bench.sandbox.has(tool):
        raise EnvironmentProblem(f"{tool} is not installed; report {plan.report!r} needs it ({install})")
    for argument in (*plan.build[:1], *plan.run[:1]):
        if argument.startswith("/") and not bench.sandbox.has(argument):
            raise EnvironmentProblem(f"{argument} is not installed; the task's own command needs it")


def _check(where: str, plan: Plan) -> None:
    """What has to fit together in a record. Raises DataError."""
    if (plan.report == "unittest") == bool(plan.run) or (plan.report == "unittest" and plan.build):
        raise DataError(f"{where}: `run` says how tests are run; only unittest's are run by a driver of ours")
    language = plan.framework.language
    if language and plan.language.name != language:
        raise DataError(f"{where}: report {plan.report!r} is for tests in {language}, not in {plan.language.name}")
    if plan.framework.words is not None and (wrong := project_unity.check_build(plan.build, plan.files)):
        raise DataError(f"{where}: {wrong}")
    paths = {*plan.files, *plan.given}
    for path in (*plan.beside, *plan.test_files):
        if path not in plan.given:
            raise DataError(f"{where}: {path!r} is not in `given`")
    if plan.artefact and (plan.artefact in paths or "/" in plan.artefact or not _PATH.fullmatch(plan.artefact)):
        raise DataError(f"{where}: the artefact {plan.artefact!r} must be a plain name that no file has")
    started = {argument.removeprefix("./") for argument in plan.run}
    if plan.report == "exit" and started & {*plan.files, plan.artefact}:
        raise DataError(f"{where}: report 'exit' would believe the answer itself; `run` must start the task's runner")
    commands = (plan.build, plan.run)
    if plan.report == "exit" and (why := project_exit.unsuited(plan.files, plan.given, commands, plan.build)):
        raise DataError(f"{where}: {why}")


def _count(where: str, plan: Plan, told: Any) -> int:
    """How many tests have to pass. Raises DataError where there is none, or one is skipped by its own text."""
    framework = plan.framework
    texts = [re.sub(framework.comments, " ", plan.given[path]) for path in plan.test_files]
    if plan.report == "minitest" and len(texts) > 1:
        raise DataError(f"{where}: minitest takes one file of tests, not {', '.join(plan.test_files)}")
    if plan.report == "unittest":
        for path in plan.test_files:
            unit_python.prepare(f"{where}, {path}", plan.given[path], module="", entry_point="")
    for path, text in zip(plan.test_files, texts, strict=True):
        if framework.skips and (left := re.search(framework.skips, text, re.MULTILINE)):
            raise DataError(f"{where}: {path} leaves tests out ({left[0].strip()}); switch them on")
    found = sum(len(re.findall(framework.tests, text, re.MULTILINE)) for text in texts) if framework.tests else 1
    if told is not None and (isinstance(told, bool) or not isinstance(told, int) or told < 1):
        raise DataError(f"{where}: tests={told!r} must be a number of tests, at least one")
    if told is not None and framework.apart and told != found:
        raise DataError(f"{where}: tests={told}, and the files have {found}")
    if found < 1 or (not plan.test_files and framework.tests):
        raise DataError(f"{where}: no tests in {', '.join(plan.test_files) or 'any given file'}; anything would pass")
    return found if told is None else told


def _test_files(where: str, framework: Framework, answer: Mapping[str, Any]) -> tuple[str, ...]:
    if "test_files" in answer:
        return _texts(where, "test_files", answer["test_files"])
    if not framework.tests:
        return ()
    test = re.compile(framework.tests, re.MULTILINE)
    return tuple(
        path
        for path, text in answer["given"].items()
        if test.search(re.sub(framework.comments, " ", text)) and not re.fullmatch(framework.own, path)
    )


def _check_paths(where: str, paths: Sequence[str]) -> None:
    for path in paths:
        if len(path) > 200 or not _PATH.fullmatch(path):
            raise DataError(f"{where}: a file cannot be called {path!r}")
        if paths.count(path) > 1 or any(other.startswith(f"{path}/") for other in paths):
            raise DataError(f"{where}: {path!r} stands for two things")


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} is a {type(value).__name__}, expected text")
    return value


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) and item for item in value):
        raise DataError(f"{where}: {key} must be a list of texts, at least one")
    return tuple(value)
