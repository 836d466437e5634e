"""Verifier "unit_tests": the task's own test text, run beside the answer (the form of HumanEval and MultiPL-E).

    {"language": "javascript", "tests": ["console.assert(f(1) === 2)"], "prompt": "", "limits": {"cpu_s": 2}}

`tests` is a list of texts, each run in a box of its own (or `test`: one text). `prompt` stands before the answer,
`entry_point` names the function under test where the text would not, `module` (Python) is the name under which the
tests import the answer. How a language runs its tests is a row of `rewards.verifiers.harness_row`.

This is the weakest form of test there is: tests and answer share a process, so whatever the tests can do, the answer
can. "verdict by exit status" would be won by `exit(0)`. What is demanded instead:

    - the run ends with status 0, and the last line of its output is a token drawn for this run, which our text writes
      after the last statement of the tests. Leaving early in any way (exit, a signal, an exit handler) leaves it out.
    - the token is kept from the answer: Python, JavaScript and C read it before the answer runs and close the door
      behind them; elsewhere one half waits on standard input and the other stands in a text that is compiled in
      another box, or that deletes its file before the answer runs.
    - assertions that a language may skip are made to count (see `harness_row`), and as many must have held as the text
      cannot avoid; a case of `unittest`, `test/unit` or `minitest` that was skipped is a failure.
    - where possible the assertions are out of the answer's reach: other names, built-ins put aside beforehand, macros
      undone, operators of the answer's own refused (Python), keywords and assignments (Bash), classes that are frozen
      and methods that are looked up again (Ruby).
    - a text that cannot fail is refused as data.

What remains: an answer that sets out to search its process (frames, heap, /proc/self/mem) can find the token or the
expected values, since both are there; and where a comparison calls methods of the value (== in C++, Rust, Ruby, R and
Julia, equals in Java, C# and Scala), a value of the answer's own type can claim to equal anything. In Python that is
refused for operators and for assertions of `unittest`; what is left of it stands in `sandbox/unit_python.py`. What
Bash's tests decide by a command (`[`, `test`, `set -e`) is decided by the answer's where it defines a function of that
name; `[[ ]]` on a line of its own and `exit` with a number are safe from that. Every accepted test says so: its detail
is COMPARED_INSIDE. Prefer "asserts", "function" or "stdio" where a task allows it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from assay.errors import DataError, InfraFailure
from assay.types import Task, TestVerdict, Verdict
from rewards import building
from rewards.bench import Bench
from rewards.languages import Language, find
from rewards.rewriting import outside, replaced
from rewards.sandbox.base import KilledBy, Limits, RunResult
from rewards.verifiers import unit_python
from rewards.verifiers.asserts import COMPARED_INSIDE
from rewards.verifiers.base import NOT_RUN, Judged, limits_of, overall, record_of, test_list
from rewards.verifiers.harness_row import Harness, macros
from rewards.verifiers.harness_rows_compiled import JAVA_LIBRARY, JAVA_TUPLES
from rewards.verifiers.harnesses import HARNESSES
from rewards.verifiers.stdio import failure_of, last_words

_SANDBOX = Path(__file__).resolve().parents[1] / "sandbox"
_OPTIONAL = ("tests", "test", "prompt", "entry_point", "module", "limits")
_NO_PROGRAM = 65  #: the status with which JavaScript's driver says that the answer is not one
#: Where a test text has one of these, how many of its assertions run depends on what happens.
_BRANCHES = re.compile(
    r"\b(?:if|elif|else|for|foreach|while|until|unless|loop|repeat|switch|case|match|cond|try|catch|rescue)\b"
    r"|(?<!eq)(?<!eqv)(?<!equal)\?"  # check-equal? is no question
)
_FAILED = re.compile(
    rb"assert(?:ion)?[ _-]?(?:error|failed|failure)|^Failure:|^--- FAIL|Test failed|panicked at .*assert| is not TRUE",
    re.IGNORECASE | re.MULTILINE,
)
_SHOWN_BYTES = 2000
#: where a brace is none: comments, texts and characters
_SKIPPED = r"""//[^\n]*|/\*[\s\S]*?\*/|\"(?:\\.|[^"\\\n])*\"|'(?:\\.|[^'\\\n])'"""
_RAW = r"""R"(?P<raw>[^()\\\s]{0,16})\([\s\S]*?\)(?P=raw)\""""  #: a text of C++

