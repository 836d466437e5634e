"""What drawing ahead of training wins when rewards are slow, beside what a model on paper says.

    .venv/bin/python benchmarks/overlap.py [--steps 12]

The real loop with parts that sleep, so that the order of things is all that is measured: rollouts 0.5 s, training
0.4 s, sync 0.05 s, a judged batch 0.2 to 2 s. On paper a synchronous step takes rollout + reward + train + sync; ahead
of training the slowest of three stages that run beside each other sets the pace: rollout + sync (the engines), reward
(the workers), train + sync (the trainer), as soon as `max_lag` steps cover a batch's way from prompt to gradient.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from assay.types import Completion, FinishReason, Message, RewardResult, RolloutGroup, ScoredGroup, Task, Verdict
from grpo import loop
from grpo.batch import TrainBatch
from grpo.config import GRPOConfig
from grpo.record import RunRecord
from rollouts.config import SamplingConfig
from rollouts.engine import Sampling
from rollouts.tasks import TaskStream

ROLLOUT_S, TRAIN_S, SYNC_S = 0.5, 0.4, 0.05


class Sleepers:
    """Engines, reward workers and trainer that take their time and no processor."""

    def __init__(self, reward_s: float) -> None:
        self.reward_s, self.version = reward_s, 0
        self._workers = threading.Lock()  # as many as one batch keeps busy

    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]:
        held = (self.version, self.version)
        time.sleep(ROLLOUT_S)
        one = Completion(token_ids=(1,), logprobs=(0.0,), text="", finish_reason=FinishReason.STOP, policy_version=held)
        return [RolloutGroup(task=task, prompt_ids=(1,), completions=(one,) * sampling.samples) for task in tasks]

    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
        yield from enumerate(self.generate(tasks, sampling))

    def score(self, groups: Iterable[RolloutGroup]) -> list[ScoredGroup]:
        groups = [*groups]
        with self._workers:
            time.sleep(self.reward_s)
        results = tuple(RewardResult(verdict=Verdict.AC if n else Verdict.WA, reward=float(n)) for n in range(2))
        return [ScoredGroup(group=group, results=results) for group in groups]

    def step(self, batch: TrainBatch, phase: Callable[[str], AbstractContextManager[Any]]) -> dict[str, float]:
        time.sleep(TRAIN_S)
        self.version += 1
        return {"mismatch/k3": 0.0, "mismatch/max_abs_logratio": 0.0}

    def sync(self) -> dict[str, float]:
        time.sleep(SYNC_S)
        return {}


def seconds_per_step(reward_s: float, max_lag: int, steps: int) -> float:
    parts = Sleepers(reward_s)
    config = GRPOConfig(
        steps=steps, prompts_per_step=1, group_size=2, eval_every=0, checkpoint_every=10**6, max_lag=max_lag
    )
    tasks = [Task(id="1", messages=(Message(role="user", content="1"),), verifier="custom", answer={})]
    with tempfile.TemporaryDirectory() as folder:
        record = RunRecord(Path(folder), steps, keep_last=1, snapshot=lambda: lambda path: None, say=lambda line: None)
        whole = loop.Parts(
            tasks=TaskStream(tasks, 0), rollouts=parts, rewards=parts, trainer=parts, sync=parts.sync
        )  # fmt: skip
        began = time.perf_counter()
        loop.run(config, SamplingConfig(max_completion_tokens=8), whole, record, seed=0)
        taken = time.perf_counter() - began
        record.close()
    return taken / steps


def on_paper(reward_s: float, max_lag: int) -> float:
    way = ROLLOUT_S + reward_s + TRAIN_S + SYNC_S
    if not max_lag:
        return way
    return max(ROLLOUT_S + SYNC_S, reward_s, TRAIN_S + SYNC_S, way / (max_lag + 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    steps = parser.parse_args().steps
    print(f"{'reward s':>9}{'max_lag':>9}{'s/step':>9}{'on paper':>10}{'x lag 0':>9}")
    for reward_s in (0.2, 0.5, 1.0, 2.0):
        base = 0.0
        for max_lag in (0, 1, 2, 4):
            each = seconds_per_step(reward_s, max_lag, steps)
            base = base or each
            paper = on_paper(reward_s, max_lag)
            print(f"{reward_s:>9.1f}{max_lag:>9}{each:>9.2f}{paper:>10.2f}{base / each:>9.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
