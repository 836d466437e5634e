"""Verifier "custom": a reward function of the user's own, with the signature TRL calls reward functions by.

    {"function": "my_rewards.py:brevity", "columns": {"target_length": 80}}

    def brevity(prompts, completions, **columns) -> list[float | None]

The function is loaded from a file, never by module name, or is an entry point of the group `assay.rewards`. One that
is decorated with `rewards.define.reward` judges one completion at a time in processes of its own (see there). Any other
is called once per group with lists of G entries:
`prompts` are conversations, `completions` are conversations of one assistant message, `completion_ids` are token
ids, and each column of the answer record is repeated G times. It may be a coroutine function. It is the user's own
code and runs here, without a box: it must not execute what a completion says.

A number is the reward, and the verdict AC where it is positive, else WA. A list of (index of a step's last token, worth
of the step) pairs is process supervision: the steps, and their mean as the reward. None, a number that is not finite,
a list of another length or an exception is a failure of the function, not of the completion: INFRA, no reward.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from assay.errors import DataError, InfraFailure, boundary
from assay.types import RewardResult, RolloutGroup, Task, Verdict
from rewards.define import terms_of
from rewards.processes import call_each, load
from rewards.verifiers.base import record_of

RewardFunction = Callable[..., Any]


class CustomVerifier:
    """Calls a reward function from a file."""

    def check_group(self, task: Task) -> None:
        """Loads the function; DataError when there is none."""
        _function_of(task)

    def judge_group(self, group: RolloutGroup) -> list[RewardResult]:
        """One result per completion. Raises InfraFailure when the function raises or returns no list of G entries."""
        function, columns = _function_of(group.task)
        count = len(group.completions)
        terms = terms_of(function)
        if terms is not None:
            texts = [completion.text for completion in group.completions]
            asked = group.task.messages[-1].content
            return [_result(said) for said in call_each(group.task.answer["function"], terms, asked, texts, columns)]
        prompt = [{"role": message.role, "content": message.content} for message in group.task.messages]
        with boundary(f"reward function {group.task.answer['function']}"):
            rewards = function(
                prompts=[list(prompt) for _ in range(count)],
                completions=[[{"role": "assistant", "content": c.text}] for c in group.completions],
                completion_ids=[list(c.token_ids) for c in group.completions],
                **{name: [value] * count for name, value in columns.items()},
            )
            if inspect.isawaitable(rewards):
                rewards = asyncio.run(_wait_for(rewards))
            rewards = list(rewards)
        if len(rewards) != count:
            name = group.task.answer["function"]
            raise InfraFailure(f"reward function {name} returned {len(rewards)} rewards for {count} completions")
        return [_result(reward) for reward in rewards]


async def _wait_for(rewards: Any) -> Any:
    return await rewards


def _result(reward: Any) -> RewardResult:
    if isinstance(reward, str):
        return _failed(f"the reward function failed: {reward:.300}")
    if isinstance(reward, list | tuple):
        return _of_steps(reward)
    try:
        number = None if reward is None else float(reward)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if number is None or not math.isfinite(number):
        return _failed(f"the reward function gave {reward!r:.100}")
    verdict = Verdict.AC if number > 0 else Verdict.WA
    return RewardResult(verdict=verdict, reward=number, parts={"compiler": number}, isolation="none:user's own code")


def _of_steps(pairs: Sequence[Any]) -> RewardResult:
    try:
        steps = tuple((int(end), float(worth)) for end, worth in pairs)
    except (TypeError, ValueError, OverflowError):
        steps = ()
    if not steps or not all(math.isfinite(worth) for _, worth in steps):
        return _failed(f"the reward function gave {pairs!r:.100}")
    return replace(_result(fmean(worth for _, worth in steps)), steps=steps)


def _failed(detail: str) -> RewardResult:
    return RewardResult(verdict=Verdict.INFRA, reward=None, detail=detail, isolation="none:user's own code")


def _function_of(task: Task) -> tuple[RewardFunction, Mapping[str, Any]]:
    answer = record_of(task, ("function",), ("columns",))
    columns = answer.get("columns", {})
    if not isinstance(columns, Mapping):
        raise DataError(f"task {task.id!r}: columns must be a mapping of column names to values")
    if not isinstance(answer["function"], str):
        raise DataError(f"task {task.id!r}: function={answer['function']!r} must be text")
    try:
        return load(answer["function"]), columns
    except DataError as error:
        raise DataError(f"task {task.id!r}: {error}") from None
