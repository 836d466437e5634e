"""The run, on one page. No torch and no Ray here: only the order of things.

        tasks.take ---> rollouts.generate ---> rewards.score ---> build_batch ---> trainer.step
                              ^                                                         |
                              +------------ rollouts.sync (with proof) <--- publish ----+

With `max_lag` 0 each step waits for the one before; else rollouts are drawn and judged that many steps ahead, by steps
(`grpo.ahead`) or groups (`grpo.flow`). A step is recorded, and can be resumed from, only when it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from assay.errors import InfraFailure, TrainingDiverged
from assay.metrics import Timer
from grpo import mismatch
from grpo.batch import Advantage, TrainBatch, build_batch, estimate_advantages
from grpo.config import GRPOConfig
from grpo.drawing import Drawing, Drawn, Recorded, Rewards, Rollouts
from grpo.flow import source, take
from grpo.record import RunRecord, describe, lag_shares
from rollouts.config import SamplingConfig
from rollouts.tasks import TaskStream


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
    rest: Callable[[], object] = lambda: None  #: let the engines give back memory until that
    evaluate: Callable[[int], Mapping[str, float]] | None = None  #: held-out pass@1, during the run
    recorded: Recorded | None = None  #: the steps of a run that was made, instead of tasks and engines


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
        parts.sync()
    drawing = Drawing(
        config=config, sampling=sampling, tasks=parts.tasks, rollouts=parts.rollouts, rewards=parts.rewards, seed=seed
    )
    with closing(source(drawing, start, parts.recorded)) as ahead:
        for done in range(start + 1, config.steps + 1):
            if stop():
                return done - 1
            try:
                drawn = take(ahead, done - 1, timer, config)
                with timer.phase("sync"):
                    parts.rest()
            except InfraFailure:
                if record.stopped:  # and the engines were, by the same signal: of this step nothing is learned
                    return done - 1
                record.rescue(done - 1, since=start)
                raise
            metrics, advantages = _train(drawn, config, sampling, parts, record, timer, done)
            with ahead.engines():
                with timer.phase("sync"):
                    metrics |= parts.sync()
                if parts.evaluate is not None and config.eval_every and done % config.eval_every == 0:
                    with timer.phase("eval"):
                        metrics |= parts.evaluate(done)
            ahead.trained(done)
            record.cursor, record.left = drawn.cursor, drawn.left
            record.samples(done, drawn.scored, advantages)
            record.metrics(done, metrics, timer)
            if record.due(done, config.checkpoint_every):
                with timer.phase("checkpoint"):  # last: what is recorded beyond a checkpoint is taken back on resume
                    record.checkpoint(done)
    return config.steps


def _train(
    drawn: Drawn, config: GRPOConfig, sampling: SamplingConfig, parts: Parts, record: RunRecord, timer: Timer, done: int
) -> tuple[dict[str, float], list[list[Advantage]]]:
    """One step of the trainer, its metrics and the advantages. A batch that stops the run is kept."""
    limit = sampling.max_completion_tokens
    try:
        advantages = estimate_advantages(drawn.scored, config, limit)
        batch = build_batch(drawn.scored, advantages, config, limit)
        version = parts.trainer.version  # a step with nothing to learn from does not raise it
        metrics, lag = parts.trainer.step(batch, timer.phase), version - batch.oldest_version
        mismatch.check(metrics, config.mismatch.stop_above, done, lag)
    except TrainingDiverged as error:
        raise TrainingDiverged(f"{error}; the batch is in {record.offending(done, drawn.scored)}") from None
    metrics |= {**batch.counts, **describe(drawn.scored), "policy/version": float(parts.trainer.version)}
    metrics |= {"lag/max": float(max(0, lag)), "groups/generation_batches": float(drawn.batches)}
    metrics |= lag_shares(drawn.scored, version) if config.max_lag else {}
    return metrics, advantages
