"""Actors behind proxies: errors that keep their kind, dead actors that are named, nothing left behind."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import ray
import torch

from assay.errors import EnvironmentProblem, InfraFailure, WeightMismatch
from assay.tokenizer import train_tokenizer
from assay.types import Completion, FinishReason, Message, RolloutGroup, Task, Verdict
from grpo import versions
from grpo.cluster import Cluster, _about
from grpo.config import ClusterConfig
from rewards.config import RewardsConfig
from rollouts.config import EngineConfig, RolloutConfig, TaskFile
from rollouts.engine import Sampling
from rollouts.tasks import read_tasks
from rollouts.weights import Probe, Publication
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


def test_a_cluster_that_is_too_small_says_what_is_missing_at_once(cluster: Cluster):
    with pytest.raises(
        EnvironmentProblem, match=r"too small: rewards: \d+ of 5000 have a place; each wants 1 CPU on one"
    ):
        cluster.rewards(RewardsConfig(workers=5000))
    assert cluster.missing() == ""


def test_a_device_that_is_not_there_is_missing_and_a_wide_engine_is_refused(cluster: Cluster, monkeypatch):
    wide = RolloutConfig(engine=EngineConfig(kind="fake"))
    monkeypatch.setattr(cluster, "config", ClusterConfig(engine_resources={"tpu": 2}))
    with pytest.raises(
        EnvironmentProblem, match=r"rollouts: 0 of 1 have a place; each wants 1 CPU \+ 2 tpu .* 0 tpu free"
    ):
        cluster.rollouts("nowhere", wide, None, max_model_len=8)
    monkeypatch.setattr(cluster, "config", ClusterConfig(engine_gpus=2))
    for of_two in (RolloutConfig(), RolloutConfig(engine=EngineConfig(tensor_parallel=2))):
        with pytest.raises(EnvironmentProblem, match="of 2 processes .* planned for but not started"):
            cluster.rollouts("nowhere", of_two, None, max_model_len=8)
        monkeypatch.setattr(cluster, "config", ClusterConfig())


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
    assert _about(([(5, 6), (7,)], None), names) == " of task 't/9' and 1 more"
    assert _about(([(7,), (5, 6)], None), names) == " of 2"
    assert _about((), names) == ""


def test_a_cluster_that_cannot_be_reached_is_one_line():
    with socket.socket() as closed:  # bound, so that nobody else takes it, and not listening
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(EnvironmentProblem, match=f"Ray did not start: .*refused; cluster.address={address}: is a"):
            Cluster(ClusterConfig(address=address)).__enter__()
