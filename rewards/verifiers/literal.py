"""Verifier "literal": is the value that a text ends with the expected one? For tasks that ask what a program returns.

    {"answer": "[(4, 1), (2, 3)]"}      a Python literal

Read is the last fenced block or what the last pair of [ANSWER] and [/ANSWER] holds, whichever ends later, else the last
line that is not blank; of `assert f(1) == 2`, `f(1) == 2` and `found = 2` what stands on the right, of "The answer is
**2**." what is left without the words and marks. It must be one literal: nothing of it is ever evaluated, so an answer
that would compute the value is none. Values are compared as `==` does, but True is not 1.

Text that a model wrote can be nested too deep for a parser, so it is read in processes that are killed after a while.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from assay.errors import DataError
from assay.types import RewardResult, RolloutGroup, Task, Verdict
from rewards.define import Terms
from rewards.processes import call_each
from rewards.verifiers.base import record_of

TERMS = Terms(timeout_s=10.0, concurrency=2)
MAX_CHARACTERS = 100_000  #: of a value; a longer one is wrong
_ISOLATION = "none:a literal is read in a process"
_FENCED = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^\n`]*\n(.*?)^[ \t]*(?:`{3,}|~{3,})[ \t]*$", re.MULTILINE | re.DOTALL)
_TAGGED = re.compile(r"\[ANSWER\](.*?)\[/ANSWER\]", re.DOTALL)
_LED = re.compile(  #: how an answer leads to its value
    r"(?:\*\*)?(?:(?:so|thus|hence|therefore|and),?\s+)?(?:the\s+)?(?:final\s+|correct\s+|expected\s+|returned?\s+)?"
    r"(?:answer|output|result|value)(?:\s+is)?\s*(?:\*\*:|:\*\*|[:=])?\s*(.+)",
    re.IGNORECASE | re.DOTALL,
)
_MARKS = ("**", "__", "``", "`", "*")  #: of Markdown, around a value
_UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


class LiteralVerifier:
    """Compares values that were written down."""

    def check_group(self, task: Task) -> None:
        """Raises DataError when the reference is no literal."""
        expected_of(task)

    def judge_group(self, group: RolloutGroup) -> list[RewardResult]:
        """One result per completion."""
        expected = expected_of(group.task)
        texts = [completion.text for completion in group.completions]
        said = call_each(f"{__file__}:equal", TERMS, "", texts, {"expected": expected})
        late = [number for number, value in enumerate(said) if not isinstance(value, float)]
        if late:  # a busy machine, or a text that kills its reader: once may be chance
            again = call_each(f"{__file__}:equal", TERMS, "", [texts[n] for n in late], {"expected": expected})
            for number, value in zip(late, again, strict=True):
                said[number] = value
        failed = not all(isinstance(value, float) for value in said)
        control = call_each(f"{__file__}:equal", TERMS, "", [expected], {"expected": expected})[0] if failed else 1.0
        return [_result(value, control) for value in said]


def equal(prompt: str, completion: str, *, expected: str) -> float:
    """1.0 where the value that a text ends with equals `expected`, else 0.0. Runs in a process of its own."""
    try:
        found = _claimed(answer_in(completion))
    except _UNREADABLE:
        return 0.0
    return 1.0 if _same(found, value_of(expected)) else 0.0


def answer_in(text: str) -> str:
    """The part of a text that its value stands in; empty where there is none."""
    text, inner = text.replace("\r\n", "\n"), ""
    for _ in range(2):  # a fence may stand between the tags, and tags in a fence
        blocks = [found for kind in (_FENCED, _TAGGED) for found in kind.finditer(inner or text) if found[1].strip()]
        if not blocks:
            break
        inner = max(blocks, key=lambda found: found.end())[1].strip()
    return inner or next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _claimed(text: str) -> Any:
    """The value that an answer claims: that of the text, or of what is left without the words and marks around it."""
    try:
        return value_of(text)
    except _UNREADABLE:
        if len(text) > MAX_CHARACTERS:
            raise
    bare = _bare(text)
    led = _LED.fullmatch(bare)
    (statement,) = ast.parse(_bare(led[1]) if led else bare).body
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return ast.literal_eval(statement.value)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Compare):
        left, (operator, *more) = statement.value.left, statement.value.ops
        if isinstance(left, ast.Call) and isinstance(operator, ast.Eq) and not more:
            return ast.literal_eval(statement.value.comparators[0])
    return value_of(ast.unparse(statement))


def _bare(text: str) -> str:
    """A text without the full stop behind it and without marks around it."""
    text = text.strip().removesuffix(".").strip()
    for mark in _MARKS:
        if text.startswith(mark) and text.endswith(mark) and len(text) > 2 * len(mark):
            return _bare(text[len(mark) : -len(mark)])
    return text


def value_of(text: str) -> Any:
    """The value of a literal, or of the right side of `assert ... == literal`. Raises ValueError, SyntaxError and what
    a parser raises for text that is nested too deep."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError("too long for a value")
    (statement,) = ast.parse(text).body
    if isinstance(statement, ast.Assert):
        test = statement.test
        if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
            raise ValueError("asserts no equality")
        return ast.literal_eval(test.comparators[0])
    if not isinstance(statement, ast.Expr):
        raise ValueError("no expression")
    return ast.literal_eval(statement.value)


def expected_of(task: Task) -> str:
    """The reference of a task. Raises DataError where it is no literal."""
    answer = record_of(task, ("answer",), ())["answer"]
    if not isinstance(answer, str):
        raise DataError(f"task {task.id!r}: answer {answer!r} must be the text of a Python literal")
    try:
        value_of(answer.strip())
    except _UNREADABLE as error:
        raise DataError(f"task {task.id!r}: answer {answer!r:.100} is no Python literal: {error}") from None
    return answer.strip()


def _same(one: Any, other: Any) -> bool:
    if type(one) is bool or type(other) is bool:
        return type(one) is type(other) and one == other
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        same = isinstance(other, dict) and one == other
        return same and all(_same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _result(value: float | str | None, control: float | str | None) -> RewardResult:
    """What a text is worth of which `value` was said, and `control` of the reference where any text failed."""
    if not isinstance(value, float) and not isinstance(control, float):
        detail = f"{value}; of the reference: {control}"
        return RewardResult(verdict=Verdict.INFRA, reward=None, detail=detail, isolation=_ISOLATION)
    worth = value if isinstance(value, float) else 0.0
    detail = "" if isinstance(value, float) else f"unreadable: {value}"
    verdict = Verdict.AC if worth > 0 else Verdict.WA
    return RewardResult(verdict=verdict, reward=worth, parts={"compiler": worth}, detail=detail, isolation=_ISOLATION)
