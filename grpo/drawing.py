"""From prompts to scored groups: what one step of training learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from assay.metrics import Timer
from assay.types import RolloutGroup, ScoredGroup, Task
from grpo.config import GRPOConfig
from grpo.filling import fill
from rollouts.config import SamplingConfig
from rollouts.engine import Sampling
from rollouts.tasks import TaskStream

Ask = Callable[[], tuple[int, Task] | None]
Give = Callable[[int, RolloutGroup], None]
Judge = Callable[[Iterable[RolloutGroup]], list[ScoredGroup]]
Recorded = Callable[[int], list[RolloutGroup]]
"""What a recorded run learned from in a step, counted from 1."""


class Rollouts(Protocol):
    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]: ...

    def serve(self, ask: Ask, give: Give, sampling: Sampling) -> Sequence[Future[None]]: ...


class Rewards(Protocol):
    def score(self, groups: Iterable[RolloutGroup]) -> list[ScoredGroup]: ...

    def each(self, groups: Iterable[RolloutGroup]) -> list[ScoredGroup]: ...

    def one(self, group: RolloutGroup) -> ScoredGroup: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The groups of one step, and what drawing them took."""

    scored: list[ScoredGroup]
    batches: int  #: generation batches; more than one where flat groups were replaced
    cursor: int  #: of the tasks, once this step is trained on
    left: tuple[int, ...] = ()  #: places before it that are still to be learned from
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
        timer, scored = Timer(), list[ScoredGroup]()
        cursor, left = self.tasks.cursor, self.tasks.left

        def batch(prompts: int, again: int) -> list[ScoredGroup]:
            nonlocal cursor, left
            tasks = self.tasks.take(prompts)
            cursor, left = self.tasks.cursor, self.tasks.left
            # unless judging decides whether there will be another batch, the engines are free once all is drawn
            drawn = done if self.config.max_generation_batches == 1 else lambda: None
            # a whole step without a reward is no data; a refill, which may be a single group, is failed groups of one
            judge = self.rewards.each if again else self.rewards.score
            return self._judged(tasks, self.of(step, again), judge, timer, drawn)

        batches = fill(scored, batch, self.config)
        return Drawn(scored=scored, batches=batches, cursor=cursor, left=left, seconds=timer.seconds)

    def again(self, recorded: Recorded, step: int) -> Drawn:
        """What a recorded run drew for `step`, judged anew: in its order, replaced groups with it. No engine is asked,
        and no task is taken: the record says which they were."""
        timer = Timer()
        with timer.phase("rollout"):
            groups = recorded(step + 1)
        with timer.phase("reward"):
            scored = self.rewards.score(groups)
        if self.config.flow:
            batches = -(-len(scored) // self.config.prompts_per_step)
        else:  # as many as it takes to come to them
            left = iter(scored)
            batches = fill([], lambda prompts, again: [*islice(left, prompts)], self.config)
        return Drawn(scored=scored, batches=batches, cursor=0, seconds=timer.seconds)

    def _judged(
        self, tasks: Sequence[Task], sampling: Sampling, judge: Judge, timer: Timer, drawn: Callable[[], None]
    ) -> list[ScoredGroup]:
        """Groups in the order of the tasks; each is judged while others are drawn. Calls `drawn` after the last."""
        order: list[int] = []
        with ExitStack() as phase:
            phase.enter_context(timer.phase("rollout"))

            def arriving() -> Iterator[RolloutGroup]:
                for index, group in self.rollouts.stream(tasks, sampling):
                    order.append(index)
                    yield group
                drawn()
                phase.close()
                phase.enter_context(timer.phase("reward"))

            scored = judge(arriving())
        return [group for _, group in sorted(zip(order, scored, strict=True), key=lambda pair: pair[0])]

    def of(self, step: int, again: int) -> Sampling:
        return Sampling(
            temperature=self.sampling.temperature,
            max_tokens=self.sampling.max_completion_tokens,
            samples=self.config.group_size,
            seed=self.seed * 100_003 + step * 101 + again * 1_000_003,
        )
