"""A cluster that was there before: what it offers is counted, and what a run asks beyond it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from assay.errors import EnvironmentProblem, InfraFailure
from assay.policy import load_tokenizer
from assay.types import Message, Task
from grpo.actors import EngineActor
from grpo.cluster import Cluster, Proxy
from grpo.config import ClusterConfig
from rewards.config import RewardsConfig
from rewards.model.network import RewardModel
from rollouts.config import EngineConfig, RolloutConfig
from rollouts.engine import Sampling

pytestmark = pytest.mark.ray
TOKENIZER = SimpleNamespace(eos_token_id=1)
ONE_ENGINE = RolloutConfig(engine=EngineConfig(kind="fake"))


@pytest.fixture(scope="module")
def raylets() -> Iterator[Any]:
    """A head of four processors and what it says is a device, with resources whose names begin as Ray's own do."""
    from ray.cluster_utils import Cluster as Raylets

    head = {"num_cpus": 4, "num_gpus": 1, "resources": {"memory_tier": 1, "objects": 2}, "include_dashboard": False}
    soon = {"health_check_period_ms": 300, "health_check_timeout_ms": 3000}  # that a node is dead
    made = Raylets(initialize_head=True, head_node_args={**head, "_system_config": soon})
    yield made
    made.shutdown()


def test_a_reward_model_for_which_nothing_is_left_is_told_in_one_line(raylets: Any, tmp_path: Path):
    with Cluster(ClusterConfig(address=raylets.address)) as cluster:
        cluster.rollouts("nowhere", ONE_ENGINE, TOKENIZER, max_model_len=8)
        cluster.rewards(RewardsConfig(workers=3, sandbox={"tier": "weak"}))
        with pytest.raises(EnvironmentProblem) as caught:
            cluster.reward_model(tmp_path)
        said = str(caught.value)
        assert said.startswith("the cluster is too small: reward-model: 0 of 1 have a place; each wants 1 CPU on one")
        assert "0 CPU free of 4 CPU; lower rewards.workers, " in said and "\n" not in said
        assert cluster.missing() == ""


def test_the_reward_model_computes_on_processors_or_on_the_device_that_was_asked_for(
    raylets: Any, tiny_policy: Path, tmp_path: Path
):
    RewardModel.from_policy(tiny_policy).save(load_tokenizer(tiny_policy), tmp_path)
    with Cluster(ClusterConfig(address=raylets.address)) as cluster:
        learned = cluster.reward_model(tmp_path)
        assert learned.score((0, 7), [(12, 1)]) == [0.5]
        assert ray.get(learned._actor.__ray_call__.remote(lambda self: self.held._device)) == "cpu"
    if torch.cuda.is_available():
        return
    config = ClusterConfig(address=raylets.address, reward_model_gpus=1)
    with Cluster(config) as cluster, pytest.raises(EnvironmentProblem, match=r"reward-model could not start: .*CUDA"):
        cluster.reward_model(tmp_path)  # the raylet says it has one, and there is none


def test_resources_of_ones_own_are_offered_whatever_their_names_begin_with(raylets: Any):
    with Cluster(ClusterConfig(address=raylets.address)) as cluster:
        (node,) = cluster.nodes()
        assert dict(node.resources) == {"CPU": 4.0, "GPU": 1.0, "memory_tier": 1.0, "objects": 2.0}
        assert node.ram_bytes > 0


def node_of(engine: Any) -> str:
    return str(ray._private.state.actors(engine._actor._actor_id.hex())["Address"]["NodeID"])


def test_an_engine_whose_node_is_lost_has_its_place_on_another_else_the_run_ends_with_the_reason(
    raylets: Any, tiny_policy: Path
):
    def add() -> Any:
        return raylets.add_node(num_cpus=1, resources={"engine": 1})

    nodes = {node.node_id: node for node in (add(), add())}
    config = ClusterConfig(
        address=raylets.address, engine_resources={"engine": 1}, stall_report_s=2.0, call_timeout_s=30.0
    )
    two = RolloutConfig(engine=EngineConfig(kind="fake", engines=2))
    tasks = [Task(id=str(i), messages=(Message(role="user", content="f"),), verifier="x", answer={}) for i in range(4)]
    with Cluster(config) as cluster:
        pool = cluster.rollouts(tiny_policy, two, load_tokenizer(tiny_policy), max_model_len=64)

        def drawn() -> list[Any]:
            return [g.completions for g in pool.generate(tasks, Sampling(temperature=1.0, max_tokens=8, samples=2))]

        def lose(node: Any, engine: Any) -> None:
            raylets.remove_node(node, allow_graceful=False)
            while cluster.whereabouts(engine._actor)[0]:  # its process outlives the raylet for a moment
                time.sleep(0.1)

        quiet, (lost, kept) = drawn(), map(node_of, pool._engines)
        spare = add()
        lose(nodes[lost], pool._engines[0])
        assert drawn() == quiet and len(pool.recoveries) == 1
        assert list(map(node_of, pool._engines)) == [spare.node_id, kept]
        waiting = ray.remote(EngineActor).options(resources={"engine": 2}).remote("", two, 8, 1)
        with pytest.raises(InfraFailure, match=rf"^rollouts/0: its node \S+:{lost[:8]} is gone$"):
            Proxy("rollouts/0", waiting, cluster, lost).generate([[3]])  # a node that is lost while one starts there
        ray.kill(pool._engines[1]._actor)  # its bundle belongs to the group that lost one
        assert drawn() == quiet and len(pool.recoveries) == 2
        assert list(map(node_of, pool._engines)) == [spare.node_id, kept]

        lose(spare, pool._engines[0])
        began = time.monotonic()
        with pytest.raises(InfraFailure) as caught:
            drawn()
        assert time.monotonic() - began < 20
        assert f":{spare.node_id[:8]} is gone, and no other has room for it: rollouts: 1 of 2 have" in str(caught.value)
        assert str(caught.value).startswith("rollouts/0: its node ")
        pool.close()
