"""What a run learned from, replayed step by step without an engine: a flow in its own order, to the bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from assay.errors import DataError
from assay.moe_replay import from_tensor
from assay.policy import load_tokenizer
from assay.types import Completion, RoutedExperts, Task
from grpo import loop
from grpo.config import CorrectionConfig, GRPOConfig, KLConfig, MismatchConfig, MoEConfig
from grpo.record import RunRecord
from grpo.trainer import PolicyTrainer
from rewards.config import RewardsConfig
from rewards.pool import RewardPool
from rollouts.config import ProofConfig, SamplingConfig
from rollouts.pool import RolloutPool
from rollouts.recorder import read_samples
from rollouts.replay import Replay
from rollouts.tasks import TaskStream
from rollouts.weights import publish
from tests.grpo.test_flow import PROBE, TASKS, Flat, Holding, Uneven, Worker
from tests.grpo.test_loop import rows, trained_on
from tests.moe_policies import make_policy

FLOW = GRPOConfig(
    steps=6, prompts_per_step=4, group_size=2, learning_rate=1e-2, checkpoint_every=2, eval_every=0, max_lag=2,
    flow=True, kl=KLConfig(coef=0.1), correction=CorrectionConfig(kind="tis"),
    mismatch=MismatchConfig(stop_above=1e9),
)  # fmt: skip
REFILLS = {"drop_zero_variance_groups": True, "max_generation_batches": 5}
VOLATILE = ("time", "memory/", "tokens/generated_per_s", "weights/")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy("deepseek_v2", tmp_path_factory.mktemp("policy"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A policy this small is slower on two, by far where others compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Told(Uneven):
    """Says the experts it chose, at random, and that weights changed after a completion's first token."""

    def __init__(self, experts: bool) -> None:
        super().__init__()
        self._route = self.chosen if experts else None
        self.lock, self.draw = threading.Lock(), torch.Generator().manual_seed(0)

    def chosen(self, ids: Sequence[int]) -> RoutedExperts:
        with self.lock:
            return from_tensor(torch.rand((len(ids) - 1, 2, 4), generator=self.draw).argsort(dim=-1)[..., :2])

    def _completion(self, prompt: Sequence[int], draw: Random, max_tokens: int) -> Completion:
        made, before = super()._completion(prompt, draw, max_tokens), self.version - 1
        made = replace(made, logprobs=tuple(-draw.random() * 9 for _ in made.token_ids))
        if before < 0 or len(made.token_ids) < 2:
            return made
        spans = ((before, 1), (self.version, len(made.token_ids) - 1))
        return replace(made, policy_version=(before, self.version), spans=spans)


def start(
    folder: Path, policy: Path, config: GRPOConfig, worker: Worker, *, samples: Path | None = None,
    tasks: Sequence[Task] = TASKS, stop_after: int | None = None, resume: bool = False,
) -> int:  # fmt: skip
    """Train a real policy on what engines of uneven speed draw, or on the samples of a recorded run."""
    tokenizer = load_tokenizer(policy)
    trainer = PolicyTrainer(policy, config, dtype="float32", temperature=1.0, pad_id=2)
    pool: RolloutPool
    if samples is None:
        engines = [Told(config.moe.replay == "r3") for _ in range(3)]
        pool = RolloutPool(engines, tokenizer, ProofConfig(), room=4 if config.flow else 0)
    else:
        pool = Replay(tokenizer, samples)
    record = RunRecord(folder, config.steps, keep_last=2, snapshot=trainer.snapshot, say=lambda line: None)
    first, cursor = 0, 0
    if resume:
        checkpoint, first, cursor = record.resume(trainer.restore, config.checkpoint_every)
        assert checkpoint is not None

    def sync() -> dict[str, float]:
        return {} if samples else {"weights/x": pool.sync(publish({"a": torch.ones(2)}, trainer.version), PROBE)[1]}

    done = count(first)
    parts = loop.Parts(
        tasks=TaskStream(tasks, 0, cursor, record.left),
        rollouts=pool,
        rewards=RewardPool([worker, worker], RewardsConfig(reward="compiler")),
        trainer=trainer,
        sync=sync,
        recorded=partial(pool.step, tasks={t.id: t for t in tasks}) if isinstance(pool, Replay) else None,
    )
    with record:
        ended = loop.run(
            config, SamplingConfig(max_completion_tokens=8), parts, record, seed=1, start=first,
            stop=lambda: stop_after is not None and next(done) >= stop_after,
        )  # fmt: skip
    trainer.export(folder / "policy")
    return ended


