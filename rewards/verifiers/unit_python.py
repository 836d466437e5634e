"""Test texts in Python, for the verifier "unit_tests": taken apart on the host, run beside the answer in the box.

Every `assert` is rewritten so that it counts, and every comparison, and -, /, //, % and ^, so that it asks who does it.
Test cases of `unittest` are run whole, and none of them may be skipped. Which modules there are, only the box knows: it
is asked, once for every set of them, and tests that import another are refused as data when they are first to run.
"""

from __future__ import annotations

import ast
import builtins
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import DataError, InfraFailure
from assay.types import TestVerdict, Verdict
from rewards import drivers
from rewards.bench import Bench
from rewards.records import Report, verdicts
from rewards.rewriting import outside, replaced
from rewards.sandbox.base import Limits, RunResult
from rewards.values import decode, parse
from rewards.verifiers.project_python import Given

_IN_BOX = Path(__file__).resolve().parents[1] / "sandbox" / "unit_python.py"
_CASES = ("TestCase", "unittest.TestCase")
#: has to stand before anything else, so before a prompt too; what looks like it in a text or a comment does not
_FUTURE = r"^from[ \t]+__future__[ \t]+import[ \t]+(?:\([^()]*\)|\w[\w, \t]*)[ \t]*(?:#[^\n]*)?$"
_TEXTS = (
    r'''"""(?:\\[\s\S]|[^\\])*?"""|\'{3}(?:\\[\s\S]|[^\\])*?\'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*'''
)
#: modules whose classes compare in Python: an answer that imports them may return such values
_KNOWN = {"collections", "datetime", "decimal", "enum", "fractions", "ipaddress", "numbers", "pathlib", "statistics"}
_OPERATORS: dict[type[ast.cmpop | ast.operator], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.In: "in",
    ast.NotIn: "not_in",
    ast.Sub: "sub",
    ast.Div: "truediv",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.BitXor: "xor",
}
#: a test text that may import what is found nowhere: it sees to that itself
_OWN_IMPORTS = re.compile(r"\bsys\s*\.\s*(?:modules|path|meta_path)\b|\bfrom\s+sys\s+import\b")
_SHOWN = 300  #: characters of an assertion in the detail of one that failed


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonTests:
    """One test text, ready for the box."""

    where: str  #: the task and the number of the text, for messages
    source: str
    modules: tuple[str, ...]  #: what it imports
    needed: tuple[str, ...]  #: the top-level modules without which it fails, but for the answer's
    names: tuple[str, ...]  #: what it may want of the answer
    asserts: int  #: how many assertions have to hold at least
    cases: int  #: how many methods of test cases have to run at least


def prepare(where: str, text: str, *, module: str, entry_point: str) -> PythonTests:
    """Take a test text apart. Raises DataError for one that is not Python or could not fail."""
    try:
        tree = ast.parse(text.replace("\r\n", "\n"))
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{where}: not Python: {error}") from None
    nodes = list(ast.walk(tree))
    asserts = sum(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in nodes)
    cases = sum(_methods(node) for node in nodes if isinstance(node, ast.ClassDef))
    if not asserts and not cases and not any(isinstance(node, ast.Raise) for node in nodes):
        raise DataError(f"{where}: asserts nothing, so anything would pass it")
    mentioned = {node.id for node in nodes if isinstance(node, ast.Name)} - set(dir(builtins))
    mentioned |= {entry_point} if entry_point else set()
    source = ast.unparse(ast.fix_missing_locations(_Counted().visit(tree)))
    needed = set() if _OWN_IMPORTS.search(text) else {name.partition(".")[0] for name in _imported(_certain(tree))}
    return PythonTests(
        where=where,
        source=source,
        modules=tuple(sorted(_imported(nodes) - {module})),
        needed=tuple(sorted(needed - {module.partition(".")[0], "answer", "__main__"})),
        names=tuple(sorted(mentioned)),
        asserts=max(_straight(tree.body), bool(asserts and not cases)),
        cases=cases,
    )


def whole(prompt: str, program: str) -> str:
    """The answer behind its prompt, which it may go on from in the middle of a function."""
    if not prompt:
        return program
    first = [found[0] for found in outside(_FUTURE, program, _TEXTS)]
    return "\n".join((*first, prompt, replaced(_FUTURE, "", program, _TEXTS)))


def judge(
    bench: Bench,
    limits: Limits,
    program: str,
    tests: PythonTests,
    module: str,
    *,
    files: Mapping[str, bytes] | None = None,
    given: Given | None = None,
) -> tuple[str | None, TestVerdict]:
    """Run one test text after `program`, in a box of its own: why there is no program, and the verdict.

    `files` lie in the working folder, where both may import them; what is not in `given` of them is the answer's.
    Raises DataError for tests that import what is neither in the box nor among the files: no answer could pass them.
    """
    there = {path.partition("/")[0].removesuffix(".py") for path in files or {}}
    needed = tuple(sorted(set(tests.needed) - there))
    absent = bench.keep(("python modules", needed), lambda: _absent(bench, needed)) if needed else []
    if absent:
        raise DataError(f"{tests.where}: imports {', '.join(absent)}, which no box of this machine has")
    name, token = secrets.token_hex(8), secrets.token_hex(16)
    own = "\n".join((program, *(data.decode("utf-8", "replace") for data in (files or {}).values())))
    known = tuple(sorted(_KNOWN & set(re.findall(r"^\s*(?:import|from)\s+(\w+)", own, re.MULTILINE))))
    # what the answer calls `bool` or puts into `builtins` is not what decides
    beside = '__import__("sys").path.insert(0, __import__("os").getcwd())\n' if files else ""
    beside_it = tuple(given) if given is not None else ()
    prelude = f"""{beside}unit_{name} = {{"__builtins__": dict(vars(__import__("builtins")))}}
exec({_IN_BOX.read_text()!r}, unit_{name})
run_{name}, end_{name} = unit_{name}["assay_unit"]({token!r}, {tests.modules!r}, {known!r}, *{beside_it!r})
del unit_{name}
"""
    setup = f"run_{name}(globals(), {tests.source!r}, {tests.names!r}, {module!r})\n"
    parts = {"prelude": prelude, "answer": program, "setup": setup}
    run, report = drivers.call_python(bench, limits, parts, [f"end_{name}()"], files)
    return report.no_program, _verdict(run, report, token, tests)


