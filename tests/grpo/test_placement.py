"""Who goes where, as arithmetic: no Ray here."""

from __future__ import annotations

import pytest

from assay.config import validate
from assay.errors import ConfigError
from grpo.config import ClusterConfig
from grpo.placement import (
    SLOTS,
    Node,
    Placement,
    kinds,
    not_yet,
    others_than_ranks,
    place,
    processes,
    resolved,
)
from grpo.surroundings import engine_env
from rewards.config import RewardsConfig
from rollouts.config import EngineConfig, RolloutConfig

LAPTOP = Node(name="laptop", resources={"CPU": SLOTS}, driver=True)
GPUS = Node(name="gpus", resources={"CPU": 96.0, "GPU": 8.0}, driver=True)
MORE_GPUS = Node(name="more", resources={"CPU": 96.0, "GPU": 8.0})
CPUS = Node(name="cpus", resources={"CPU": 64.0, "reward": 40.0})


def placed(nodes: list[Node], engines: int = 1, workers: int = 1, **cluster: object) -> Placement:
    config = validate(ClusterConfig, cluster, "test")
    return place(
        kinds(config, RolloutConfig(engine=EngineConfig(engines=engines)), RewardsConfig(workers=workers)), nodes
    )


def test_the_defaults_take_one_slot_each_and_always_fit_on_one_machine():
    plan = placed([LAPTOP], engines=4, workers=64)
    assert plan.missing == ()
    assert set(plan.nodes.values()) == {"laptop"} and len(plan.nodes) == 68
    assert [(k.name, k.count, dict(k.bundle)) for k in plan.kinds] == [
        ("rollouts", 4, {"CPU": 1.0}),
        ("rewards", 64, {"CPU": 1.0}),
    ]


def test_colocated_engines_lie_on_the_drivers_node():
    plan = placed([MORE_GPUS, GPUS], engines=2, engine_gpus=4)
    assert {plan.nodes["rollouts/0"], plan.nodes["rollouts/1"]} == {"gpus"}
    plan = placed([MORE_GPUS, GPUS], engines=3, engine_gpus=4)
    assert len(plan.missing) == 1 and "set cluster.placement: separate" in plan.missing[0]


def test_separate_engines_leave_the_trainers_devices_alone():
    plan = placed([GPUS, MORE_GPUS], engines=3, engine_gpus=4, placement="separate", trainer_gpus=4)
    assert plan.missing == ()
    assert plan.nodes["trainer/0"] == "gpus"
    assert sorted(plan.nodes[f"rollouts/{i}"] for i in range(3)) == ["gpus", "more", "more"]
    assert placed([GPUS, MORE_GPUS], engines=4, engine_gpus=4, placement="separate", trainer_gpus=4).missing


def test_an_engine_never_spans_two_nodes():
    one_short = [Node(name=f"n{i}", resources={"CPU": 8.0, "GPU": 3.0}, driver=i == 0) for i in range(4)]
    plan = placed(one_short, engine_gpus=4, placement="separate")
    assert plan.missing[0].startswith("rollouts: 0 of 1 have a place; each wants 4 CPU + 4 GPU on one node; n0 has")
    assert "lower rollouts.engine.engines" in plan.missing[0] and "\n" not in plan.missing[0]


def test_reward_workers_go_to_nodes_without_devices_and_spread():
    twin = Node(name="cpus2", resources={"CPU": 64.0})
    plan = placed([GPUS, CPUS, twin], workers=6, engine_gpus=1)
    where = [plan.nodes[f"rewards/{i}"] for i in range(6)]
    assert sorted(where) == ["cpus"] * 3 + ["cpus2"] * 3
    assert plan.nodes["rollouts/0"] == "gpus"


def test_a_resource_of_ones_own_marks_the_reward_nodes():
    plan = placed([LAPTOP, CPUS], workers=40, reward_resources={"reward": 1})
    assert {plan.nodes[f"rewards/{i}"] for i in range(40)} == {"cpus"}
    short = placed([LAPTOP, CPUS], workers=41, reward_resources={"reward": 1}).missing
    assert short == (
        "rewards: 40 of 41 have a place; each wants 1 CPU + 1 reward on one node; laptop has 1023 CPU + 0 reward free "
        "of 1024 CPU + 0 reward; cpus has 24 CPU + 0 reward free of 64 CPU + 40 reward; lower rewards.workers or "
        "cluster.reward_cpus, or add nodes",
    )


def test_nothing_is_placed_beyond_what_a_node_offers():
    plan = placed([GPUS, MORE_GPUS, CPUS], engines=4, workers=100, engine_gpus=3, placement="separate", trainer_gpus=2)
    taken: dict[tuple[str, str], float] = {}
    for kind in plan.kinds:
        for index in range(kind.count):
            for name, amount in kind.bundle.items():
                key = plan.nodes[kind.actor(index)], name
                taken[key] = taken.get(key, 0.0) + amount
    offered = {(n.name, name): amount for n in (GPUS, MORE_GPUS, CPUS) for name, amount in n.resources.items()}
    assert plan.missing == () and all(amount <= offered[key] for key, amount in taken.items())


