r"""Verifier "math": is the final answer of a text equal to the reference, as mathematics?

    {"answer": "\\frac{1}{2}"}      or GSM8K's own {"answer": "... #### 42"}, of which what follows #### counts,
                                  or MATH's own {"answer": "... $\\boxed{42}$ ..."}, read as any other text

Uses math-verify (SymPy behind it), which reads \boxed{...}, the last formula or the last number of the text; where the
reference is in GSM8K's form, a last line that begins with #### is read before anything else. Parsing
what a model wrote can take for ever or exhaust the stack, so it happens in processes that are killed after a while.
An answer that failed twice is refused as unreadable where the reference, asked about in the same processes behind it,
is read. Where that fails too, the processes are what fails (a machine out of memory, say), and the answer is INFRA.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from assay.errors import DataError, EnvironmentProblem
from assay.types import RewardResult, RolloutGroup, Task, Verdict
from rewards.define import Terms
from rewards.processes import call_each
from rewards.verifiers.base import record_of

TERMS = Terms(timeout_s=10.0, concurrency=2)
_ISOLATION = "none:math-verify in a process"
_BOXED = "\\boxed"
_LAST_LINE = re.compile(r"^####[ \t]*(\S.*)\s*\Z", re.MULTILINE)  #: GSM8K's form of a final answer
_COMMAS = r"(?<=\d),(?=\d{3})"  #: of thousands


class MathVerifier:
    """Compares final answers."""

    def check_group(self, task: Task) -> None:
        """Raises DataError when the reference has no readable answer, EnvironmentProblem without math-verify."""
        answer_of(task)

    def judge_group(self, group: RolloutGroup) -> list[RewardResult]:
        """One result per completion."""
        gold = answer_of(group.task)
        texts = [completion.text for completion in group.completions]
        said = _compared(texts, gold)
        late = [number for number, value in enumerate(said) if not isinstance(value, float)]
        if late:  # a busy machine, or an answer that cannot be parsed: once may be chance
            for number, value in zip(late, _compared([texts[number] for number in late], gold), strict=True):
                said[number] = value
        failed = not all(isinstance(value, float) for value in said)
        asked = gold if "####" in gold or _BOXED in gold else f"$\\boxed{{{gold}}}$"
        control = _compared([asked], gold)[0] if failed else 0.0  # alone, when they are all over
        return [_result(value, control) for value in said]


def equal(prompt: str, completion: str, *, gold: str) -> float:
    """1.0 where the text's final answer equals `gold`, else 0.0. Runs in a process of its own."""
    from math_verify import parse, verify

    # Their own time limits use SIGALRM, which code in the process could catch; ours is the death of the process.
    last = _LAST_LINE.search(completion) if "####" in gold else None
    found = parse(re.sub(_COMMAS, "", last[1]), parsing_timeout=None) if last else None
    found = found or parse(completion, parsing_timeout=None)
    return 1.0 if found and verify(_reference(gold), found, timeout_seconds=None) else 0.0


def answer_of(task: Task) -> str:
    """The reference answer of a task."""
    gold = record_of(task, ("answer",), ())["answer"]
    if not isinstance(gold, str) or not gold.strip():
        raise DataError(f"task {task.id!r}: answer {gold!r} must be text with a final answer")
    gold = "####" + gold.rpartition("####")[2] if "####" in gold else gold.strip()
    if not _readable(gold):
        raise DataError(f"task {task.id!r}: math-verify reads no answer in {gold!r}")
    return gold


def _reference(gold: str) -> list[Any]:
    """What math-verify reads in a reference."""
    from math_verify import parse

    bare = gold.removeprefix("####").strip()
    bare = bare.replace(",", "") if bare != gold else bare
    found: list[Any] = [] if _BOXED in gold else parse(f"${bare}$", parsing_timeout=None)
    return found or parse(bare, parsing_timeout=None)


@lru_cache(maxsize=4096)
def _readable(gold: str) -> bool:
    if find_spec("math_verify") is None:
        raise EnvironmentProblem("verifier 'math' needs math-verify: pip install 'assay[math]'")
    return bool(_reference(gold))


def _compared(texts: Sequence[str], gold: str) -> list[float | str | None]:
    return call_each(f"{__file__}:equal", TERMS, "", texts, {"gold": gold})


def _result(value: float | str | None, control: float | str | None) -> RewardResult:
    """What an answer is worth of which `value` was said, and `control` of the reference where any answer failed."""
    if not isinstance(value, float) and not isinstance(control, float):
        detail = f"{value}; of the reference: {control}"
        return RewardResult(verdict=Verdict.INFRA, reward=None, detail=detail, isolation=_ISOLATION)
    if not isinstance(value, float):
        return RewardResult(
            verdict=Verdict.WA, reward=0.0, parts={"compiler": 0.0}, detail=f"unreadable: {value}", isolation=_ISOLATION
        )
    verdict = Verdict.AC if value > 0 else Verdict.WA
    return RewardResult(verdict=verdict, reward=value, parts={"compiler": value}, isolation=_ISOLATION)
