"""Test texts in Python without the answer beside them: their calls are found, answered elsewhere, and told to them.

    once per text   the text runs beside a stand-in, in a box without an answer: it calls f(1), f(5)
    per answer      f(1), f(5) are called, in a box without the tests: [2, 6]
                    the text runs beside a stand-in that returns these: its verdict is as good as if it ran out here

So an answer that searches its process finds neither a token nor an expected value. It works for a text that uses one
name of the answer, as a function, with arguments that are built-in values and do not depend on what it returned
before; which that is, is found without any answer. What the function returns is told as in "asserts": an object that is
no built-in value equals nothing. A text that goes another way on the told values than on the stand-in's (a loop over a
result, say) is run as every other text is, beside the answer.
"""

from __future__ import annotations

import ast
import builtins
import json
import symtable
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from assay.types import TestVerdict, Verdict
from rewards import drivers, values
from rewards.bench import Bench
from rewards.records import verdicts
from rewards.sandbox.base import Limits
from rewards.values import BadValue, decode, parse
from rewards.verifiers import unit_python

_IN_BOX = (Path(__file__).resolve().parents[1] / "sandbox" / "replay_python.py").read_text()
_VALUES = Path(values.__file__).read_text().replace("from __future__ import annotations\n", "")
_SEED = "import random\nrandom.seed(0)\n"  #: both times the same, and out of the answer's reach
_UNFORESEEN = "AssayUnforeseen"

Call = tuple[str, list[Any], dict[str, Any]]  #: a key, arguments, named arguments


def judge(
    bench: Bench, limits: Limits, prompt: str, program: str, text: str, entry_point: str
) -> tuple[str | None, TestVerdict] | None:
    """Why there is no program, and the verdict, on one text; None for a text that this does not work for."""
    entry = _entry(text, prompt, entry_point)
    calls = bench.keep(("replay", prompt, text, entry), lambda: _explored(bench, limits, prompt, text, entry))
    if not calls:
        return None
    given = ", ".join(f"assay_call({entry}, {args!r}, {named!r})" for _, args, named in calls)
    parts = {"prelude": _IN_BOX, "answer": f"{prompt}\n{program}" if prompt else program}
    run, report = drivers.call_python(bench, limits, parts, [f"[{given}]"])
    trees: list[Any] = []
    (called,) = verdicts(run, report, [lambda data: _read(data, len(calls), trees)])
    if report.no_program is not None or called.verdict is not Verdict.AC:
        return report.no_program, called
    tests = unit_python.prepare("", _SEED + text, module="", entry_point=entry)
    _, found = unit_python.judge(bench, limits, _stand_in(prompt, entry, calls, trees), tests, "")
    if found.detail.startswith(_UNFORESEEN):
        return None
    return None, replace(found, cpu_s=called.cpu_s, wall_s=called.wall_s, memory_bytes=called.memory_bytes)


def _entry(text: str, prompt: str, entry_point: str) -> str:
    """The one name a text wants of the answer; "" where it wants several or none, or is no text for this."""
    tree = ast.parse(text.replace("\r\n", "\n"))
    if any(isinstance(node, ast.ClassDef | ast.Await | ast.Global) for node in ast.walk(tree)):
        return ""
    free = _free(symtable.symtable(ast.unparse(tree), "tests", "exec")) - set(dir(builtins))
    try:
        free -= {node.name for node in ast.parse(prompt).body if isinstance(node, ast.FunctionDef)} - {entry_point}
    except (SyntaxError, ValueError):
        return ""
    return free.pop() if len(free) == 1 and free <= {entry_point or next(iter(free))} else ""


def _free(top: symtable.SymbolTable) -> set[str]:
    """The global names that a text uses and does not give a value."""
    tables, used = [top], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        symbols = [symbol for symbol in table.get_symbols() if symbol.is_referenced()]
        used |= {symbol.get_name() for symbol in symbols if table is top or symbol.is_global()}
    return used - {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}


class _Looked(ast.NodeTransformer):
    """`assert A and B` becomes `assay_look(lambda: A)` and the same of B: what each calls is called, whether it holds
    is not asked.
    """

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        look = ast.Name(id="assay_look", ctx=ast.Load())
        ways = (ast.Lambda(args=nothing, body=part) for part in _operands(node.test))
        return [ast.Expr(ast.Call(func=look, args=[way], keywords=[])) for way in ways]


def _operands(test: ast.expr) -> list[ast.expr]:
    match test:
        case ast.BoolOp(values=values):
            return [part for value in values for part in _operands(value)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _operands(operand)
    return [test]


def _explored(bench: Bench, limits: Limits, prompt: str, text: str, entry: str) -> tuple[Call, ...]:
    """What a text calls, whether what it gets is true and equal or neither; () where that cannot be said."""
    if not entry:
        return ()
    source = ast.unparse(ast.fix_missing_locations(_Looked().visit(ast.parse(_SEED + text.replace("\r\n", "\n")))))
    ways = [f"assay_explore(globals(), {source!r}, {entry!r}, {mode})" for mode in (True, False)]
    _, report = drivers.call_python(bench, limits, {"prelude": _IN_BOX, "answer": prompt}, ways)
    found = [record.data[1:] for record in report.records if record.data[:1] == b"V"]
    try:
        first, second = ([(key, args, named) for key, args, named in decode(parse(data), exact=True)] for data in found)
        for _, args, named in (*first, *second):
            ast.literal_eval(repr((args, named)))
    except (BadValue, ValueError):  # objects for arguments, floats without a literal, or no two lists
        return ()
    seen = Counter(key for key, _, _ in first)
    for call in second:
        seen[call[0]] -= 1
        first += [call] if seen[call[0]] < 0 else []
    return tuple(first)


def _read(data: bytes, calls: int, trees: list[Any]) -> bool:
    match parse(data):
        case ["l", list(told)] if len(told) == calls and all(map(_is_outcome, told)):
            trees += told
            return True
    raise BadValue("not what the calls returned")


def _is_outcome(tree: Any) -> bool:
    match tree:
        case ["t", [_, ["l", list()], ["d", list()]]] | ["l", [["s", str()], ["s", str()]]]:
            return True
    return False


def _stand_in(prompt: str, entry: str, calls: tuple[Call, ...], trees: list[Any]) -> str:
    """A program whose function `entry` returns what was told, call by call."""
    outcomes: dict[str, list[Any]] = defaultdict(list)
    for (key, _, _), tree in zip(calls, trees, strict=True):
        outcomes[key].append(tree)
    told = f"assay_json.loads({json.dumps(outcomes)!r})"
    made = f"import json as assay_json\n{entry} = assay_replay({told}, decode, BadValue)\n"
    return "\n".join((prompt, _IN_BOX, _VALUES, made))
