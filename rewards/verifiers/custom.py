"""Verifier "custom": a reward function of the user's own, with the signature TRL calls reward functions by.

    {"function": "my_rewards.py:brevity", "columns": {"target_length": 80}}

    def brevity(prompts, completions, **columns) -> list[float | None]

The function is loaded from a file, never by module name, and called once per group with lists of G entries:
`prompts` are conversations, `completions` are conversations of one assistant message, `completion_ids` are token
ids, and each column of the answer record is repeated G times. It may be a coroutine function. It is the user's own
code and runs here, without a box: it must not execute what a completion says.

A number is the reward, and the verdict AC where it is positive, else WA. None, a number that is not finite, a list
of another length or an exception is a failure of the function, not of the completion: INFRA, no reward.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from assay.errors import DataError, InfraFailure, boundary
from assay.types import RewardResult, RolloutGroup, Task, Verdict
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
    try:
        number = None if reward is None else float(reward)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if number is None or not math.isfinite(number):
        detail = f"the reward function gave {reward!r:.100}"
        return RewardResult(verdict=Verdict.INFRA, reward=None, detail=detail, isolation="none:user's own code")
    verdict = Verdict.AC if number > 0 else Verdict.WA
    return RewardResult(verdict=verdict, reward=number, parts={"compiler": number}, isolation="none:user's own code")


def _function_of(task: Task) -> tuple[RewardFunction, Mapping[str, Any]]:
    answer = record_of(task, ("function",), ("columns",))
    name = answer["function"]
    path, _, attribute = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    if not path.endswith(".py") or not attribute:
        raise DataError(f"task {task.id!r}: function={name!r} must look like path/to/file.py:function")
    columns = answer.get("columns", {})
    if not isinstance(columns, Mapping):
        raise DataError(f"task {task.id!r}: columns must be a mapping of column names to values")
    function = getattr(_module_at(str(Path(path).expanduser().resolve())), attribute, None)
    if not callable(function):
        raise DataError(f"task {task.id!r}: {path} has no function {attribute!r}")
    return function, columns


@lru_cache(maxsize=64)
def _module_at(path: str) -> Any:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file with reward functions")
    # A name nobody imports, so that the file never shadows a module of that name.
    spec = importlib.util.spec_from_file_location(f"assay_custom_{abs(hash(path)):x}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with boundary(f"loading {path}"):
        spec.loader.exec_module(module)
    return module