def traces(folder: Path) -> dict[str, Any]:
    """All that a replay has to give again, to the bit."""
    return {
        "metrics": [{k: v for k, v in row.items() if not k.startswith(VOLATILE)} for row in rows(folder)],
        "samples": [{k: v for k, v in row.items() if k != "seconds"} for row in read_samples(folder / "samples")],
        "weights": (folder / "policy" / "model.safetensors").read_bytes(),
    }


def replayed(folder: Path, policy: Path, config: GRPOConfig, worker: Worker, **more: Any) -> dict[str, Any]:
    start(folder / "again", policy, config, worker, samples=folder / "run" / "samples", **more)
    return traces(folder / "again")


def same(then: dict[str, Any], now: dict[str, Any]) -> None:
    for before, after in zip(then["metrics"], now["metrics"], strict=True):
        assert after == before
    assert now["samples"] == then["samples"]
    assert now["weights"] == then["weights"]


def test_a_flow_is_replayed_in_its_own_order_with_spans_and_experts(tmp_path: Path, policy: Path):
    config = FLOW.model_copy(update={"moe": MoEConfig(replay="r3")})
    start(tmp_path / "run", policy, config, Holding(tmp_path / "run", within_s=300.0))
    steps = trained_on(tmp_path / "run")
    in_turn = [task.id for task in TaskStream(TASKS, 0).take(24)]
    assert [task for step in steps for task in step] != in_turn and in_turn[0] not in steps[0]
    then = traces(tmp_path / "run")
    assert any(row.get("spans") for row in then["samples"]) and all(row["experts"] for row in then["samples"])
    assert max(row["lag/max"] for row in then["metrics"]) >= 2
    assert min(row["grad_norm"] for row in then["metrics"]) > 0
    same(then, replayed(tmp_path, policy, config, Worker()))


@pytest.mark.parametrize(
    "config",
    [
        FLOW.model_copy(update=REFILLS),
        FLOW.model_copy(update={**REFILLS, "flow": False}),
        FLOW.model_copy(update={"flow": False}),
    ],
    ids=["flow that replaces", "ahead that replaces", "ahead"],
)
def test_groups_that_were_replaced_come_again_in_the_steps_that_counted_them(
    tmp_path: Path, policy: Path, config: GRPOConfig
):
    worker = Flat() if config.max_generation_batches > 1 else Worker()
    start(tmp_path / "run", policy, config, worker)
    then = traces(tmp_path / "run")
    assert max(row["lag/max"] for row in then["metrics"]) > 0
    if config.max_generation_batches > 1:
        assert sum(row["groups/zero_variance"] for row in then["metrics"]) > 0
        assert max(row["groups/generation_batches"] for row in then["metrics"]) > 1
    same(then, replayed(tmp_path, policy, config, worker))


@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_flow_that_was_stopped_and_taken_up_again_is_replayed_as_one(tmp_path: Path, policy: Path, stop_after: int):
    """Stopped after 3 steps it goes on from the checkpoint of 2: the third is made again, and it is that one which
    the run learned from."""
    assert start(tmp_path / "run", policy, FLOW, Worker(), stop_after=stop_after) == stop_after
    assert start(tmp_path / "run", policy, FLOW, Worker(), resume=True) == 6
    steps = trained_on(tmp_path / "run")
    assert sorted(task for step in steps for task in step) == sorted(task.id for task in TASKS)
    same(traces(tmp_path / "run"), replayed(tmp_path, policy, FLOW, Worker()))


def test_a_replay_under_another_reward_learns_from_the_same_groups(tmp_path: Path, policy: Path):
    config = FLOW.model_copy(update=REFILLS)
    start(tmp_path / "run", policy, config, Flat())
    replayed(tmp_path, policy, config, Worker())
    assert trained_on(tmp_path / "again") == trained_on(tmp_path / "run")


def test_tasks_that_are_not_those_of_the_record_are_named(tmp_path: Path, policy: Path):
    start(tmp_path / "run", policy, FLOW, Worker())
    lacking = trained_on(tmp_path / "run")[0][2]
    with pytest.raises(DataError, match=f"step 1 holds '{lacking}', which this configuration does not train on"):
        replayed(tmp_path, policy, FLOW, Worker(), tasks=[task for task in TASKS if task.id != lacking])
