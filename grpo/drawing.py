"""From prompts to scored groups: what one step of training learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from assay.metrics import Timer
from assay.types import RolloutGroup, ScoredGroup, Task
from grpo.config import GRPOConfig
from grpo.filling import fill
from rollouts.config import SamplingConfig
from rollouts.engine import Sampling
from rollouts.tasks import TaskStream


class Rollouts(Protocol):
    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]: ...


class Rewards(Protocol):
    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The groups of one step, and what drawing them took."""

    scored: list[ScoredGroup]
    batches: int  #: generation batches; more than one where flat groups were replaced
    cursor: int  #: of the tasks, once this step is trained on
    seconds: dict[str, float]  #: of rollout and reward


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Draws steps, each the same whenever it is drawn: the seed depends on the step alone."""

    config: GRPOConfig
    sampling: SamplingConfig
    tasks: TaskStream
    rollouts: Rollouts
    rewards: Rewards
    seed: int

    def draw(self, step: int, done: Callable[[], None]) -> Drawn:
        """The groups of `step`. Calls `done` when the engines are free for others."""
        timer, scored, cursor = Timer(), list[ScoredGroup](), self.tasks.cursor

        def batch(prompts: int, again: int) -> list[ScoredGroup]:
            nonlocal cursor
            tasks = self.tasks.take(prompts)
            cursor = self.tasks.cursor  # also where generating fails: the next batch goes on from here
            with timer.phase("rollout"):
                groups = self.rollouts.generate(tasks, self._sampling(step, again))
            if self.config.max_generation_batches == 1:  # else judging decides whether there will be another batch
                done()
            with timer.phase("reward"):
                return self.rewards.score(groups)

        batches = fill(scored, batch, self.config)
        return Drawn(scored=scored, batches=batches, cursor=cursor, seconds=timer.seconds)

    def _sampling(self, step: int, again: int) -> Sampling:
        return Sampling(
            temperature=self.sampling.temperature,
            max_tokens=self.sampling.max_completion_tokens,
            samples=self.config.group_size,
            seed=self.seed * 100_003 + step * 101 + again * 1_000_003,
        )
