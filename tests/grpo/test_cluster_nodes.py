"""Several nodes on one machine: separate raylets, actors where the plan says, and what happens when a node dies."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from assay.errors import InfraFailure
from assay.policy import load_tokenizer
from grpo.cluster import Cluster
from grpo.config import ClusterConfig
from rewards.config import RewardsConfig
from rollouts.config import EngineConfig, RolloutConfig, TaskFile
from rollouts.engine import Sampling
from rollouts.tasks import read_tasks

pytestmark = [pytest.mark.ray, pytest.mark.sandbox, pytest.mark.slow]

REWARD = """import time
def score(prompts, completions, **columns):
    time.sleep(1)
    return [1.0 for _ in completions]
"""


@pytest.fixture
def machines():
    """A head with two logical devices and two nodes marked for rewards."""
    from ray.cluster_utils import Cluster as Raylets

    head = {"num_cpus": 4, "num_gpus": 2, "include_dashboard": False}
    raylets = Raylets(initialize_head=True, head_node_args=head)
    try:
        nodes = [raylets.add_node(num_cpus=2, resources={"reward": 2}) for _ in range(2)]
        yield SimpleNamespace(raylets=raylets, nodes=nodes, head=raylets.head_node)
    finally:
        raylets.shutdown()


def node_of(proxy) -> str:
    import ray

    row = ray._private.state.actors(proxy._actor._actor_id.hex())
    return row["Address"]["NodeID"]


def devices_of(proxy) -> str:
    import ray

    return ray.get(proxy._actor.__ray_call__.remote(lambda self: os.environ["CUDA_VISIBLE_DEVICES"]))


def tasks_of(folder: Path, count: int):
    (folder / "slow.py").write_text(REWARD)
    rows = [
        {"id": f"t/{i}", "messages": [{"role": "user", "content": f"f {i}"}], "verifier": "custom",
         "answer": {"function": "slow.py:score"}}
        for i in range(count)
    ]  # fmt: skip
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_tasks(TaskFile(path=str(folder / "tasks.jsonl")))


def test_kinds_land_on_their_nodes_and_outlive_one(machines, tiny_policy: Path, tmp_path: Path):
    config = ClusterConfig(
        address=machines.raylets.address,
        placement="separate",
        trainer_gpus=1,
        engine_gpus=1,
        reward_resources={"reward": 1},
        stall_report_s=2.0,
        call_timeout_s=120.0,
    )
    rollouts = RolloutConfig(engine=EngineConfig(kind="fake"))
    with pytest.MonkeyPatch.context() as patch, Cluster(config) as cluster:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        engines = cluster.rollouts(tiny_policy, rollouts, load_tokenizer(tiny_policy), max_model_len=64)
        rewards = cluster.rewards(RewardsConfig(workers=2))
        where = {proxy._name: node_of(proxy) for proxy in cluster._proxies}
        first, second = (node.node_id for node in machines.nodes)
        assert where["rollouts/0"] == machines.head.node_id
        assert {where["rewards/0"], where["rewards/1"]} == {first, second}
        ours, theirs = os.environ["CUDA_VISIBLE_DEVICES"], devices_of(cluster._proxies[0])
        assert {ours, theirs} == {"0", "1"}  # the trainer's device is nobody else's

        tasks = tasks_of(tmp_path, 8)
        groups = engines.generate(tasks, Sampling(temperature=1.0, max_tokens=8, samples=2))
        assert [group.task.id for group in groups] == [f"t/{i}" for i in range(8)]
        loses = threading.Timer(2.0, lambda: machines.raylets.remove_node(machines.nodes[0], allow_graceful=False))
        loses.start()
        started = time.monotonic()
        scored = rewards.score(groups)
        loses.join()
        assert time.monotonic() - started > 2.0  # the node died while there was work
        assert [s.group.task.id for s in scored] == [f"t/{i}" for i in range(8)]
        assert [[r.reward for r in s.results] for s in scored] == [[1.0, 1.0]] * 8
        workers = [proxy for proxy in cluster._proxies if proxy._name.startswith("rewards/")]
        assert {node_of(proxy) for proxy in workers} == {second}

        machines.raylets.remove_node(machines.nodes[1], allow_graceful=False)
        with pytest.raises(InfraFailure, match=r"rewards/\d has no node left to run on: rewards: 0 of 2 have a place"):
            rewards.score(groups[:2])
