"""Rows of contest sets as their authors publish them, made into tasks in Python: programs by input and output, and
functions by the values they return.

    apps           question, input_output {inputs, outputs, fn_name}, solutions, starter_code
                   (Hendrycks et al. 2021, arXiv 2105.09938)
    code_contests  description, public_tests, private_tests, generated_tests, solutions, time_limit (Li et al. 2022,
                   arXiv 2203.07814)
    livecodebench  question_content, starter_code, public_test_cases, private_test_cases, metadata {func_name}
                   (Jain et al. 2024, arXiv 2403.07974)
    leetcode       task_id, prompt, prompt_sft, test (Guo et al. 2024, arXiv 2401.14196): methods of a class Solution

CodeContests and LiveCodeBench also as SandboxFusion keeps them: id, content, test, labels. Outputs are compared word by
word, numbers as text: a problem that allows several right outputs needs a checker, which none of these sets has.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assay.types import Task
from rollouts.wording import asked, block

Row = Mapping[str, Any]

#: a task's language -> how CodeContests marks a solution in it: as a number, or by the name of that
_CODE_CONTESTS = {"python": (3, "PYTHON3"), "cpp": (2, "CPP"), "java": (4, "JAVA")}
_MAX_BYTES = 1 << 28  #: of tests unpacked
#: what contest sites of functions have imported before an answer runs
_PRELUDE = """import bisect, collections, functools, heapq, itertools, math, operator, random, re, string
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, lru_cache, reduce
from heapq import heapify, heappop, heappush
from itertools import accumulate, combinations, permutations, product
from math import ceil, floor, gcd, inf, sqrt
from typing import *
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""


def apps(row: Row) -> Task:
    """APPS: solutions in Python, tests with text for input and output or with arguments and a result."""
    solutions = _json(row.get("solutions") or "[]")
    tests = _json(row["input_output"] or None)
    if not isinstance(tests, dict):
        raise ValueError(f"input_output is {row['input_output']!r:.60}, expected an object with inputs and outputs")
    return _task(
        f"apps/{row['problem_id'] if 'problem_id' in row else row['id']}",
        row["question"],
        _by_name(tests["inputs"], tests["outputs"], tests.get("fn_name"), row.get("starter_code") or "", lines=False),
        starter=row.get("starter_code") or "",
        good=solutions[0] if solutions else None,
    )


def code_contests(row: Row) -> Task:
    """CodeContests: all of its tests; the reference is its first solution in the language.

    That is Python 3, or what a key `language` of the row says: python, cpp or java.
    """
    language = row.get("language", "python")
    if language not in _CODE_CONTESTS:
        raise ValueError(f"no language {language!r}; there are {', '.join(_CODE_CONTESTS)}")
    if "test" in row:
        tests = [(test["input"]["stdin"], test["output"]["stdout"]) for test in _json(row["test"])]
        return _task(f"code_contests/{row['id']}", row["content"], _by_streams(tests, language))
    parts = ("public_tests", "private_tests", "generated_tests")
    tests = [pair for part in parts for pair in _columns(part, row.get(part), "input", "output")]
    written = _columns("solutions", row.get("solutions"), "language", "solution")
    good = next((text for mark, text in written if mark in _CODE_CONTESTS[language]), None)
    judged = _by_streams(tests, language)
    seconds = _seconds(row.get("time_limit"))
    if seconds > 0:
        judged["answer"]["limits"] = {"cpu_s": seconds}
    name = f"code_contests/{row['name']}" if language == "python" else f"code_contests/{row['name']}/{language}"
    return _task(name, row["description"], judged, good=good)


def livecodebench(row: Row) -> Task:
    """LiveCodeBench: public and private tests. There is no known-good program."""
    if "test" in row:
        tests = _json(_unpacked(row["test"])["input_output"])
        name, starter = tests.get("fn_name"), row["content"]
        judged = _by_name(tests["inputs"], tests["outputs"], name, starter, lines=True)
        return _task(f"livecodebench/{row['id']}", row["content"], judged)
    cases = [*_json(row["public_test_cases"]), *_private(row.get("private_test_cases") or "[]")]
    name = _json(row.get("metadata") or "{}").get("func_name")
    starter = row.get("starter_code") or ""
    if not name and any(case.get("testtype") == "functional" for case in cases):
        raise ValueError("its tests call a function, and its metadata has no func_name")
    inputs, outputs = [case["input"] for case in cases], [case["output"] for case in cases]
    judged = _by_name(inputs, outputs, name, starter, lines=True)
    return _task(f"livecodebench/{row['question_id']}", row["question_content"], judged, starter=starter)


def leetcode(row: Row) -> Task:
    """DeepSeek-Coder's LeetCode contests: `test_input = {...}` and an assertion about it, by turns."""
    given: dict[str, ast.expr] = {"my_solution": ast.parse("Solution()", mode="eval").body}
    setup, tests = list[str](), list[str]()
    for item in ast.parse(row["test"]).body:
        if isinstance(item, ast.Assert):
            tests.append(ast.unparse(_Filled(given).visit(item)))
        elif isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) in ("my_solution", "test_input"):
            given[ast.unparse(item.targets[0])] = item.value
        else:
            setup.append(ast.unparse(item))
    if not tests:
        raise ValueError("test has no assertion beside `my_solution` and `test_input`")
    answer = {"language": "python", "tests": tests, "prelude": _PRELUDE, "setup": "\n".join(setup)}
    return Task(
        id=f"leetcode/{row['task_id']}",
        messages=asked(str(row["prompt_sft"] if "prompt_sft" in row else row["prompt"]).strip(), "python"),
        verifier="asserts",
        answer=answer,
        source="leetcode",
    )


