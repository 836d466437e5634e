"""Groups without an engine."""

from __future__ import annotations

from collections.abc import Sequence

from assay.types import (
    Completion,
    FinishReason,
    Message,
    RewardResult,
    RolloutGroup,
    ScoredGroup,
    Task,
    Verdict,
)


def make_task(name: str = "t") -> Task:
    return Task(id=name, messages=(Message(role="user", content=name),), verifier="function", answer={"tests": [1]})


def make_completion(tokens: Sequence[int], finish: FinishReason = FinishReason.STOP, version: int = 0) -> Completion:
    return Completion(
        token_ids=tuple(tokens),
        logprobs=(-1.0,) * len(tokens),
        text="x",
        finish_reason=finish,
        policy_version=(version, version),
    )


def make_result(reward: float | None) -> RewardResult:
    if reward is None:
        return RewardResult(verdict=Verdict.INFRA, reward=None, detail="box died")
    return RewardResult(verdict=Verdict.AC if reward == 1 else Verdict.WA, reward=reward, parts={"compiler": reward})


def make_scored(rewards: Sequence[float | None], lengths: Sequence[int], name: str = "t") -> ScoredGroup:
    completions = tuple(make_completion([7] * (n - 1) + [1]) for n in lengths)
    group = RolloutGroup(task=make_task(name), prompt_ids=(0, 5, 6), completions=completions)
    return ScoredGroup(group=group, results=tuple(make_result(r) for r in rewards))