def _absent(bench: Bench, modules: Sequence[str]) -> list[str]:
    """Those of the top-level modules that a box has no file for. Raises InfraFailure."""
    parts = {"prelude": "import importlib.util", "answer": "", "setup": ""}
    asked = f"[importlib.util.find_spec(name) is not None for name in {tuple(modules)!r}]"
    _, report = drivers.call_python(bench, bench.limits, parts, [asked])
    data = report.records[0].data if report.records else b""
    if data[:1] != b"V":
        raise InfraFailure(f"a box does not say which modules it has: {data[:80]!r}")
    return [name for name, found in zip(modules, decode(parse(data[1:]), exact=True), strict=True) if not found]


def _verdict(run: RunResult, report: Report, token: str, tests: PythonTests) -> TestVerdict:
    def right(data: bytes) -> bool:
        value = decode(parse(data), exact=True)
        if type(value) is not list or len(value) != 3 or value[0] != token:
            return False
        return type(value[1]) is type(value[2]) is int and value[1] >= tests.asserts and value[2] >= tests.cases

    (found,) = verdicts(run, report, [right])
    if found.verdict is Verdict.RE and found.detail.startswith("AssertionError"):
        return TestVerdict(
            verdict=Verdict.WA,
            cpu_s=found.cpu_s,
            wall_s=found.wall_s,
            memory_bytes=found.memory_bytes,
            detail=found.detail,
        )
    return found


class _Counted(ast.NodeTransformer):
    """`assert A == B` becomes `assert assay_hold(assay_same(A, B))`, any other one `assert assay_hold(...)`.

    Other operators of the table become calls too, of about 0.1 us: `A < B() <= C` is `assay_lt(A, assay_put(B())) and
    assay_le(assay_get(), C)`, so that B() is computed once and C as late as before.
    """

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        test: Any = node.test
        said = node.msg or ast.Constant(ast.unparse(test)[:_SHOWN])
        lone = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)
        test = self.visit(test)
        if lone:
            test = _call("assay_same", *test.args)
        return ast.Assert(test=_call("assay_hold", test), msg=said)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        left, parts = node.left, []
        for number, (op, right) in enumerate(zip(node.ops, node.comparators, strict=True), 1):
            simple = number == len(node.ops) or isinstance(right, ast.Name | ast.Constant)
            name, given = _OPERATORS.get(type(op)), right if simple else _call("assay_put", right)
            compared = ast.Compare(left=left, ops=[op], comparators=[given])
            parts.append(_call(f"assay_{name}", left, given) if name else compared)
            left = right if simple else _call("assay_get")
        return ast.BoolOp(op=ast.And(), values=parts) if len(parts) > 1 else parts[0]

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        name = _OPERATORS.get(type(node.op))
        return _call(f"assay_{name}", node.left, node.right) if name else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        self.generic_visit(node)
        name = _OPERATORS.get(type(node.op))
        if not name or not isinstance(node.target, ast.Name):
            return node
        now = ast.Name(id=node.target.id, ctx=ast.Load())
        return ast.Assign(targets=[node.target], value=_call(f"assay_i{name}", now, node.value))

    def visit_match_case(self, node: ast.match_case) -> ast.match_case:
        """A pattern is no expression."""
        node.guard = self.visit(node.guard) if node.guard else None
        node.body = [self.visit(item) for item in node.body]
        return node


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(func=ast.Name(id=name, ctx=ast.Load()), args=list(arguments), keywords=[])


def _methods(node: ast.ClassDef) -> int:
    """How many tests a test case has, as far as can be read off it."""
    if not any(ast.unparse(base) in _CASES for base in node.bases):
        return 0
    return len({item.name for item in node.body if isinstance(item, ast.FunctionDef) and item.name.startswith("test")})


def _certain(tree: ast.AST) -> list[ast.AST]:
    """The statements of a text but for those it may go without: in a `try` that has handlers, or under an `if`."""
    if isinstance(tree, ast.If) or (isinstance(tree, ast.Try) and tree.handlers):
        return []
    kinds = (ast.stmt, ast.match_case)
    return [tree, *(node for each in ast.iter_child_nodes(tree) if isinstance(each, kinds) for node in _certain(each))]


def _imported(nodes: Sequence[ast.AST]) -> set[str]:
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}


def _straight(body: Sequence[ast.stmt]) -> int:
    """How many assertions have to hold when `body` runs to its end: those it must come to.

    Those of functions count where the function is called by name at this level; those in loops and branches do not.
    """
    defined = {item.name: item.body for item in body if isinstance(item, ast.FunctionDef)}
    count = sum(isinstance(item, ast.Assert) for item in body)
    for item in body:
        if isinstance(item, ast.Expr) and isinstance(item.value, ast.Call) and isinstance(item.value.func, ast.Name):
            inside = defined.get(item.value.func.id, ())
            ends_early = any(isinstance(node, ast.Return) for part in inside for node in ast.walk(part))
            count += 0 if ends_early else sum(isinstance(part, ast.Assert) for part in inside)
    return count
