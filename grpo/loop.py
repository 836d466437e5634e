"""The run, on one page. No torch and no Ray here: only the order of things.

        tasks.take ---> rollouts.generate ---> rewards.score ---> build_batch ---> trainer.step
                              ^                                                         |
                              +------------ rollouts.sync (with proof) <--- publish ----+

Each step waits for the one before (lag 0). A step is recorded, and can be resumed from, only when it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from assay.errors import TrainingDiverged
from assay.metrics import Timer
from assay.types import RolloutGroup, ScoredGroup, Task
from grpo import mismatch
from grpo.batch import TrainBatch, build_batch, estimate_advantages
from grpo.config import GRPOConfig
from grpo.filling import fill
from grpo.record import RunRecord, describe
from rollouts.config import SamplingConfig
from rollouts.engine import Sampling
from rollouts.tasks import TaskStream


class Rollouts(Protocol):
    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]: ...


class Rewards(Protocol):
    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]: ...


class Trainer(Protocol):
    version: int

    def step(self, batch: TrainBatch, phase: Callable[[str], object]) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop conducts. None of them knows the others, or the loop."""

    tasks: TaskStream
    rollouts: Rollouts
    rewards: Rewards
    trainer: Trainer
    sync: Callable[[], Mapping[str, float]]  #: publish the trainer's weights to every engine, with proof
    evaluate: Callable[[int], Mapping[str, float]] | None = None  #: held-out pass@1, during the run


def run(
    config: GRPOConfig,
    sampling: SamplingConfig,
    parts: Parts,
    record: RunRecord,
    *,
    seed: int,
    start: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train from step `start` to `config.steps`, or until `stop()`; returns the number of steps done.

    Raises WeightMismatch, TrainingDiverged or InfraFailure; what was recorded before stays valid.
    """
    timer = Timer()
    with timer.phase("sync"):
        probe = dict(parts.sync())

    def draw(step: int, prompts: int, again: int) -> list[ScoredGroup]:
        drawing = Sampling(
            temperature=sampling.temperature,
            max_tokens=sampling.max_completion_tokens,
            samples=config.group_size,
            seed=seed * 100_003 + step * 101 + again * 1_000_003,
        )
        with timer.phase("rollout"):
            groups = parts.rollouts.generate(parts.tasks.take(prompts), drawing)
        with timer.phase("reward"):
            return parts.rewards.score(groups)

    for step in range(start, config.steps):
        if stop():
            return step
        scored: list[ScoredGroup] = []
        try:
            batches = fill(scored, partial(draw, step), config)
            advantages = estimate_advantages(scored, config, sampling.max_completion_tokens)
            batch = build_batch(scored, advantages, config, sampling.max_completion_tokens)
            metrics = parts.trainer.step(batch, timer.phase)
            lag = parts.trainer.version - 1 - batch.oldest_version
            mismatch.check(metrics, config.mismatch.stop_above, step + 1, lag)
        except TrainingDiverged as error:
            raise TrainingDiverged(f"{error}; the batch is in {record.offending(step + 1, scored)}") from None
        with timer.phase("sync"):
            probe = dict(parts.sync())
        metrics |= {**probe, **batch.counts, **describe(scored), "policy/version": float(parts.trainer.version)}
        metrics |= {"lag/max": float(max(0, lag)), "groups/generation_batches": float(batches)}
        done = step + 1
        if parts.evaluate is not None and config.eval_every and done % config.eval_every == 0:
            with timer.phase("eval"):
                metrics |= parts.evaluate(done)
        record.samples(done, scored, advantages)
        record.metrics(done, metrics, timer)
        if done % config.checkpoint_every == 0 or done == config.steps:
            with timer.phase("checkpoint"):  # last: what is recorded beyond a checkpoint is taken back on resume
                record.checkpoint(done, parts.tasks.cursor)
    return config.steps
