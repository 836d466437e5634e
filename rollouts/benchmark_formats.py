"""Rows of published benchmarks, as their authors write them, made into tasks: HumanEval and its kin, repair, contests.

Every task asks for a whole program in one code block, whatever the set was made for (most were made for completion),
and takes the strongest verifier its tests allow: "asserts" for plain assertions in Python, "stdio" or "checker" for
programs with input and output, "unit_tests" for the rest, "project" where there are several files.
Known-good programs become `reference`.

    human_eval     task_id, prompt, entry_point, canonical_solution, test (Chen et al. 2021, arXiv 2107.03374), or the
                   same of HumanEval+ with its inputs and results
    multipl_e      name, language, prompt, tests (Cassano et al. 2022, arXiv 2208.08227)
    humanevalpack  task_id, declaration, canonical_solution, test, entry_point, instruction, in Go import and test_setup
                   (Muennighoff et al. 2023, arXiv 2308.07124); HumanEval-X, which has prompt instead of the instruction
                   (Zheng et al. 2023, arXiv 2303.17568)
    humanevalfix   the same rows as repair tasks: buggy_solution
    quixbugs       name, buggy_program, docstring, solution, tests (Lin et al. 2017, in the form OctoPack gave it)
    evalplus       task_id, prompt, entry_point, canonical_solution, assertion (Liu et al. 2023, arXiv 2305.01210)
    kattis         problem, statement, language, tests [{in, ans}], validator (Kattis problem package format)
    exercism       track, slug, instructions, stub, example, tests, support: see `rollouts.exercism`
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assay.types import Task
from rollouts.evalplus_tests import assertions_of, without_numpy
from rollouts.exercism import exercism
from rollouts.wording import asked as _asked
from rollouts.wording import block as _block

Row = Mapping[str, Any]

_COMPLETE = "Complete this program. Keep the lines that are given."
#: the last part of a MultiPL-E name -> the language's name here, and the label of its code blocks
_MULTIPL_E = {
    "cpp": "cpp",
    "cs": "csharp",
    "d": "d",
    "go": "go",
    "go_test.go": "go",
    "java": "java",
    "jl": "julia",
    "js": "javascript",
    "lua": "lua",
    "php": "php",
    "pl": "perl",
    "py": "python",
    "r": "r",
    "rb": "ruby",
    "rkt": "racket",
    "rs": "rust",
    "scala": "scala",
    "sh": "bash",
    "swift": "swift",
    "ts": "typescript",
}
_PACK = {
    "Python": "python",
    "JavaScript": "javascript",
    "Java": "java",
    "C++": "cpp",
    "CPP": "cpp",
    "Rust": "rust",
    "Go": "go",
}
#: Lines before a function that may stand twice in a program: an answer may repeat them or not.
_PREAMBLE = re.compile(r"^(?:#include\b|using\s|import\s|use\s|from\s).*$", re.MULTILINE)
#: MultiPL-E goes on inside the class it has opened; a whole class is followed by one of its own that reaches into it.
_CLASS_OF_TESTS = {
    "java": "class Tests extends Problem {\n{rest}",
    "csharp": "class Tests : Problem {\n{rest}",
    "scala": "object Tests {\nimport Problem._\n{rest}",
}


def human_eval(row: Row) -> Task:
    """HumanEval: complete a function. The tests call `check(candidate)`, which is undone where it only asserts."""
    return _python_function(row, str(row["task_id"]), source="human_eval", good=row["canonical_solution"])


def multipl_e(row: Row) -> Task:
    """MultiPL-E: HumanEval or MBPP in another language. There is no known-good program."""
    if "tests" not in row:  # the Python file of that folder, which has HumanEval's fields without an entry point
        return _python_function(row, f"multipl_e/{row['task_id']}", source="multipl_e", good=row["canonical_solution"])
    code = str(row["language"])
    if code not in _MULTIPL_E:
        raise ValueError(f"no language {code!r}; there are {', '.join(_MULTIPL_E)}")
    language, prompt = _MULTIPL_E[code], row["prompt"]
    return Task(
        id=f"{row['name']}/{language}",
        messages=_asked(f"{_COMPLETE}\n\n{_block(language, prompt)}", language),
        verifier="unit_tests",
        answer={"language": language, "tests": [_after_whole(language, row["tests"])], **_given(language, prompt)},
        source="multipl_e",
    )


def humanevalpack(row: Row) -> Task:
    """HumanEvalPack's synthesis: write the function from its description."""
    asked = f"{row['instruction']}\n\nThe program begins like this:" if "instruction" in row else _COMPLETE
    return _packed(row, "humanevalpack", asked)


