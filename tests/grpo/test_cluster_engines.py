"""Engines behind Ray proxies: groups one by one, several calls at a time, errors in the midst of an answer."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

import grpo.cluster
from assay.adapter import LoraConfig
from assay.errors import DataError, InfraFailure
from assay.policy import load_tokenizer
from assay.types import Completion, Message, Task
from grpo.actors import EngineActor
from grpo.cluster import Cluster
from grpo.config import ClusterConfig, GRPOConfig
from grpo.trainer import PolicyTrainer
from rollouts.config import EngineConfig, ProofConfig, RolloutConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.weights import Probe, probe_sequences, publish

pytestmark = pytest.mark.ray
DRAW = Sampling(temperature=1.0, max_tokens=8, samples=2, seed=3)
PROBE = Probe(sequences=[[3, 4, 5]], expected=[[-1.0, -1.0]])
TASKS = [
    Task(id=str(i), messages=(Message(role="user", content="f" * i),), verifier="function", answer={})
    for i in range(1, 7)
]


class Telling(FakeEngine):
    """Answers one by one, the sixth prompt not while there is a file `wait`. Orders in files `fail` and `die` are
    followed once, in the midst of an answer. Says how many calls it had inside at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda prompt, draw: [draw.randrange(3, 99) for _ in range(4)])
        self.folder, self.inside, self.most, self.lock = folder, 0, 0, threading.Lock()

    def stream(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[tuple[int, list[Completion]]]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        for i, completions in super().stream(prompts, sampling):
            time.sleep(0.02)
            while sampling.number(i) == 5 and (self.folder / "wait").exists():
                time.sleep(0.02)
            self._told()
            yield i, completions
        with self.lock:
            self.inside -= 1

    def _told(self) -> None:
        for name in ("fail", "die"):
            try:
                (self.folder / name).unlink()  # of both engines one follows it: who took the file away
            except FileNotFoundError:
                continue
            if name == "fail":
                raise DataError("this prompt is no prompt")
            os.kill(os.getpid(), signal.SIGKILL)

    def most_at_once(self) -> int:
        return self.most


class TellingActor(EngineActor):
    def __init__(self, model: str, config: RolloutConfig, max_model_len: int, eos_token_id: int) -> None:
        self.held = Telling(Path(model))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch, Cluster(ClusterConfig(stall_report_s=1.0)) as made:
        patch.setattr(grpo.cluster, "EngineActor", TellingActor)
        yield made


def engines(cluster: Cluster, folder: Path, policy: Path, routing: str) -> Any:
    config = RolloutConfig(
        engine=EngineConfig(kind="fake", engines=2, routing=routing, max_num_seqs=4),  # type: ignore[arg-type]
        proof=ProofConfig(),
    )
    pool = cluster.rollouts(folder, config, load_tokenizer(policy), max_model_len=64)
    pool.sync(publish({"a": torch.ones(2)}, 7), PROBE)
    return pool


def test_through_ray_groups_come_one_by_one_and_deaths_and_routing_leave_no_trace(
    cluster: Cluster, tmp_path: Path, tiny_policy: Path
):
    drawn = {}
    for routing in ("fixed", "queue"):
        pool = engines(cluster, tmp_path, tiny_policy, routing)
        (tmp_path / "wait").touch()
        arriving = pool.stream(TASKS, DRAW)
        found = [next(arriving) for _ in range(5)]  # of one share too, those before the last
        (tmp_path / "wait").unlink()
        found += arriving
        assert found[-1][0] == 5
        drawn[routing] = [g.completions for _, g in sorted(found, key=lambda item: item[0])]
        (tmp_path / "die").touch()
        again = pool.generate(TASKS, DRAW)
        assert [g.completions for g in again] == drawn[routing]
        assert [(r.version) for r in pool.recoveries] == [7]
        (tmp_path / "fail").touch()
        with pytest.raises(DataError, match="this prompt is no prompt"):
            pool.generate(TASKS, DRAW)
        most = max(engine.most_at_once() for engine in pool._engines)
        assert (most > 1) == (routing == "queue")
        for engine in pool._engines:
            engine.close()
        with pytest.raises(InfraFailure, match=r"rollouts/0 died during generate of 1"):
            next(pool._engines[0].stream([[1]], DRAW))
        pool.close()
    assert drawn["fixed"] == drawn["queue"]


@pytest.mark.vllm
@pytest.mark.slow
def test_an_engine_that_merges_adapters_and_is_killed_in_the_trainers_step_leaves_no_trace(
    cluster: Cluster, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    """vLLM in actors: the heir gets the frozen weights, the copied factors, the proof; and draws the same."""
    monkeypatch.setattr(grpo.cluster, "EngineActor", EngineActor)
    settings, lora = GRPOConfig(kl={"estimator": "none"}), LoraConfig(rank=4)  # type: ignore[arg-type]
    trainer = PolicyTrainer(tiny_policy, settings, dtype="float32", temperature=1.0, pad_id=2, lora=lora)
    tokenizer, alone = load_tokenizer(tiny_policy), EngineConfig(max_num_seqs=8, lora_sync="adapter")

    def step() -> None:
        trainer.version += 1
        with torch.no_grad():
            for parameter in trainer.unwrapped.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.02)

    def drawn() -> list[tuple[Any, ...]]:
        (group,) = pool.generate(TASKS[:1], DRAW)
        return [(c.token_ids, c.logprobs, c.policy_version) for c in group.completions]

    pool = cluster.rollouts(tiny_policy, RolloutConfig(engine=alone), tokenizer, max_model_len=128)
    probe, sent = probe_sequences(len(tokenizer), tokenizer.all_special_ids), []
    for _ in range(2):
        step()
        pool.sync(trainer.publication(alone, keep=True), trainer.probe(probe))
        sent.append(pool.sent_bytes)
    before = drawn()
    step()
    ray.kill(pool._engines[0]._actor)
    assert drawn() == before and before[0][2] == (2, 2)
    assert [recovery.version for recovery in pool.recoveries] == [2]
    assert sent[1] == 4 * sum(p.numel() for p in trainer.unwrapped.parameters() if p.requires_grad) < sent[0]
    pool.close()
