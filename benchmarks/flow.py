"""What a flow of groups wins over whole steps when completions have a long tail, and updates in flight over a flow.

    .venv/bin/python benchmarks/flow.py [--steps 12]

The real loop and pool over parts that sleep: two engines that decode 32 sequences at once, 0.5 ms a token (as in
`routing.py`, lengths from a log-normal cut at 2048); 32 prompts in groups of 4 per step; a judged group 50 ms on one of
8 workers; training 0.4 s, a sync 50 ms per engine. `in flight` lets a sync come into the midst of an engine's calls.
Lag is the mean over all tokens, in versions, by the oldest weights of their completion.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from routing import Decoding

from assay.tokenizer import train_tokenizer
from assay.types import Message, RewardResult, RolloutGroup, Task, Verdict
from grpo import loop
from grpo.batch import TrainBatch
from grpo.config import GRPOConfig
from grpo.record import RunRecord
from rewards.config import RewardsConfig
from rewards.pool import RewardPool
from rollouts.config import ProofConfig, SamplingConfig
from rollouts.pool import RolloutPool
from rollouts.tasks import TaskStream
from rollouts.weights import Probe, SyncReport, WeightBundle, publish

ENGINES, ROOM, PROMPTS, GROUP, TOKEN_S = 2, 32, 32, 4, 5e-4
JUDGE_S, WORKERS, TRAIN_S, SYNC_S = 0.05, 8, 0.4, 0.05
PROBE = Probe(sequences=[[3, 4]], expected=[[-1.0]])

WAYS: dict[str, dict[str, Any]] = {
    "step by step": {},
    "step by step, queue": {"room": ROOM},
    "1 ahead": {"room": ROOM, "max_lag": 1},
    "1 ahead, flow": {"room": ROOM, "max_lag": 1, "flow": True},
    "1 ahead, flow, in flight": {"room": ROOM, "max_lag": 1, "flow": True, "in_flight": True},
    "2 ahead": {"room": ROOM, "max_lag": 2},
    "2 ahead, flow": {"room": ROOM, "max_lag": 2, "flow": True},
    "2 ahead, flow, in flight": {"room": ROOM, "max_lag": 2, "flow": True, "in_flight": True},
}


class Engine(Decoding):
    def load_weights(self, bundle: WeightBundle) -> SyncReport:
        time.sleep(SYNC_S)
        return super().load_weights(bundle)


class Worker:
    def score_group(self, group: RolloutGroup) -> list[RewardResult]:
        time.sleep(JUDGE_S)
        return [
            RewardResult(verdict=Verdict.AC if i else Verdict.WA, reward=float(bool(i)))
            for i, _ in enumerate(group.completions)
        ]


class Sleeper:
    version = 0

    def step(self, batch: TrainBatch, phase: Callable[[str], AbstractContextManager[Any]]) -> dict[str, float]:
        time.sleep(TRAIN_S)
        self.version += 1
        return {"mismatch/k3": 0.0, "mismatch/max_abs_logratio": 0.0}


def measure(
    steps: int, room: int = 0, max_lag: int = 0, flow: bool = False, in_flight: bool = False
) -> tuple[float, float]:
    """Seconds per step, mean lag."""
    tokenizer, draw = train_tokenizer(["x"], vocab_size=300), random.Random(0)
    tasks = [
        Task(id=str(i), messages=(Message(role="user", content="x" * i),), verifier="custom", answer={})
        for i in range(1, 1 + PROMPTS * 4)
    ]
    sized = RolloutPool([], tokenizer, ProofConfig())
    lengths = {len(sized.prompt_ids(t)): min(2048, round(200 * draw.lognormvariate(0, 1))) for t in tasks}
    engines = [Engine(lengths, ROOM // GROUP, TOKEN_S) for _ in range(ENGINES)]
    pool = RolloutPool(engines, tokenizer, ProofConfig(), room=room, in_flight=in_flight)
    trainer = Sleeper()

    def sync() -> dict[str, float]:
        return {"weights/probe_max_abs": pool.sync(publish({"a": torch.ones(2)}, trainer.version), PROBE)[1]}

    config = GRPOConfig(
        steps=steps, prompts_per_step=PROMPTS, group_size=GROUP, eval_every=0, checkpoint_every=10**6,
        max_lag=max_lag, flow=flow,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        record = RunRecord(Path(folder), steps, keep_last=1, snapshot=lambda: lambda path: None, say=lambda line: None)
        rewards = RewardPool([Worker() for _ in range(WORKERS)], RewardsConfig(reward="compiler"))
        parts = loop.Parts(tasks=TaskStream(tasks, 0), rollouts=pool, rewards=rewards, trainer=trainer, sync=sync)
        began = time.perf_counter()
        loop.run(config, SamplingConfig(max_completion_tokens=2048), parts, record, seed=0)
        taken = time.perf_counter() - began
        record.close()
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    lag = fmean(row.get("lag/share_1", 0.0) + 2 * row.get("lag/share_2", 0.0) for row in rows)
    return taken / steps, lag


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    steps = parser.parse_args().steps
    print(f"{'':<26}{'s/step':>8}{'x':>7}{'mean lag':>10}")
    base = 0.0
    for name, way in WAYS.items():
        seconds, lag = measure(steps, **way)
        base = base or seconds
        print(f"{name:<26}{seconds:>8.3f}{base / seconds:>7.2f}{lag:>10.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
