"""A cluster that was there before: what it offers is counted, and what a run asks beyond it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from assay.errors import EnvironmentProblem
from assay.policy import load_tokenizer
from grpo.cluster import Cluster
from grpo.config import ClusterConfig
from rewards.config import RewardsConfig
from rewards.model.network import RewardModel
from rollouts.config import EngineConfig, RolloutConfig

pytestmark = pytest.mark.ray
TOKENIZER = SimpleNamespace(eos_token_id=1)
ONE_ENGINE = RolloutConfig(engine=EngineConfig(kind="fake"))


@pytest.fixture(scope="module")
def raylets() -> Iterator[Any]:
    """A head of four processors and what it says is a device, with resources whose names begin as Ray's own do."""
    from ray.cluster_utils import Cluster as Raylets

    head = {"num_cpus": 4, "num_gpus": 1, "resources": {"memory_tier": 1, "objects": 2}, "include_dashboard": False}
    made = Raylets(initialize_head=True, head_node_args=head)
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
