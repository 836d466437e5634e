r"""Verifier "math": is the final answer of a text equal to the reference, as mathematics?

    {"answer": "\\frac{1}{2}"}      or GSM8K's own {"answer": "... #### 42"}, of which what follows #### counts

Uses math-verify (SymPy behind it), which reads \boxed{...}, the last formula or the last number of the text. Parsing
what a model wrote can take for ever or exhaust the stack, so it happens in processes that are killed after a while;
such an answer is refused as unreadable after a second try, and not as a failure of the harness: the reference alone
must be readable, which is checked before anything is judged.
"""

from __future__ import annotations

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


class MathVerifier:
    """Compares final answers."""

    def check_group(self, task: Task) -> None:
        """Raises DataError when the reference has no readable answer, EnvironmentProblem without math-verify."""
        answer_of(task)

    def judge_group(self, group: RolloutGroup) -> list[RewardResult]:
        """One result per completion."""
        gold = answer_of(group.task)
        texts = [completion.text for completion in group.completions]
        said = call_each(f"{__file__}:equal", TERMS, "", texts, {"gold": gold})
        late = [number for number, value in enumerate(said) if isinstance(value, str)]
        if late:  # a busy machine, or an answer that cannot be parsed: once may be chance
            again = call_each(f"{__file__}:equal", TERMS, "", [texts[number] for number in late], {"gold": gold})
            for number, value in zip(late, again, strict=True):
                said[number] = value
        return [_result(value) for value in said]


def equal(prompt: str, completion: str, *, gold: str) -> float:
    """1.0 where the text's final answer equals `gold`, else 0.0. Runs in a process of its own."""
    from math_verify import parse, verify

    # Their own time limits use SIGALRM, which code in the process could catch; ours is the death of the process.
    wanted = parse(f"${gold}$", parsing_timeout=None) or parse(gold, parsing_timeout=None)
    found = parse(completion, parsing_timeout=None)
    return 1.0 if found and verify(wanted, found, timeout_seconds=None) else 0.0


def answer_of(task: Task) -> str:
    """The reference answer of a task."""
    gold = record_of(task, ("answer",), ())["answer"]
    if not isinstance(gold, str) or not gold.strip():
        raise DataError(f"task {task.id!r}: answer {gold!r} must be text with a final answer")
    gold = gold.rpartition("####")[2].strip().replace(",", "") if "####" in gold else gold.strip()
    if not _readable(gold):
        raise DataError(f"task {task.id!r}: math-verify reads no answer in {gold!r}")
    return gold


@lru_cache(maxsize=4096)
def _readable(gold: str) -> bool:
    if find_spec("math_verify") is None:
        raise EnvironmentProblem("verifier 'math' needs math-verify: pip install 'assay[math]'")
    from math_verify import parse

    found: list[Any] = parse(f"${gold}$", parsing_timeout=None) or parse(gold, parsing_timeout=None)
    return bool(found)


def _result(value: float | str | None) -> RewardResult:
    if isinstance(value, str) or value is None:
        return RewardResult(
            verdict=Verdict.WA, reward=0.0, parts={"compiler": 0.0}, detail=f"unreadable: {value}", isolation=_ISOLATION
        )
    verdict = Verdict.AC if value > 0 else Verdict.WA
    return RewardResult(verdict=verdict, reward=value, parts={"compiler": value}, isolation=_ISOLATION)
