"""Groups without an engine, and a tiny policy on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from assay.policy import InitConfig, PolicyConfig, create_policy
    from assay.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["def f(n): return n + 1", "sum of the squares"] * 3, vocab_size=300)
    init = InitConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        qk_nope_head_dim=16,
        v_head_dim=16,
        intermediate_size=32,
        moe_intermediate_size=32,
        n_routed_experts=4,
        initializer_range=0.1,
    )
    folder = tmp_path_factory.mktemp("tiny") / "policy"
    return create_policy(PolicyConfig(init=init, vocab_size=300), tokenizer, 0, folder)