def humanevalfix(row: Row) -> Task:
    """HumanEvalPack's repair: the program has one bug, and the tests it fails are not shown."""
    return _packed(row, "humanevalfix", f"Fix the bug in `{row['entry_point']}`.", bug=row["buggy_solution"])


def quixbugs(row: Row) -> Task:
    """QuixBugs: one classic algorithm with a bug in one line."""
    name, buggy = row["name"], row["buggy_program"]
    described = row["docstring"].strip().strip('"').strip()
    prompt = f"Fix the bug in `{name}`.\n\n{described}\n\n{_block('python', buggy)}"
    return Task(
        id=f"quixbugs/{name}",
        messages=_asked(prompt, "python"),
        source="quixbugs",
        reference=_block("python", row["solution"]),
        **_python_tests(row["tests"], entry=name, before=""),
    )


def evalplus(row: Row) -> Task:
    """EvalPlus' MBPP with its base tests. The "plus" inputs have no expected values until a reference has run."""
    if "assertion" not in row:
        raise ValueError("a row of MbppPlus has inputs but no expected values; take MbppBase")
    described = row["prompt"].strip().strip('"').strip()
    imports = "\n".join(row.get("test_imports") or ())
    asked = f"{described}\nThe function is called `{row['entry_point']}`."
    task_id = str(row["task_id"])
    return Task(
        id=task_id if "/" in task_id else f"Mbpp/{task_id}",
        messages=_asked(asked, "python"),
        source="evalplus",
        reference=_block("python", row["canonical_solution"]),
        **_python_tests(f"{imports}\n{row['assertion']}", entry=row["entry_point"], before=""),
    )


def kattis(row: Row) -> Task:
    """A Kattis problem in one language: output compared by words, or judged by the problem's own validator."""
    tests = [{"input": test["in"], "output": test["ans"]} for test in row["tests"]]
    if re.search(r"^type:\s*\[?.*\binteractive\b", row.get("yaml") or "", re.MULTILINE):
        raise ValueError("an interactive problem: its validator talks with the program while it runs")
    answer: dict[str, Any] = {"language": row["language"], "tests": tests}
    memory = re.search(r"^\s+memory:\s*(\d+)", row.get("yaml") or "", re.MULTILINE)
    limits = {"memory_bytes": int(memory[1]) << 20} if memory else {}
    if row.get("timelimit_s"):
        limits["cpu_s"] = row["timelimit_s"]
    if limits:
        answer["limits"] = limits
    if row.get("custom_validator"):
        answer["checker"] = _validator(row["validator"])
    else:
        answer["comparator"] = "tokens"
    return Task(
        id=f"kattis/{row['problem']}/{row['language']}",
        messages=_asked(f"{row['statement'].strip()}", str(row["language"])),
        verifier="checker" if "checker" in answer else "stdio",
        answer=answer,
        source="kattis",
    )


#: name of a task file's `format` -> a row of it as a task
BENCHMARK_FORMATS: dict[str, Callable[[Row], Task]] = {
    "human_eval": human_eval,
    "multipl_e": multipl_e,
    "humanevalpack": humanevalpack,
    "humanevalfix": humanevalfix,
    "quixbugs": quixbugs,
    "evalplus": evalplus,
    "kattis": kattis,
    "exercism": exercism,
}


def _python_function(row: Row, task_id: str, *, source: str, good: str) -> Task:
    prompt = row["prompt"]
    entry = row.get("entry_point") or _last_function(prompt)
    asked = f"{_COMPLETE}\n\n{_block('python', prompt)}"
    return Task(
        id=task_id,
        messages=_asked(asked, "python"),
        source=source,
        reference=_block("python", f"{prompt}{good}"),
        **_python_tests(row["test"], entry=entry, before=_before(prompt, entry)),
    )


