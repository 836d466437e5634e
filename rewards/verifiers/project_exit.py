"""Report "exit" of the verifier "project": is the status of a task's runner one that no answer decides?

It is where every file of the answer is started as a process of its own. Two things are looked at, and a task that fails
either is refused as data: the texts of the runner, which may not load a file of the answer into the process that reads
them; and what becomes of answers that only leave with status 0, alone and in front of the task's reference.

A runner that loads by a name it puts together, from a text that is no program of its language, is seen by the second
only, and not where it looks into the file first and the task has no reference.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

#: A whole answer that leaves with status 0 as soon as it is loaded.
_LEAVES = {
    "python": "import os\nos._exit(0)\n",
    "ruby": "exit!(0)\n",
    "bash": "exit 0\n",
    "javascript": "process.exit(0)\n",
    "php": "<?php exit(0);\n",
    "perl": "use POSIX ();\nPOSIX::_exit(0);\n",
    "lua": "os.exit(0)\n",
    "c": "#include <unistd.h>\n__attribute__((constructor)) static void assay_leave(void) { _exit(0); }\n",
    "cpp": "#include <unistd.h>\n__attribute__((constructor)) static void assay_leave() { _exit(0); }\n",
}
_SUFFIXES = {
    "py": "python", "rb": "ruby", "sh": "bash", "bash": "bash", "bats": "bash", "js": "javascript", "cjs": "javascript",
    "mjs": "javascript", "php": "php", "pl": "perl", "pm": "perl", "t": "perl", "lua": "lua", "c": "c", "h": "c",
    "cpp": "cpp", "cc": "cpp", "cxx": "cpp", "hpp": "cpp", "hh": "cpp",
}  # fmt: skip
_HEADERS = (".h", ".hpp", ".hh")
#: How a program takes in another file; the name follows on the same line.
_LOADS = {
    "python": r"(?<![\w.])(?:import|from|__import__|exec)\b",
    "ruby": r"(?<![\w.])(?:require|require_relative|load|autoload|(?:instance_|class_)?eval)\b",
    "bash": r"(?:^|[\s;&|({`!])(?:source|\.|load|eval)\s",
    "javascript": r"(?<![\w.])(?:require|import|runInThisContext|eval)\b",
    "php": r"\b(?:include|require)(?:_once)?\b|\beval\b",
    "perl": r"(?<![\w$@%>])(?:require|do|use|eval)\b",
    "lua": r"(?<![\w.])(?:require|dofile|loadfile|load)\b",
}
_REMARKS = {"javascript": r"^\s*//.*$", "php": r"^\s*(?://|#).*$", "lua": r"^\s*--.*$"}
#: Python calls that run a text or a file in the caller's process, whatever their arguments.
_RUNS_HERE = frozenset(
    ("__import__", "import_module", "run_path", "run_module", "spec_from_file_location", "SourceFileLoader", "exec")
) | {"eval", "load_source", "CDLL", "PyDLL", "LoadLibrary", "dlopen"}


def language_of(path: str) -> str:
    """The language of a file by its suffix, where an answer in it can be told to leave; else ""."""
    return _SUFFIXES.get(path.rpartition(".")[2].lower(), "") if "." in path else ""


def unsuited(
    files: Sequence[str], given: Mapping[str, str], commands: Sequence[Sequence[str]], built: Sequence[str]
) -> str:
    """Why a record's status says nothing, by its texts alone; "" where they say nothing against it."""
    for path in files:
        if not language_of(path):
            return f"report 'exit' cannot try what {path} does, by whose suffix it is in none of {', '.join(_LEAVES)}"
    texts = dict(given)
    for number, argv in enumerate(commands):  # "bash -c ..." and the like
        texts |= {f"argument {place} of command {number + 1}": part for place, part in enumerate(argv) if " " in part}
    for where, text in texts.items():
        for path in files:
            if _loads(where, text, path):
                return (
                    f"{where} takes {path} into its own process, where an answer that only leaves with status 0 passes;"
                    " report 'exit' is for runners that start the answer as a process of its own"
                )
        if built and language_of(where) in ("c", "cpp") and re.search(r"\bmain\s*\(", text):
            return f"{where} has a main that is linked with the answer, which can leave with status 0"
    return ""


def _loads(where: str, text: str, path: str) -> bool:
    """Does a text of the task load the answer's file `path`?"""
    here, theirs = language_of(where), language_of(path)
    file = path.rpartition("/")[2]
    stem = file.rpartition(".")[0]
    if here == "python" and (tree := _tree(text)) is not None:
        modules = {path.removesuffix(".py").replace("/", "."), stem, path.split("/")[0].removesuffix(".py")}
        return theirs in ("python", "c", "cpp") and any(_takes(node, modules) for node in ast.walk(tree))
    if theirs not in _LOADS or (here and here not in (theirs, "bash")):
        return False
    plain = re.sub(_REMARKS.get(here, r"^\s*#.*$"), "", text, flags=re.MULTILINE)
    named = rf"(?:{re.escape(file)}|(?<![\w.-]){re.escape(stem)}(?![\w.-]))"
    return re.search(rf"(?:{_LOADS[theirs]})[^\n;&|]*{named}", plain, re.MULTILINE) is not None


def _tree(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _takes(node: ast.AST, modules: set[str]) -> bool:
    if isinstance(node, ast.Import):
        return any(name.name in modules or name.name.partition(".")[0] in modules for name in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in modules or any(name.name in modules for name in node.names)
    if isinstance(node, ast.Call):
        called = node.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        return name in _RUNS_HERE
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a program for a child, which then decides
        words = "|".join(map(re.escape, modules))
        loads = re.search(rf"\b(?:import|from)\s+(?:{words})\b", node.value)
        return loads is not None and re.search(r"\b(?:assert|exit|_exit|raise)\b", node.value) is not None
    return False


def leaving(files: Sequence[str], reference: Mapping[str, str] | None) -> Iterator[dict[str, str]]:
    """Answers that leave with status 0 as soon as they are loaded."""
    alone = {path: "" if path.endswith(_HEADERS) else _LEAVES[language_of(path)] for path in files}
    first = next((path for path in files if alone[path]), files[0])
    main = "__attribute__((weak)) int main(void) { return 0; }\n" if language_of(first) in ("c", "cpp") else ""
    yield {**alone, first: alone[first] + main}
    if reference is not None:  # in C behind it, whose first lines may say what headers are to declare
        behind = {path for path in files if language_of(path) in ("c", "cpp")}
        yield {
            path: f"{text}\n{alone[path]}" if path in behind else alone[path] + text for path, text in reference.items()
        }
