"""EvalPlus' tests as its data sets publish them: a list of inputs, a list of results, and a loop that compares them.

They import numpy for one comparison, which no box has; taken apart they are assertions like any others, whose expected
values stay outside. From the sets' own text (evalplus/humanevalplus, evalplus/mbppplus):

    inputs = [...]
    results = [...]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(f(*inp), exp, atol)

`assertion` holds where values are equal, or, where `exp` is made of floats or `atol` is not 0, near (rtol 1e-7). Some
tasks have another `assertion`, or a function in place of the results: their text runs as it is, with what it calls of
numpy beside it.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Any

_LISTS = ("inputs", "results")
_NUMBERS = {"inf": math.inf, "nan": math.nan}
_COMPARED = {"out", "exp", "atol", "exact_match", "is_floats", "np"}  #: names in the `assertion` of most tasks
#: what EvalPlus' comparisons call of numpy
_NUMPY = """class np:
    ndarray, float32, float64 = (), float, float
    @staticmethod
    def allclose(out, exp, rtol=1e-05, atol=1e-08):
        if isinstance(exp, (list, tuple)):
            pairs = zip(out, exp)
            return len(out) == len(exp) and all(np.allclose(one, other, rtol, atol) for one, other in pairs)
        return out == exp or abs(out - exp) <= atol + rtol * abs(exp)
"""


def assertions_of(body: Sequence[ast.stmt], entry: str = "") -> list[str] | None:
    """One assertion for each input of such a test; None for any other text. `entry` is what `candidate` stands for."""
    functions = {item.name: item for item in body if isinstance(item, ast.FunctionDef)}
    compared = functions.get("assertion")
    if compared is None or not _names(ast.Module(body=compared.body, type_ignores=[])) <= _COMPARED:
        return None
    inner = functions["check"].body if "check" in functions else body
    lists: dict[str, Any] = {}
    call: ast.Call | None = None
    for item in inner:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name) and item.targets[0].id in _LISTS:
            lists[item.targets[0].id] = _value(item.value)
        elif isinstance(item, ast.For) and len(item.body) == 1 and isinstance(item.body[0], ast.Expr):
            value = item.body[0].value
            call = value if isinstance(value, ast.Call) and ast.unparse(value.func) == "assertion" else None
    if call is None or len(call.args) != 3 or any(not isinstance(lists.get(name), list) for name in _LISTS):
        return None
    called, expected, atol = call.args
    if ast.unparse(expected) != "exp" or not isinstance(called, ast.Call) or not isinstance(called.func, ast.Name):
        return None
    if [ast.unparse(argument) for argument in called.args] != ["*inp"] or not isinstance(atol, ast.Constant):
        return None
    name = entry if called.func.id == "candidate" and entry else called.func.id
    pairs = zip(lists["inputs"], lists["results"], strict=True)
    return [assertion(name, list(arguments), value, float(atol.value)) for arguments, value in pairs]


def without_numpy(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Such a test's statements with numpy's import replaced by what they call of it; any others as they are."""
    if not any(isinstance(item, ast.FunctionDef) and item.name == "assertion" for item in body):
        return list(body)
    text = "import numpy as np"
    return [new for item in body for new in (ast.parse(_NUMPY).body if ast.unparse(item) == text else [item])]


def assertion(entry: str, arguments: Sequence[Any], expected: Any, atol: float) -> str:
    """EvalPlus' comparison of one output: equal, or near where floats are expected or a tolerance is given."""
    call, wanted = f"{entry}({', '.join(map(source, arguments))})", source(expected)
    floats = [expected] if isinstance(expected, float) else expected if isinstance(expected, list | tuple) else ()
    are_floats = bool(floats) and all(isinstance(item, float) for item in floats)
    if not are_floats and atol == 0:
        return f"assert {call} == {wanted}"
    finite = isinstance(expected, int | float) and not isinstance(expected, bool) and math.isfinite(expected)
    if not finite and not (isinstance(expected, list | tuple) and _is_plain(expected)):
        return f"assert {call} == {wanted}"
    return f"assert math.isclose({call}, {wanted}, rel_tol=1e-7, abs_tol={atol or 1e-6})"


def _is_plain(value: Any) -> bool:
    """Whether a value is none but lists and tuples of literals: what the verifier compares item by item."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return not isinstance(value, set | frozenset | dict)


def source(value: Any) -> str:
    """A value as Python text; repr, but for floats that have no literal."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, list):
        return f"[{', '.join(map(source, value))}]"
    if isinstance(value, tuple):
        return f"({''.join(source(item) + ', ' for item in value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{source(key)}: {source(item)}' for key, item in value.items())}}}"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}([{', '.join(map(source, value))}])"
    return repr(value)


def _names(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


def _value(node: ast.expr) -> Any:
    """The value of a literal in which inf, nan and set() may stand; None where it is more than that."""
    try:
        return _evaluated(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None


def _evaluated(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _NUMBERS:
        return _NUMBERS[node.id]
    if isinstance(node, ast.List):
        return [_evaluated(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_evaluated(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        items = zip(node.keys, node.values, strict=True)
        return {_evaluated(key): _evaluated(value) for key, value in items if key is not None}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Name):
        return -_evaluated(node.operand)
    return ast.literal_eval(node)
