"""Actors behind proxies: errors that keep their kind, dead actors that are named, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.errors import EnvironmentProblem, InfraFailure
from assay.types import Completion, FinishReason, RolloutGroup, Verdict
from grpo.cluster import Cluster
from grpo.config import ClusterConfig
from rewards.config import RewardsConfig
from rollouts.config import TaskFile
from rollouts.tasks import read_tasks
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
