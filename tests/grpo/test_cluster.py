"""Actors behind proxies: errors that keep their kind, dead actors that are named, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import ray
import torch

from assay.errors import EnvironmentProblem, InfraFailure, WeightMismatch
from assay.tokenizer import train_tokenizer
from assay.types import Completion, FinishReason, Message, RolloutGroup, Task, Verdict
from grpo import versions
from grpo.cluster import STRANGERS, Cluster, _knock
from grpo.config import ClusterConfig
from grpo.surroundings import about
from rewards.config import RewardsConfig
from rollouts.config import EngineConfig, RolloutConfig, TaskFile
from rollouts.engine import Sampling
from rollouts.tasks import read_tasks
from rollouts.weights import Place, Probe, Publication
from tests.tiny_tasks import generate

pytestmark = [pytest.mark.ray, pytest.mark.sandbox]


@pytest.fixture(scope="module")
def cluster():
    with Cluster(ClusterConfig(stall_report_s=1.0)) as made:
        yield made


def groups(folder: Path) -> list[RolloutGroup]:
    generate(folder, seed=0)
    tasks = read_tasks(TaskFile(path=str(folder / "train.jsonl")))[:4]
    return [
        RolloutGroup(
            task=task,
            prompt_ids=(0,),
            completions=tuple(
                Completion(
                    token_ids=(1,), logprobs=(0.0,), text=text, finish_reason=FinishReason.STOP, policy_version=(0, 0)
                )
                for text in (str(task.reference), "```python\ndef f(n): return None\n```")
            ),
        )
        for task in tasks
    ]


def test_reward_workers_judge_and_survive_being_killed(cluster: Cluster, tmp_path: Path):
    import ray

    pool = cluster.rewards(RewardsConfig(workers=2))
    work = groups(tmp_path)
    quiet = pool.score(work)
    assert [[r.verdict for r in s.results] for s in quiet] == [[Verdict.AC, Verdict.WA]] * 4
    assert all(r.isolation.startswith("local:") for s in quiet for r in s.results)
    for proxy in cluster._proxies:
        ray.kill(proxy._actor, no_restart=False)
    noisy = pool.score(work)
    assert [[r.reward for r in s.results] for s in noisy] == [[r.reward for r in s.results] for s in quiet]


def test_a_reward_function_of_the_users_is_found_beside_the_task_file(cluster: Cluster, tmp_path: Path):
    (tmp_path / "my_rewards.py").write_text(
        "def score(prompts, completions, wanted, **columns):\n"
        "    return [float(len(c[0]['content']) == w) for c, w in zip(completions, wanted)]\n"
    )
    row = {
        "id": "a",
        "messages": [{"role": "user", "content": "three letters"}],
        "verifier": "custom",
        "answer": {"function": "my_rewards.py:score", "columns": {"wanted": 3}},
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps(row))
    task = read_tasks(TaskFile(path=str(tmp_path / "tasks.jsonl")))[0]
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=t, finish_reason=FinishReason.STOP, policy_version=(0, 0))
        for t in ("abc", "ab")
    )
    pool = cluster.rewards(RewardsConfig(workers=1))
    scored = pool.score([RolloutGroup(task=task, prompt_ids=(0,), completions=completions)])
    assert [r.reward for r in scored[0].results] == [1.0, 0.0]


def test_a_part_that_cannot_start_says_why(cluster: Cluster, tmp_path: Path):
    with pytest.raises(EnvironmentProblem, match=r"reward-model could not start: .*no such folder"):
        cluster.reward_model(tmp_path / "nowhere")


def test_a_dead_actor_is_named_and_is_an_infrastructure_failure(cluster: Cluster):
    import ray

    pool = cluster.rewards(RewardsConfig(workers=1))
    proxy = cluster._proxies[-1]
    ray.kill(proxy._actor, no_restart=True)
    with pytest.raises(InfraFailure, match="rewards/0"):
        proxy.score_group(None)
    pool.close()


def test_buckets_reach_every_engine_and_the_heir_of_one_that_is_killed_while_it_sleeps(cluster: Cluster):
    tokenizer = train_tokenizer(["x"], vocab_size=300)
    tensors = {str(i): torch.full((64, 1024), float(i)) for i in range(12)}  # 256 KiB each
    probe = Probe(sequences=[[3, 4, 5]], expected=[[-1.0, -1.0]])
    config = RolloutConfig(engine=EngineConfig(kind="fake", engines=2))
    pool = cluster.rollouts("nowhere", config, tokenizer, max_model_len=8)
    task = Task(id="a", messages=(Message(role="user", content="x"),), verifier="function", answer={})
    draw = Sampling(temperature=1.0, max_tokens=8, samples=2, seed=4)

    def sync(version: int) -> list[int]:
        return [report.version for report in pool.sync(Publication(tensors.items, version, 1 << 20), probe)[0]]

    assert sync(1) == [1, 1]
    before = [c.token_ids for group in pool.generate([task] * 4, draw) for c in group.completions]
    pool.sleep()
    with pytest.raises(WeightMismatch, match="slept, and what it held is gone"):
        pool.generate([task], draw)
    ray.kill(pool._engines[1]._actor)
    assert sync(2) == [2, 2] and len(pool.recoveries) == 1
    groups = pool.generate([task] * 4, draw)
    assert [c.token_ids for group in groups for c in group.completions] == before
    assert {c.policy_version for group in groups for c in group.completions} == {(2, 2)}
    pool.close()


def test_an_engine_of_the_cluster_that_is_killed_leaves_its_heir_the_frozen_weights_and_the_factors(cluster: Cluster):
    config = RolloutConfig(engine=EngineConfig(kind="fake", engines=2, lora_sync="adapter"))
    pool = cluster.rollouts("nowhere", config, train_tokenizer(["x"], vocab_size=300), max_model_len=8)
    frozen, where = {"w": torch.ones(64, 1024)}, {"w": Place(parameter="w", experts=1, expert=0, start=0, stop=64)}
    base = Publication(frozen.items, 0, 1 << 16, places=where)
    factors = {"w.lora_A": torch.ones(2, 1024), "w.lora_B": torch.ones(64, 2)}
    probe = Probe(sequences=[[3, 4, 5]], expected=[[-1.0, -1.0]])

    def sync(version: int) -> int:
        pool.sync(Publication(factors.items, version, 1 << 16, base=base), probe)
        assert [engine.keeps() for engine in pool._engines] == [base.name] * 2
        return pool.sent_bytes

    alone = 4 * (2 * 1024 + 64 * 2)
    assert [sync(1), sync(2)] == [4 * 64 * 1024 + alone, alone]
    ray.kill(pool._engines[1]._actor)
    assert sync(3) == alone and len(pool.recoveries) == 1  # what an heir is given comes on top
    pool.close()


def test_a_cluster_that_is_too_small_says_what_is_missing_at_once(cluster: Cluster):
    with pytest.raises(
        EnvironmentProblem, match=r"too small: rewards: \d+ of 5000 have a place; each wants 1 CPU on one"
    ):
        cluster.rewards(RewardsConfig(workers=5000))
    assert cluster.missing() == ""


def test_a_device_that_is_not_there_is_missing_and_an_uneven_engine_is_refused(cluster: Cluster, monkeypatch):
    wide = RolloutConfig(engine=EngineConfig(kind="fake"))
    monkeypatch.setattr(cluster, "config", ClusterConfig(engine_resources={"tpu": 2}))
    with pytest.raises(
        EnvironmentProblem, match=r"rollouts: 0 of 1 have a place; each wants 1 CPU \+ 2 tpu .* 0 tpu free"
    ):
        cluster.rollouts("nowhere", wide, None, max_model_len=8)
    monkeypatch.setattr(cluster, "config", ClusterConfig(engine_gpus=2))
    uneven = RolloutConfig(engine=EngineConfig(tensor_parallel=4))
    with pytest.raises(EnvironmentProblem, match="tensor_parallel=4 with cluster.engine_gpus=2: .* make them equal"):
        cluster.rollouts("nowhere", uneven, None, max_model_len=8)
    adapted = RolloutConfig(engine=EngineConfig(lora_sync="adapter"))
    with pytest.raises(EnvironmentProblem, match="an engine of 2 processes: .*adapter needs tensor_parallel=1"):
        cluster.rollouts("nowhere", adapted, None, max_model_len=8)


def test_other_versions_on_a_node_are_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    here = {**versions.installed(), "torch": "1.0.0"}
    monkeypatch.setattr(versions, "installed", lambda: here)
    with pytest.raises(
        EnvironmentProblem, match=r"rewards/0 on .*, pid \d+ runs other versions: torch \S+ there, 1.0.0 h"
    ):
        cluster.rewards(RewardsConfig(workers=1))


def test_only_what_both_have_can_differ():
    assert versions.differences({"torch": "2", "vllm": "3"}, {"torch": "2", "ray": "1"}) == []
    assert versions.differences({"torch": "2", "vllm": "3"}, {"torch": "1", "vllm": "3"}) == ["torch 1 there, 2 here"]


HANGING = """import time
def score(prompts, completions, wanted, **columns):
    while 0 in wanted:
        time.sleep(1)
    return [float(w) for w in wanted]