#: where what looks like a comment is none
_TEXTS = r"""\"(?:\\.|[^"\\\n])*\"|'(?:\\.|[^'\\\n])*'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A task's answer record, checked."""

    language: Language
    texts: tuple[str, ...]
    prompt: str
    entry_point: str
    module: str
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One program made of an answer and a test text, and what its last line has to be."""

    files: Mapping[str, str]  #: the first one is what is built
    stdin: str
    head: str
    tail: str
    asserts: int  #: how many have to hold at least

    def passed(self, stdout: bytes) -> bool:
        """Whether the output ends with the line that only the end of the tests writes: head, count, tail."""
        tail = rf" {re.escape(self.tail)}" if self.tail else ""
        found = re.search(rf"\n{re.escape(self.head)} (\d{{1,9}}){tail}\n\Z".encode(), stdout)
        return found is not None and int(found[1]) >= self.asserts


def read(task: Task) -> Plan:
    """The checked record of a task. Raises DataError naming the task and what is wrong."""
    answer = record_of(task, ("language",), _OPTIONAL)
    if ("tests" in answer) == ("test" in answer):
        raise DataError(f"task {task.id!r}: give either `tests`, a list of texts, or `test`, one text")
    texts = test_list(task) if "tests" in answer else [answer["test"]]
    given = {key: answer.get(key, "") for key in ("prompt", "entry_point", "module")}
    for key, value in (*given.items(), *((f"test {number}", text) for number, text in enumerate(texts))):
        if not isinstance(value, str):
            raise DataError(f"task {task.id!r}: {key} is a {type(value).__name__}, expected text")
    plan = Plan(language=find(answer["language"]), texts=tuple(texts), limits=limits_of(task), **given)
    for number, text in enumerate(texts):
        _require_tests(f"task {task.id!r}, test {number}", plan, text)
    return plan


def harness_of(language: Language, text: str) -> Harness:
    """The harness for a test text in a language of the table."""
    harness = HARNESSES[language.name]
    return harness.instead[1] if harness.instead and re.search(harness.instead[0], text) else harness


class UnitTestsVerifier:
    """Judges a program by the test texts of its task."""

    def check(self, task: Task) -> Language:
        """The language; DataError when the record cannot be judged by."""
        return read(task).language

    def judge(self, task: Task, program: str, bench: Bench) -> Judged:
        """Run every test text beside the program, each in a box of its own."""
        plan = read(task)
        limits = bench.limits_for(plan.limits)
        isolation = str(bench.sandbox.isolation)
        tests: list[TestVerdict] = []
        for number, text in enumerate(plan.texts):
            complaint, found = _judge(bench, plan, limits, f"task {task.id!r}, test {number}", program, text)
            if complaint is not None:
                each = TestVerdict(verdict=Verdict.CE, detail="no program to run")
                return Judged(
                    verdict=Verdict.CE, tests=(each,) * len(plan.texts), detail=complaint, isolation=isolation
                )
            tests.append(replace(found, detail=COMPARED_INSIDE) if found.verdict is Verdict.AC else found)
            if found.verdict is not Verdict.AC and bench.stop_on_failure:
                rest = TestVerdict(verdict=found.verdict, detail=f"{NOT_RUN}: test {number} had failed")
                tests += [rest] * (len(plan.texts) - len(tests))
                break
        verdict, detail = overall(tests)
        return Judged(verdict=verdict, tests=tuple(tests), detail=detail, isolation=isolation)


def _require_tests(where: str, plan: Plan, text: str) -> None:
    if plan.language.name == "python":
        unit_python.prepare(where, text, module=plan.module, entry_point=plan.entry_point)
        return
    if plan.language.name not in HARNESSES:
        there = ", ".join(sorted(("python", *HARNESSES)))
        raise DataError(f"{where}: no harness for tests in {plan.language.name}; there are {there}")
    harness = harness_of(plan.language, text)
    if not re.search(harness.can_fail, text):
        raise DataError(f"{where}: has nothing that could fail, so anything would pass it")
    unknown = re.search(harness.unknown, text) if harness.unknown else None
    if unknown:
        raise DataError(f"{where}: calls {unknown[0].rstrip('(')}, of a package that no box has")


def _judge(
    bench: Bench, plan: Plan, limits: Limits, where: str, program: str, text: str
) -> tuple[str | None, TestVerdict]:
    """Why there is no program, or None; and the verdict on one test text."""
    if plan.language.name == "python":
        tests = unit_python.prepare(where, text, module=plan.module, entry_point=plan.entry_point)
        return unit_python.judge(bench, limits, unit_python.whole(plan.prompt, program), tests, plan.module)
    harness = harness_of(plan.language, text)
    language = replace(plan.language, run=(plan.language.run[0], *harness.flags, *plan.language.run[1:]))
    limits = replace(limits, processes=harness.processes or limits.processes)
    try:
        unit, files = _WAYS[harness.way](bench, language, harness, plan.prompt, program, text)
    except building.CompileError as error:
        return str(error), TestVerdict(verdict=Verdict.CE)
    run = building.run(bench, language, files, limits, unit.stdin.encode())
    if run.killed_by is KilledBy.WALL:  # the machine may have been busy: once may be chance
        run = building.run(bench, language, files, limits, unit.stdin.encode())
    if harness.way == "driver" and run.exit_code == _NO_PROGRAM:
        return last_words(run).removeprefix(": "), TestVerdict(verdict=Verdict.CE)
    return None, _verdict(run, language, unit)


def _verdict(run: RunResult, language: Language, unit: Unit) -> TestVerdict:
    verdict, detail = failure_of(run, language) or (Verdict.AC, "")
    if verdict is Verdict.RE and _FAILED.search(run.stderr or run.stdout[-_SHOWN_BYTES:]):
        verdict = Verdict.WA
    if verdict in (Verdict.RE, Verdict.WA) and not run.stderr:
        detail += f": {run.stdout[-_SHOWN_BYTES:].decode('utf-8', 'replace').strip()}"
    if verdict is Verdict.AC and not unit.passed(run.stdout):
        verdict, detail = Verdict.WA, f"left before its tests had run to their end{last_words(run)}"
    return TestVerdict(
        verdict=verdict, cpu_s=run.cpu_s, wall_s=run.wall_s, memory_bytes=run.memory_bytes, detail=detail
    )


def _text(
    bench: Bench, language: Language, harness: Harness, prompt: str, program: str, text: str
) -> tuple[Unit, Mapping[str, bytes]]:
    """One program in the language itself; raises CompileError."""
    unit = assemble(language, harness, prompt, program, text)
    (_, main), *others = unit.files.items()
    files = building.build(bench, language, main)
    return unit, {**files, **{name: given.encode("utf-8", "replace") for name, given in others}}


def _linked(
    bench: Bench, language: Language, harness: Harness, prompt: str, program: str, text: str
) -> tuple[Unit, Mapping[str, bytes]]:
    """C and C++: the part that holds the token is compiled apart and linked; raises CompileError."""
    name, ours = bench.keep("unit_c", lambda: _compile_ours(bench))
    unit = assemble(language, harness, prompt, program, text, name=name)
    argv = language.compile_argv(flags=(f"-Dmain=main_{name}",), objects=("unit.o",))
    sources = {language.source: unit.files[language.source].encode("utf-8", "replace"), "unit.o": ours}
    artefact = building.compile_in_box(bench, language, argv, sources, language.artefact)
    return replace(unit, stdin=unit.head, tail=""), {language.artefact: artefact}


def _driver(
    bench: Bench, language: Language, harness: Harness, prompt: str, program: str, text: str
) -> tuple[Unit, Mapping[str, bytes]]:
    """JavaScript, and what compiles to it: our driver runs the answer and then the tests; raises CompileError.

    What is compiled is answer and tests in one, and calls a mark at its end; the driver defines the mark.
    """
    name = secrets.token_hex(8)
    unit = assemble(language, harness, prompt, program, text, name=name)
    files = building.build(bench, language, unit.files[language.source])
    if language.compile:
        ran, mark = language.artefact, f"unit_{name}"
        answer = files[ran].decode("utf-8", "replace")
    else:
        ran, mark = language.source, ""
        answer = _rewritten(f"{prompt}\n{program}" if prompt else program, harness.program, harness, name)
    job = {"answer": answer, "tests": text, "token": unit.head, "mark": mark}
    driver = (_SANDBOX / "unit_javascript.js").read_bytes()
    return replace(unit, stdin=json.dumps(job), tail=""), {ran: driver}


_WAYS = {"text": _text, "linked": _linked, "driver": _driver}


def assemble(language: Language, harness: Harness, prompt: str, program: str, text: str, *, name: str = "") -> Unit:
    """The program that runs `text` beside `program`, with names and a token drawn for this run."""
    name, head, tail = name or secrets.token_hex(8), secrets.token_hex(16), secrets.token_hex(16)
    given = f"given{language.suffix}"
    answer = _rewritten(f"{prompt}\n{program}" if prompt else program, harness.program, harness, name)
    tests = _returning(_rewritten(text, harness.tests, harness, name), f"static int unit_status_{name}(void)")
    pattern, call = harness.calls[0], harness.calls[1].replace("@ID@", name)
    called = [call.replace("{name}", found) for found in re.findall(pattern, text, re.MULTILINE)] if call else []
    first, (answer, tests) = _hoisted(harness, answer, tests)
    first = _needed(harness, first, prompt, f"{answer}\n{tests}")
    filled = {
        "ID": name,
        "SECRET": head,
        "GIVEN": given,
        "SOURCE": language.source,
        "OWNER": _owner(harness, f"{answer}\n{tests}", f"unit_main_{name}"),
        "CALLS": "\n".join(called),
        "UNDEF": "".join(f"#undef {macro}\n" for macro in macros(answer)),
        "IMPORTS": _java_imports(text) if "@IMPORTS@" in harness.before else "",
        "FIRST": "\n".join(first),
        "TUPLES": JAVA_TUPLES if "org.javatuples" in f"{prompt}{program}{text}" else "",
    }
    tests = tests.replace("@CALLS@", filled["CALLS"])
    before, between, after = (_filled(part, filled) for part in (harness.before, harness.between, harness.after))
    if harness.separate:
        files = {language.source: f"{before}{between}{tests}{after}", given: answer}
    else:
        files = {language.source: f"{before}{answer}{between}{tests}{after}"}
    return Unit(files=files, stdin=f"{tail}\n", head=head, tail=tail, asserts=_unavoidable(harness, name, text, tests))


def _owner(harness: Harness, text: str, entry: str) -> str:
    """The class that the function `entry` stands in, as it is reached from outside, or "".

    The answer may hold classes with a main of its own, and inner ones; a class may begin in the answer and end in the
    tests. So braces are counted, those in strings and comments aside.
    """
    end = text.find(entry)
    if not harness.owner or end < 0:
        return ""
    skipped = f"{harness.texts}|{_SKIPPED}" if harness.texts else _SKIPPED
    open_classes: list[tuple[int, str]] = []
    depth, named = 0, ""
    for found in outside(rf"[{{}}]|{harness.owner}", text[:end], skipped):
        if found[0] == "{":
            if named:
                open_classes.append((depth, named))
            depth, named = depth + 1, ""
        elif found[0] == "}":
            depth -= 1
            open_classes = [(level, name) for level, name in open_classes if level < depth]
        else:
            named = found[1]
    return ".".join(name for _, name in open_classes)


def _returning(tests: str, head: str) -> str:
    """`tests` with a `return 0;` at the end of the function that begins with `head`, as `main` has one unwritten.

    Left out where a preprocessor may choose among lines, or no brace ends the function: braces cannot be counted there.
    """
    _, found, body = tests.rpartition(head)
    if not found or body.startswith(";") or re.search(r"^[ \t]*#[ \t]*(?:if|el)", body, re.MULTILINE):
        return tests
    depth = 0
    for brace in outside(r"[{}]", body, rf"{_RAW}|{_SKIPPED}"):
        depth += 1 if brace[0] == "{" else -1
        if depth <= 0:
            return f"{tests[: -len(body)]}{body[: brace.start()]} return 0; {body[brace.start() :]}"
    return tests


def _unavoidable(harness: Harness, name: str, text: str, tests: str) -> int:
    """How many assertions must have held when `tests`, which `text` was made into, ran to their end."""
    if not harness.sites:
        return 0
    code = replaced(harness.comments, " ", tests, f"{harness.texts}|{_TEXTS}" if harness.texts else _TEXTS)
    sites = len(re.findall(harness.sites.replace("@ID@", name), code))
    leaves = "unit_status_" in tests or _BRANCHES.search(text)  # main may return early, or this or that may not run
    return sites if harness.every_site and not leaves else min(sites, 1)


def _filled(part: str, values: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda found: values.get(found[1], found[0]), part)


def _rewritten(text: str, rules: tuple[tuple[str, str], ...], harness: Harness, name: str) -> str:
    for pattern, replacement in rules:
        text = replaced(pattern, replacement.replace("@ID@", name), text, harness.texts)
    return text


def _hoisted(harness: Harness, *parts: str) -> tuple[list[str], list[str]]:
    """The lines that have to stand at the top, once each, and the parts without them."""
    if not harness.hoist:
        return [], list(parts)
    found = [match[0].strip() for part in parts for match in outside(harness.hoist, part, harness.texts)]
    item, line = harness.items
    lines = [line.replace("{item}", one) for text in found for one in re.findall(item, text)] if item else found
    if harness.imports:
        first = {key: line for text in reversed(found) for key, line in reversed(harness.imports(text))}
        lines = list(reversed(first.values()))
    return list(dict.fromkeys(lines)), [replaced(harness.hoist, "", part, harness.texts) for part in parts]


def _needed(harness: Harness, lines: list[str], prompt: str, program: str) -> list[str]:
    """The lines of imports without those of the prompt that are better left out: not every answer uses all of them."""
    if harness.spare is None or not prompt:
        return lines
    given = {harness.alike(line) for line in _hoisted(harness, _rewritten(prompt, harness.program, harness, ""))[0]}
    code = replaced(harness.comments, " ", program, f"{harness.texts}|{_TEXTS}" if harness.texts else _TEXTS)
    return [line for line in lines if harness.alike(line) not in given or not harness.spare(line, code)]


def _java_imports(tests: str) -> str:
    words = set(re.findall(r"\b[A-Z]\w*", tests)) - set(re.findall(r"\b(?:class|interface|enum|record)\s+(\w+)", tests))
    return "".join(
        f"import {package}.{name};\n"
        for package, names in JAVA_LIBRARY.items()
        for name in names.split()
        if name in words
    )


def _compile_ours(bench: Bench) -> tuple[str, bytes]:
    """The suffix of the names in `unit_c.c`, drawn for this bench, and the object."""
    c, name = find("c"), secrets.token_hex(8)
    flags = ("-O1", "-std=gnu17", "-ffreestanding", "-fno-stack-protector", f"-DASSAY(name)=name##_{name}")
    argv = (c.compile[0], *flags, "-c", "-o", "unit.o", "unit.c")
    try:
        return name, building.compile_in_box(bench, c, argv, {"unit.c": (_SANDBOX / "unit_c.c").read_bytes()}, "unit.o")
    except building.CompileError as error:
        raise InfraFailure(f"our own part of tests in C does not compile: {error}") from None