class _Filled(ast.NodeTransformer):
    """Names replaced by what they were assigned."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._values.get(node.id, node)


def _task(
    task_id: str, question: str, judged: Mapping[str, Any], *, starter: str = "", good: str | None = None
) -> Task:
    by_function, language = judged["verifier"] == "asserts", judged["answer"]["language"]
    how = "Read standard input and write to standard output."
    if starter:
        how = f"The program begins like this:\n\n{block('python', starter)}"
    elif by_function:
        how = f"Write the function `{judged['answer']['tests'][0].split('(')[0].removeprefix('assert ')}`."
    return Task(
        id=task_id,
        messages=asked(f"{question.strip()}\n\n{how}", language),
        source=task_id.partition("/")[0],
        reference=None if good is None else block(language, good),
        **judged,
    )


def _by_streams(tests: Sequence[tuple[str, str]], language: str = "python") -> dict[str, Any]:
    """`verifier` and `answer` for tests that are texts."""
    if not tests:
        raise ValueError("has no tests: nothing stands in the fields for inputs and outputs")
    given = [{"input": _text(one), "output": _text(other)} for one, other in tests]
    return {"verifier": "stdio", "answer": {"language": language, "tests": given, "comparator": "tokens"}}


def _by_name(
    inputs: Sequence[Any], outputs: Sequence[Any], name: str | None, starter: str, *, lines: bool
) -> dict[str, Any]:
    """`verifier` and `answer`; where a function has a name, its arguments are JSON: a list, or a text with one to
    a line (`lines`: so are all of them, and the outputs)."""
    if len(inputs) != len(outputs):
        raise ValueError(f"has {len(inputs)} inputs and {len(outputs)} outputs")
    if not name or not inputs:
        return _by_streams(list(zip(inputs, outputs, strict=True)))
    lines = lines or all(isinstance(given, str) for given in inputs)
    call = f"Solution().{name}" if "class Solution" in starter else name
    # APPS: mostly each is a list of the one value that is returned
    wrapped = all(isinstance(expected, list) and len(expected) == 1 for expected in outputs)
    tests = []
    for given, expected in zip(inputs, outputs, strict=True):
        parted = isinstance(given, str) and lines
        arguments = [_value(line) for line in given.splitlines() if line.strip()] if parted else given
        if not isinstance(arguments, list):
            raise ValueError(f"an input is {given!r:.60}, expected a list of the arguments, or a line for each")
        value = _value(expected) if lines else expected[0] if wrapped else expected
        tests.append(f"assert {call}({', '.join(map(repr, arguments))}) == {value!r}")
    answer = {"language": "python", "tests": tests, "prelude": _PRELUDE, "tuples": "lists"}  # as the sets' own testers
    return {"verifier": "asserts", "answer": answer}


def _value(text: Any) -> Any:
    """An argument or a result that is JSON. Raises ValueError."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise ValueError(f"{text!r:.60} of a test by function is no JSON: {error}") from None


def _columns(field: str, given: Any, one: str, other: str) -> list[tuple[Any, Any]]:
    """Pairs of a field that is an object of two lists, or a list of objects. Raises ValueError."""
    if isinstance(given, list) and all(isinstance(item, dict) and one in item and other in item for item in given):
        return [(item[one], item[other]) for item in given]
    columns = given if isinstance(given, dict) else {} if given is None else {one: None}
    first, second = columns.get(one, []), columns.get(other, [])
    if not isinstance(first, list) or not isinstance(second, list) or len(first) != len(second):
        raise ValueError(f"{field} is {given!r:.60}, expected equally long lists {one} and {other}")
    return list(zip(first, second, strict=True))


def _seconds(limit: Any) -> float:
    """A `time_limit` in seconds, {seconds, nanos} or a number; 0 where it says none. Raises ValueError."""
    fields = limit if isinstance(limit, dict) else {"seconds": limit}
    parts = [0 if fields.get(key) is None else fields[key] for key in ("seconds", "nanos")]
    if not all(isinstance(part, int | float) for part in parts):
        raise ValueError(f"time_limit is {limit!r:.60}, expected {{seconds, nanos}} in numbers")
    return float(parts[0] + parts[1] / 1e9)


def _text(value: Any) -> str:
    """An input or output; some rows of APPS hold lists of lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _private(packed: Any) -> list[Any]:
    """LiveCodeBench's private tests: JSON, or JSON in a pickle, compressed, in base64."""
    if isinstance(packed, str) and not packed.lstrip().startswith("["):
        packed = _unpacked(packed)
    return list(_json(packed))


def _unpacked(packed: str) -> Any:
    """What a compressed pickle in base64 holds: texts, numbers, lists and dicts. Anything else is refused."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(base64.b64decode(packed), _MAX_BYTES)
        if inflater.unconsumed_tail:
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        return _Plain(io.BytesIO(data)).load()
    except (zlib.error, pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"its tests cannot be unpacked: {error}") from None


class _Plain(pickle.Unpickler):
    """Reads a pickle that names no class and no function."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}")


#: name of a task file's `format` -> a row of it as a task
CONTEST_FORMATS: dict[str, Callable[[Row], Task]] = {
    "apps": apps,
    "code_contests": code_contests,
    "livecodebench": livecodebench,
    "leetcode": leetcode,
}