"""


def custom_groups(folder: Path, wanted: list[int]) -> list[RolloutGroup]:
    (folder / "hanging.py").write_text(HANGING)
    answer = {"function": "hanging.py:score"}
    rows = [
        {"id": f"t/{i}", "messages": [{"role": "user", "content": "x"}], "verifier": "custom",
         "answer": {**answer, "columns": {"wanted": w}}}
        for i, w in enumerate(wanted)
    ]  # fmt: skip
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    completion = Completion(
        token_ids=(1,), logprobs=(0.0,), text="a", finish_reason=FinishReason.STOP, policy_version=(0, 0)
    )
    tasks = read_tasks(TaskFile(path=str(folder / "tasks.jsonl")))
    return [RolloutGroup(task=task, prompt_ids=(0,), completions=(completion,) * 2) for task in tasks]


def test_a_call_that_never_returns_fails_after_its_time_and_masks_its_samples_alone(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pool = cluster.rewards(RewardsConfig(workers=1))
    monkeypatch.setattr(cluster, "config", ClusterConfig(stall_report_s=1.0, call_timeout_s=10.0))
    scored = pool.score(custom_groups(tmp_path, [1, 0, 2]))
    assert [[r.reward for r in s.results] for s in scored] == [[1.0, 1.0], [None, None], [2.0, 2.0]]
    lost = scored[1].results[0]
    assert lost.verdict is Verdict.INFRA
    assert (
        "no answer to score_group of task 't/1', 2 completions within cluster.call_timeout_s=10; killed" in lost.detail
    )
    said = capsys.readouterr().err
    assert "still waiting for rewards/0 on " in said
    assert "score_group of task 't/1', 2 completions, 1 s; after 10 s it is killed, and started anew" in said
    pool.close()


def test_the_watchdog_names_the_task_of_an_engine_call():
    names = {(5, 6): "t/9"}
    assert about(([(5, 6), (7,)], None), names) == " of task 't/9' and 1 more"
    assert about(([(7,), (5, 6)], None), names) == " of 2"
    assert about((), names) == ""


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (b"", "it takes the connection and says nothing for 1 s"),
        (b"220 mail.example ESMTP\r\n" * 3, "Failed parsing HTTP/2"),
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "http1.x server"),
    ],
)
def test_a_stranger_at_the_address_of_a_cluster_is_told_from_one(says: bytes, told: str, monkeypatch):
    monkeypatch.setattr("grpo.cluster.KNOCK_S", 1.0)
    monkeypatch.setitem(
        STRANGERS, grpc.StatusCode.DEADLINE_EXCEEDED, "it takes the connection and says nothing for 1 s"
    )
    taken: list[socket.socket] = []

    def answer(server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed, at the end
            while True:
                taken.append(server.accept()[0])
                taken[-1].sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(EnvironmentProblem) as caught:
            Cluster(ClusterConfig(address=address)).__enter__()
        server.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.close()
    said = str(caught.value)
    assert f"what listens at {address} is no Ray cluster: " in said and told in said and "\n" not in said
    assert said.endswith(f"cluster.address={address}: is a cluster of our version there?")


def test_another_grpc_server_is_a_stranger_and_the_head_of_a_cluster_is_none(cluster: Cluster):
    import ray

    _knock(ray.get_runtime_context().gcs_address)
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(ConnectionError, match="speaks gRPC and does not know what Ray's head knows"):
        _knock(f"127.0.0.1:{port}")
    server.stop(None)


FULL = """
import numpy, sys
from grpo.cluster import Cluster
from grpo.config import ClusterConfig
from rollouts.config import EngineConfig, RolloutConfig
from rollouts.weights import Probe, WeightBundle

