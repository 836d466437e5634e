"""pass@1 on held-out tasks: the same engine and the same tests as in training, and no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from assay.progress import Progress, progress
from assay.types import RolloutGroup, ScoredGroup, Task
from evals.config import EvalConfig
from evals.passk import EvalResult, Sample
from rollouts.engine import Sampling

CHUNK = 256  #: tasks generated and judged at once: enough to fill an engine, few enough to show progress


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
    samples: dict[str, list[Sample]] = {"greedy": [], "sampled": []}
    bar: Progress[int] = progress(2 * len(tasks), f"evaluating {name}")
    with bar:
        for mode, sampling in (("greedy", greedy), ("sampled", sampled)):
            for first in range(0, len(tasks), CHUNK):
                chunk = tasks[first : first + CHUNK]
                scored = rewards.judge(rollouts.generate(chunk, replace(sampling, seed=sampling.seed + first)))
                samples[mode] += [
                    Sample(g.group.task.id, g.group.task.source, r.verdict) for g in scored for r in g.results
                ]
                bar.advance(len(chunk))
    return EvalResult.of(name, greedy=samples["greedy"], sampled=samples["sampled"])