def _packed(row: Row, source: str, asked: str, *, bug: str = "") -> Task:
    label, _, number = str(row["task_id"]).partition("/")
    if label not in _PACK:
        raise ValueError(f"no language {label!r}; there are {', '.join(_PACK)}")
    language, declaration = _PACK[label], row["declaration"].lstrip("\n")
    if language == "go" and not declaration.startswith("package"):
        imports = "" if declaration.startswith("import") else row.get("import")
        declaration = "\n".join(filter(None, ("package main\n", imports, declaration)))
    described = "" if "instruction" in row or bug else str(row["prompt"]).lstrip("\n")
    shown = _block(language, described or f"{declaration}{bug}")
    tests = "\n".join(filter(None, (row.get("test_setup"), row["test"])))
    if language == "python":
        entry = row.get("entry_point") or _last_function(declaration)
        judged = _python_tests(row["test"], entry=entry, before=_before(declaration, entry))
    else:
        judged = {
            "verifier": "unit_tests",
            "answer": {"language": language, "tests": [tests], **_given(language, declaration)},
        }
    return Task(
        id=f"{source}/{language}/{number}",
        messages=_asked(f"{asked}\n\n{shown}", language),
        source=source,
        reference=_block(language, f"{declaration}{row['canonical_solution']}"),
        **judged,
    )


def _last_function(prompt: str) -> str:
    """The function that a prompt of HumanEval's kind leaves to be written."""
    names = re.findall(r"^def\s+(\w+)", prompt, re.MULTILINE)
    if not names:
        raise ValueError("its prompt begins no function")
    return names[-1]


def _before(prompt: str, entry: str) -> str:
    """What stands before the function to be written: imports, and functions it may call."""
    found = re.search(rf"^def\s+{re.escape(entry)}\b", prompt, re.MULTILINE)
    return prompt[: found.start()].strip("\n") if found else ""


def _given(language: str, prompt: str) -> dict[str, str]:
    """The key `prompt` of a record: lines an answer needs and may leave out."""
    if language == "go":
        imports = re.findall(r'^import\s*(?:\([^)]*\)|(?:[\w.]+[ \t]+)?"[^"]+")', prompt, re.MULTILINE)
        return {"prompt": "\n".join(("package main", *imports, ""))} if imports else {}
    found = _PREAMBLE.findall(prompt)
    return {"prompt": "\n".join(found)} if found else {}


def _after_whole(language: str, tests: str) -> str:
    """MultiPL-E's tests, which go on inside the function that the prompt has opened, as they follow a whole one."""
    rest = tests.lstrip()
    if not rest.startswith("}"):
        return tests
    rest = rest[1:].lstrip("\n")
    return _CLASS_OF_TESTS.get(language, "{rest}").replace("{rest}", rest)


def _validator(files: Mapping[str, str]) -> dict[str, Any]:
    """A problem's output validator as verifier "checker" takes it."""
    sources = [path for path in files if path.endswith((".cc", ".cpp", ".py"))]
    if len(sources) != 1:
        raise ValueError(f"a validator of {len(sources)} sources")
    return {
        "language": "python" if sources[0].endswith(".py") else "cpp",
        "source": files[sources[0]],
        "protocol": "domjudge",
        "files": {path.rpartition("/")[2]: text for path, text in files.items() if path != sources[0]},
    }


