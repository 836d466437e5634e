"""Who goes where: from the configuration and what the cluster offers to bundles, nodes and what is missing.

One pure function, `place`, feeds Ray's placement groups (`grpo/cluster.py`) and `assay plan`. A bundle is what one
actor takes, and lies within one node: an engine of several GPUs (tensor parallel) never spans two.

    colocated   engines share the devices of the trainer, so they lie on the driver's node
    separate    the trainer's devices are set aside first; engines take others, there or on other nodes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from assay.config import validate
from assay.errors import ConfigError
from grpo.config import ClusterConfig
from rewards.config import RewardsConfig
from rollouts.config import RolloutConfig

Bundle = Mapping[str, float]
SLOTS = 1024  #: of a cluster of our own; not cores: on one machine the parts take turns, so none may wait for a slot
LEAST_CPU = 0.001  #: Ray takes no empty bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one machine offers. Resource names are Ray's: CPU, GPU, and whatever it was started with."""

    name: str
    resources: Mapping[str, float]
    id: str = ""  #: Ray's
    driver: bool = False  #: the trainer runs here, in the process of the command
    ram_bytes: int = 0
    gpu_bytes: int = 0  #: of the smallest device


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Actors of one kind: as many bundles, and Ray's word for how they spread over nodes."""

    name: str
    count: int
    bundle: Bundle
    strategy: str  #: PACK or SPREAD; both are wishes, not conditions
    beside_driver: bool = False
    without_gpus: bool = False  #: nodes without devices come first

    def actor(self, index: int) -> str:
        return f"{self.name}/{index}"


@dataclass(frozen=True, slots=True)
class Placement:
    """`nodes`: actor -> node name, where there is room. `missing`: one line each, empty where all have a place."""

    kinds: tuple[Kind, ...]
    nodes: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def kinds(
    cluster: ClusterConfig,
    rollouts: RolloutConfig | None = None,
    rewards: RewardsConfig | None = None,
    *,
    reward_model: bool = False,
) -> tuple[Kind, ...]:
    """The kinds of a run, in the order in which they take their place: the trainer first, the reward model last, as it
    may be trained in the run itself."""
    separate = cluster.placement == "separate"
    found = []
    if separate and cluster.trainer_gpus:
        devices = {"GPU": float(cluster.trainer_gpus)}
        found.append(Kind(name="trainer", count=1, bundle=devices, strategy="PACK", beside_driver=True))
    if rollouts is not None:
        cpus = cluster.engine_cpus if cluster.engine_cpus is not None else float(processes(cluster, rollouts))
        found.append(
            Kind(
                name="rollouts",
                count=rollouts.engine.engines,
                bundle=_bundle(cpus, cluster.engine_gpus, cluster.engine_resources),
                strategy="PACK",
                beside_driver=not separate and cluster.engine_gpus > 0,
            )
        )
    if rewards is not None:
        found.append(
            Kind(
                name="rewards",
                count=rewards.workers,
                bundle=_bundle(cluster.reward_cpus, 0, cluster.reward_resources),
                strategy="SPREAD",
                without_gpus=True,
            )
        )
    if reward_model:
        bundle = _bundle(1.0, cluster.reward_model_gpus, {})
        found.append(
            Kind(name="reward-model", count=1, bundle=bundle, strategy="PACK", without_gpus="GPU" not in bundle)
        )
    return tuple(found)


def place(wanted: Sequence[Kind], offered: Sequence[Node]) -> Placement:
    """First fit, bundle by bundle: PACK stays on a node as long as it has room, SPREAD takes the least used one."""
    free = {node.name: dict(node.resources) for node in offered}
    nodes: dict[str, str] = {}
    missing = []
    for kind in wanted:
        used = dict.fromkeys(free, 0)
        for index in range(kind.count):
            room = [n for n in offered if _allowed(kind, n) and _fits(kind.bundle, free[n.name])]
            if not room:
                missing.append(_missing(kind, index, offered, free))
                break
            chosen = min(room, key=lambda n, k=kind, u=used: _rank(k, n, u[n.name])).name  # type: ignore[misc]
            used[chosen] += 1
            nodes[kind.actor(index)] = chosen
            for name, amount in kind.bundle.items():
                free[chosen][name] -= amount
    return Placement(kinds=tuple(wanted), nodes=nodes, missing=tuple(missing))


def processes(cluster: ClusterConfig, rollouts: RolloutConfig) -> int:
    """Of one engine: tensor parallel from two on."""
    return rollouts.engine.tensor_parallel or max(1, int(cluster.engine_gpus))


