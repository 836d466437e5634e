"""pass@1 on held-out tasks: the same engine and the same tests as in training, and no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from assay.types import RolloutGroup, ScoredGroup, Task
from evals.config import EvalConfig
from evals.passk import EvalResult, Sample
from rollouts.engine import Sampling


class Rollouts(Protocol):
    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]: ...


class Rewards(Protocol):
    def judge(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]: ...


def evaluate(
    name: str,
    tasks: Sequence[Task],
    rollouts: Rollouts,
    rewards: Rewards,
    config: EvalConfig,
    *,
    max_completion_tokens: int,
    seed: int,
) -> EvalResult:
    """Decode every task greedily and sampled, run its tests, count. INFRA is left out of n, and counted."""
    tasks = tasks[: config.limit]
    longest = config.max_completion_tokens or max_completion_tokens
    greedy = Sampling(temperature=0.0, max_tokens=longest, samples=1, seed=seed)
    sampled = Sampling(temperature=config.temperature, max_tokens=longest, samples=config.samples, seed=seed)
    samples = {mode: _samples(tasks, rollouts, rewards, draw) for mode, draw in (("g", greedy), ("s", sampled))}
    return EvalResult.of(name, greedy=samples["g"], sampled=samples["s"])


def _samples(tasks: Sequence[Task], rollouts: Rollouts, rewards: Rewards, sampling: Sampling) -> list[Sample]:
    scored = rewards.judge(rollouts.generate(tasks, sampling))
    return [Sample(g.group.task.id, g.group.task.source, r.verdict) for g in scored for r in g.results]