class Tokenizer:
    eos_token_id = 1

with Cluster(ClusterConfig(object_store_gib=0.08)) as cluster:
    pool = cluster.rollouts("x", RolloutConfig(engine=EngineConfig(kind="fake")), Tokenizer(), max_model_len=8)
    engine = pool._engines[0]
    try:
        engine.score([numpy.zeros(1000, dtype="uint8")], numpy.zeros(150 << 20, dtype="uint8"))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    tensors = {"a": numpy.zeros(150 << 20, dtype="uint8")}
    weights = WeightBundle(version=3, tensors=tensors, dtypes={}, digests={}, published={})
    try:
        pool.sync(weights, Probe(sequences=[[3, 4]], expected=[[-1.0]]))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    print(len(engine.score([[1, 2, 3]])[0]), pool.recoveries)
    pool.close()
"""


def test_a_full_object_store_is_told_as_one_and_no_engine_is_killed_for_it():
    """Ray takes the disk for full, as it does when hardly any is left; the message is 150 MiB to a store of 80."""
    done = subprocess.run(
        [sys.executable, "-c", FULL], env={**os.environ, "RAY_local_fs_capacity_threshold": "0.0001"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    asked, synced, alive = done.stdout.splitlines()
    full = (
        "Ray's object store is full, and so is the disk below its temporary folder (Local disk is full); free space "
        "there, or raise cluster.object_store_gib"
    )
    assert asked == f"EnvironmentProblem: rollouts/0: no room for score of 1: {full}"
    assert synced == f"EnvironmentProblem: rollouts: no room for 150.0 MiB of weights version 3: {full}"
    assert alive == "2 []"


def test_a_cluster_that_cannot_be_reached_is_one_line():
    with socket.socket() as closed:  # bound, so that nobody else takes it, and not listening
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(EnvironmentProblem, match=f"Ray did not start: .*refused; cluster.address={address}: is a"):
            Cluster(ClusterConfig(address=address)).__enter__()