def resolved(cluster: ClusterConfig, rollouts: RolloutConfig) -> RolloutConfig:
    """`rollouts` as an engine is told of it, with the number of its processes. Raises ConfigError where what else was
    asked for needs another number."""
    told = rollouts.model_dump()
    told["engine"]["tensor_parallel"] = processes(cluster, rollouts)
    return validate(RolloutConfig, told, f"an engine of {processes(cluster, rollouts)} processes")


def not_yet(cluster: ClusterConfig, rollouts: RolloutConfig) -> list[str]:
    """What can be placed but not run, one line each."""
    count = processes(cluster, rollouts)
    if cluster.engine_gpus and count != max(1, int(cluster.engine_gpus)):
        return [
            f"rollouts.engine.tensor_parallel={count} with cluster.engine_gpus={cluster.engine_gpus:g}: an engine "
            f"takes a device for each of its processes; leave tensor_parallel out, or make them equal"
        ]
    try:
        resolved(cluster, rollouts)
    except ConfigError as error:
        return [str(error)]
    return []


def others_than_ranks(devices: Sequence[str], told: Mapping[str, str]) -> str:
    """Why the devices set aside are not those that the ranks of a launcher run on, in one line; empty where they are.

    `told`: the environment. Ranks take their devices before Ray is there: the first of those they may see.
    """
    ranks, here = int(told.get("WORLD_SIZE", "1")), int(told.get("LOCAL_WORLD_SIZE", "1"))
    if ranks == 1:
        return ""
    if ranks != here:
        return (
            "cluster.trainer_gpus sets devices of one machine aside, and the ranks are on several: leave it out, and "
            "start Ray with --num-gpus=0 where they are"
        )
    visible = told.get("CUDA_VISIBLE_DEVICES")
    theirs = (visible.split(",") if visible else [str(i) for i in range(ranks)])[:ranks]
    if set(theirs) == set(devices):
        return ""
    return (
        f"Ray sets devices {','.join(devices)} aside for the trainer, whose {ranks} ranks run on {','.join(theirs)}: "
        f"set cluster.trainer_gpus={ranks}, and CUDA_VISIBLE_DEVICES to what nobody else has, these first"
    )


def written(bundle: Bundle) -> str:
    """`1 CPU + 4 GPU`"""
    return " + ".join(f"{amount:g} {name}" for name, amount in bundle.items()) or "nothing"


def _bundle(cpus: float, gpus: float, others: Bundle) -> Bundle:
    bundle = {name: amount for name, amount in {"CPU": cpus, "GPU": gpus, **others}.items() if amount}
    return bundle or {"CPU": LEAST_CPU}


def _allowed(kind: Kind, node: Node) -> bool:
    return node.driver or not kind.beside_driver


def _fits(bundle: Bundle, free: Bundle) -> bool:
    return all(free.get(name, 0.0) >= amount - 1e-9 for name, amount in bundle.items())


def _rank(kind: Kind, node: Node, used: int) -> tuple[bool, int]:
    wrong = kind.without_gpus and node.resources.get("GPU", 0) > 0
    return wrong, used if kind.strategy == "SPREAD" else -used


def _missing(kind: Kind, placed: int, offered: Sequence[Node], free: Mapping[str, Bundle]) -> str:
    """Wanted, offered, remedy: one line."""
    allowed = [node for node in offered if _allowed(kind, node)]
    names = list(kind.bundle)
    offers = "; ".join(
        f"{node.name} has {written({name: free[node.name].get(name, 0.0) for name in names})} free"
        f" of {written({name: node.resources.get(name, 0.0) for name in names})}"
        for node in allowed[:4]
    )
    more = f" and {len(allowed) - 4} more nodes" if len(allowed) > 4 else ""
    where = "on the driver's node" if kind.beside_driver else "on one node"
    apart = ", set cluster.placement: separate" if kind.beside_driver and kind.name == "rollouts" else ""
    return (
        f"{kind.name}: {placed} of {kind.count} have a place; each wants {written(kind.bundle)} {where}; "
        f"{offers or 'no node may take it'}{more}; {REMEDY[kind.name]}{apart}"
    )


REMEDY = {
    "trainer": "lower cluster.trainer_gpus, or start the command on a node with so many GPUs",
    "rollouts": "lower rollouts.engine.engines, cluster.engine_gpus or cluster.engine_cpus, or add nodes",
    "rewards": "lower rewards.workers or cluster.reward_cpus, or add nodes",
    "reward-model": "lower rewards.workers, cluster.reward_cpus or cluster.reward_model_gpus, or add nodes",
}
