"""Counting on held-out tasks with a fake engine and fake verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from assay.types import RewardResult, RolloutGroup, ScoredGroup, Task, Verdict
from evals.config import EvalConfig
from evals.evaluate import evaluate
from rollouts.engine import Sampling
from tests.groups import make_completion, make_result, make_task


class Rollouts:
    """Answers with one token: the task's number, greedily; one more, when sampling."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]:
        self.seeds.append(sampling.seed)
        step = 0 if sampling.temperature == 0 else 1
        made = [make_completion([int(t.id) + step]) for t in tasks]
        return [
            RolloutGroup(task=t, prompt_ids=(0,), completions=(c,) * sampling.samples)
            for t, c in zip(tasks, made, strict=True)
        ]


class Rewards:
    """Even answers pass, multiples of 50 are the harness's own failure."""

    def judge(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        return [ScoredGroup(group=g, results=tuple(self._one(c.token_ids[0]) for c in g.completions)) for g in groups]

    def _one(self, token: int) -> RewardResult:
        return make_result(None if token % 50 == 0 else float(token % 2 == 0))


def test_every_task_is_counted_once_whatever_the_chunks():
    tasks = [make_task(str(i)) for i in range(600)]
    rollouts = Rollouts()
    result = evaluate("x", tasks, rollouts, Rewards(), EvalConfig(samples=2), max_completion_tokens=8, seed=3)
    # 0..599: 300 even, of which 12 are multiples of 50 (harness failures, left out and counted)
    assert result.greedy is not None
    assert (result.greedy.passed, result.greedy.scored, result.greedy.infra) == (288, 588, 12)
    # 1..600, two samples each: 600 even answers, of which 24 are multiples of 50
    assert result.sampled is not None
    assert (result.sampled.passed, result.sampled.scored, result.sampled.infra) == (576, 1176, 24)
    assert result.verdicts["greedy"][Verdict.AC] == 288
    assert len(set(rollouts.seeds)) == 3  # chunks draw differently, modes alike


def test_a_limit_takes_the_first_tasks():
    tasks = [make_task(str(i)) for i in range(1, 10)]
    result = evaluate("x", tasks, Rollouts(), Rewards(), EvalConfig(limit=4), max_completion_tokens=8, seed=0)
    assert result.greedy is not None
    assert (result.greedy.passed, result.greedy.scored) == (2, 4)