def _python_tests(text: str, *, entry: str, before: str) -> dict[str, Any]:
    """`verifier` and `answer` for tests in Python: "asserts" where they are plain assertions, else "unit_tests".

    `before` runs before the answer, and once more before the tests of "unit_tests": a function given by the task is
    then not the answer's version of it.
    """
    tree = ast.parse(text.replace("\r\n", "\n"))
    from_inputs = assertions_of(tree.body, entry)
    if from_inputs:
        answer = {"language": "python", "tests": from_inputs, "prelude": before}
        return {"verifier": "asserts", "answer": {key: value for key, value in answer.items() if value}}
    tree.body = without_numpy(tree.body)
    text = ast.unparse(tree)
    plain = _plain(tree.body, entry)
    if plain is not None:
        setup, tests = plain
        answer = {"language": "python", "tests": tests, "setup": "\n".join(setup), "prelude": before}
        return {"verifier": "asserts", "answer": {key: value for key, value in answer.items() if value}}
    function = _check_of(tree.body)
    if function is not None:
        function.name = "assay_check" if entry == function.name else function.name
        text = ast.unparse(_without_calls_of(tree, "check")) + f"\n{function.name}({entry})"
    text = f"{before}\n{text}" if before else text
    answer = {"language": "python", "tests": [text], "entry_point": entry, **({"prompt": before} if before else {})}
    return {"verifier": "unit_tests", "answer": answer}


def _plain(body: Sequence[ast.stmt], entry: str) -> tuple[list[str], list[str]] | None:
    """Set-up and assertions, where a test is nothing more: at its top level, or in the `check` that HumanEval calls."""
    function = _check_of(body)
    if function is not None:
        (argument,) = function.args.args
        others = [item for item in body if item is not function and not _is_idle(item, function.name)]
        renamed = _Renamed(argument.arg, entry)
        body = [*others, *(renamed.visit(copy.deepcopy(item)) for item in function.body)]
    setup: list[str] = []
    tests: list[str] = []
    wanted = set[str]().union(*map(_wanted, body))
    assigned: set[str] = set()
    for item in body:
        if isinstance(item, ast.Assert):
            if not isinstance(item.test, ast.Constant):  # `assert True` of some HumanEval tests
                tests.append(ast.unparse(ast.Assert(test=item.test, msg=None)))
        elif isinstance(item, ast.Import | ast.ImportFrom):
            bound = {alias.asname or alias.name.partition(".")[0] for alias in item.names}
            if bound & (wanted | {"*"}):
                setup.append(ast.unparse(item))
        elif isinstance(item, ast.Assign) and all(isinstance(target, ast.Name) for target in item.targets):
            names = {target.id for target in item.targets if isinstance(target, ast.Name)}
            if names & (assigned | {entry}) or entry in _names(item.value):
                return None
            assigned |= names
            setup.append(ast.unparse(item))
        elif not _is_idle(item, ""):
            return None
    return (setup, tests) if tests else None


def _check_of(body: Sequence[ast.stmt]) -> ast.FunctionDef | None:
    """HumanEval's `def check(candidate)`, if there is exactly that."""
    found = [item for item in body if isinstance(item, ast.FunctionDef) and item.name == "check"]
    return found[0] if len(found) == 1 and len(found[0].args.args) == 1 else None


def _is_idle(item: ast.stmt, called: str) -> bool:
    """A docstring, a name (HumanEval/129 has a bare `print`), HumanEval's METADATA, or the call of `called`."""
    if isinstance(item, ast.Assign):
        return ast.unparse(item.targets[0]) == "METADATA"
    if not isinstance(item, ast.Expr):
        return False
    value = item.value
    is_call = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == called
    return isinstance(value, ast.Constant | ast.Name) or is_call


def _without_calls_of(tree: ast.Module, name: str) -> ast.Module:
    return ast.Module(body=[item for item in tree.body if not _is_idle(item, name)], type_ignores=[])


def _wanted(item: ast.stmt) -> set[str]:
    """The names a statement of a test needs in the box. `math.isclose` is none: "asserts" compares outside.

    An import that only the comparison needs is left out: it would make good one that the answer lacks.
    """
    test = item.test if isinstance(item, ast.Assert) else item
    if isinstance(test, ast.Call) and ast.unparse(test.func) == "math.isclose":
        return set[str]().union(*map(_names, test.args))
    return set() if isinstance(item, ast.Import | ast.ImportFrom) else _names(test)


def _names(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


class _Renamed(ast.NodeTransformer):
    """`candidate` is the function under test."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(id=self._new, ctx=node.ctx) if node.id == self._old else node