def test_a_reward_model_that_has_no_place_is_told_with_the_remedy():
    four = Node(name="four", resources={"CPU": 4.0}, driver=True)
    wanted = kinds(ClusterConfig(), RolloutConfig(), RewardsConfig(workers=3), reward_model=True)
    assert place(wanted, [four]).missing == (
        "reward-model: 0 of 1 have a place; each wants 1 CPU on one node; four has 0 CPU free of 4 CPU; lower "
        "rewards.workers, cluster.reward_cpus or cluster.reward_model_gpus, or add nodes",
    )
    assert place(wanted, [LAPTOP]).nodes["reward-model/0"] == "laptop"


def test_a_reward_model_takes_the_device_it_is_given_and_no_other():
    def wanted(**cluster: object) -> Placement:
        config = validate(ClusterConfig, {"engine_gpus": 4, **cluster}, "test")
        engines = RolloutConfig(engine=EngineConfig(engines=2))
        return place(kinds(config, engines, RewardsConfig(), reward_model=True), [GPUS, CPUS])

    assert wanted().nodes["reward-model/0"] == "cpus"
    (missing,) = wanted(reward_model_gpus=1).missing
    assert missing.startswith("reward-model: 0 of 1 have a place; each wants 1 CPU + 1 GPU on one node; gpus has ")
    assert wanted(reward_model_gpus=1, engine_gpus=3).nodes["reward-model/0"] == "gpus"


def test_an_engine_asks_for_what_its_processes_take():
    def asked(engine: EngineConfig, **cluster: object) -> dict[str, float]:
        config, rollouts = validate(ClusterConfig, cluster, "test"), RolloutConfig(engine=engine)
        (kind,) = kinds(config, rollouts)
        assert not_yet(config, rollouts) == []
        assert resolved(config, rollouts).engine.tensor_parallel == processes(config, rollouts)
        return dict(kind.bundle)

    assert asked(EngineConfig()) == {"CPU": 1.0}
    assert asked(EngineConfig(tensor_parallel=2)) == {"CPU": 2.0}
    assert asked(EngineConfig(tensor_parallel=2), engine_cpus=6) == {"CPU": 6.0}
    assert asked(EngineConfig(), engine_gpus=4) == {"CPU": 4.0, "GPU": 4.0}
    assert asked(EngineConfig(tensor_parallel=4), engine_gpus=4) == {"CPU": 4.0, "GPU": 4.0}
    assert asked(EngineConfig(), engine_gpus=0.4) == {"CPU": 1.0, "GPU": 0.4}


@pytest.mark.parametrize(("asked", "devices"), [(2, 1.0), (2, 0.5), (1, 2.0), (4, 2.0)])
def test_an_engine_with_more_or_fewer_devices_than_processes_is_refused_in_one_line(asked: int, devices: float):
    cluster, engine = ClusterConfig(engine_gpus=devices), EngineConfig(tensor_parallel=asked)
    (line,) = not_yet(cluster, RolloutConfig(engine=engine))
    assert f"tensor_parallel={asked} with cluster.engine_gpus={devices:g}" in line and "\n" not in line


def test_what_needs_one_process_is_refused_where_devices_make_several():
    for engine in (EngineConfig(lora_sync="adapter"), EngineConfig(dtype="bfloat16", fp32_router_and_head=True)):
        (line,) = not_yet(ClusterConfig(engine_gpus=2), RolloutConfig(engine=engine))
        assert line.startswith("an engine of 2 processes") and "needs tensor_parallel=1" in line


def test_processes_of_an_engine_share_the_cores_of_the_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)

    def threads(**engine: int) -> str:
        return engine_env(RolloutConfig(engine=EngineConfig(**engine)))["OMP_NUM_THREADS"]  # type: ignore[arg-type]

    assert [threads(), threads(tensor_parallel=2), threads(tensor_parallel=16)] == ["8", "4", "1"]
    assert threads(threads=3, tensor_parallel=2) == "3"


def test_no_bundle_is_empty():
    assert [dict(kind.bundle) for kind in placed([LAPTOP], engine_cpus=0, reward_cpus=0).kinds] == [{"CPU": 0.001}] * 2


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"engine_gpus": 1.5}, "whole devices"),
        ({"trainer_gpus": 1}, "placement: separate"),
        ({"placement": "apart"}, "placement"),
        ({"reward_model_gpus": 2}, "less than or equal to 1"),
        ({"reward_cpu": 1}, "did you mean 'reward_cpus'"),
    ],
)
def test_settings_that_cannot_mean_anything(keys: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said):
        validate(ClusterConfig, keys, "test")


def test_devices_set_aside_are_those_the_ranks_took():
    two = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert others_than_ranks(["5"], {}) == ""
    assert others_than_ranks(["1", "0"], two) == ""
    assert others_than_ranks(["4", "6"], {**two, "CUDA_VISIBLE_DEVICES": "4,6,7"}) == ""
    assert "sets devices 2,3 aside for the trainer, whose 2 ranks run on 0,1" in others_than_ranks(["2", "3"], two)
    assert "trainer_gpus=2" in others_than_ranks(["0"], two)
    assert "--num-gpus=0" in others_than_ranks(["0", "1"], {**two, "WORLD_SIZE": "4"})
