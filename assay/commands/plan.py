"""`assay plan CONFIG`: how large the policy is, what each part takes and where it goes, before anything is loaded."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from assay import config as configs
from assay.commands.schema import RunConfig
from assay.errors import ConfigError
from assay.sizes import ModelSize, of_folder, of_policy
from grpo.config import ClusterConfig
from grpo.footprint import (
    FP32,
    checkpoint_copy,
    engine_parts,
    gib,
    in_transit,
    kept_base,
    memory_missing,
    sequence_cache,
    sharded,
    trainer_parts,
)
from grpo.placement import SLOTS, Kind, Node, Placement, kinds, not_yet, place, processes, written

NODE_WORDS = ("cpus", "gpus", "gpu_gib", "ram_gib", "count")


def main(arguments: argparse.Namespace) -> int:
    """0: everything has a place; 1: something is missing, one line each."""
    config = configs.load(RunConfig, arguments.config, arguments.overrides)
    nodes = offered(config, arguments.node or ())
    ranks = arguments.ranks or max(1, config.cluster.trainer_gpus)
    lines, missing = plan(config, of_policy(config.policy), nodes, ranks, arguments.sharded)
    for name, text in lines:
        print(f"{name:<12}{text}")
    for line in missing:
        print(f"{'missing':<12}{line}")
    return 1 if missing else 0


def plan(
    config: RunConfig, size: ModelSize, nodes: Sequence[Node], ranks: int = 1, shared: bool = False
) -> tuple[list[tuple[str, str]], list[str]]:
    """The lines to print, and what is missing. `ranks` of the trainer replicate the model, or have it `shared`."""
    from assay.logprobs import CHUNK_LOGITS  # torch, but no weights

    sampling, engine = config.rollouts.sampling, config.rollouts.engine
    longest = max(sampling.max_completion_tokens, config.eval.max_completion_tokens or 0)
    length = sampling.max_prompt_tokens + longest
    trainer, copy = None, 0
    if config.grpo is not None:
        copy = checkpoint_copy(size, config.grpo, adapted=config.policy.lora is not None)
        trained = sampling.max_prompt_tokens + sampling.max_completion_tokens
        policy = config.policy
        trainer = trainer_parts(size, config.grpo, trained, CHUNK_LOGITS, policy.lora is not None, policy.dtype)
        trainer = sharded(trainer, size, ranks) if shared else trainer
    seats = seated(ranks, nodes, config.cluster)
    kept = kept_base(size, engine, config.policy.dtype)
    again = shared if kept else config.grpo is not None and (config.grpo.max_lag > 0 or ranks > 1)
    transit = in_transit(size, engine, kept=again)
    on_devices = any(node.resources.get("GPU", 0) for node in nodes)
    one = engine_parts(size, engine, length, processes(config.cluster, config.rollouts) if on_devices else 0)
    scorer = reward_model_weights(config, size)
    wanted = kinds(config.cluster, config.rollouts, config.rewards, reward_model=scorer > 0)
    placement = place(wanted, nodes)
    missing = [
        *placement.missing,
        *([] if sum(seats.values()) == ranks else [_seatless(ranks, seats)]),
        *not_yet(config.cluster, config.rollouts),
        *memory_missing(
            config.cluster,
            engine,
            nodes,
            placement,
            trainer=trainer,
            one_engine=one,
            one_sequence=sequence_cache(size, engine, length),
            transit=transit + copy,
            ranks=seats,
            loading=FP32 * size.parameters if ranks > 1 else 0,
            kept=kept,
            reward_model=scorer,
        ),
    ]
    lines = [("policy", _policy(size))]
    if trainer is not None:
        where = f"each of {ranks} ranks, {'sharded' if shared else 'replicated'}" if ranks > 1 else "one device"
        lines.append(("trainer", f"{config.policy.dtype}, on {where}: {_sum(trainer)} (last parts: estimates)"))
    lines.append(("engine", f"{engine.dtype}, {'a device' if on_devices else 'each'}: {_sum(one)}"))
    lines.append(
        ("", f"of {engine.max_num_seqs} sequences x {length:,} tokens, {size.cached_per_token:,} numbers a token")
    )
    if kept:
        lines.append(("", f"{gib(kept)} of main memory for the frozen weights that adapters are merged into"))
    if scorer:
        where = "a device" if config.cluster.reward_model_gpus else "processors (cluster.reward_model_gpus: 0)"
        lines.append(("rewards", f"the reward model, float32, on {where}: weights {gib(scorer)}"))
    lines.append(("sync", f"{gib(transit)} of memory on the driver's node for weights on their way"))
    lines.append(("placement", f"{config.cluster.placement}: " + "; ".join(map(_kind, wanted))))
    if copy:
        lines.append(
            ("checkpoint", f"{gib(copy)} of memory on the driver's node while one is written beside the steps")
        )
    lines += [("node", f"{_node(node)}: {_actors(node, placement, seats.get(node.name, 0))}") for node in nodes]
    return lines, missing


def reward_model_weights(config: RunConfig, size: ModelSize) -> int:
    """Bytes of the reward model that the run trains, is given, or finds in its folder; 0 where it has none.

    Counted where it lies already, else as large as the policy.
    """
    folder = Path(config.reward_model_path or Path(config.run_dir) / "reward_model")
    if (folder / "reward_model.json").is_file():
        return FP32 * of_folder(folder).parameters
    return FP32 * size.parameters if config.reward_model is not None or config.reward_model_path is not None else 0


def seated(ranks: int, nodes: Sequence[Node], cluster: ClusterConfig) -> dict[str, int]:
    """How many ranks of the trainer each node takes: one a device, the driver's first; all there where it has none."""
    if not any(node.driver and node.resources.get("GPU", 0) for node in nodes):
        return {node.name: ranks for node in nodes if node.driver}
    seats: dict[str, int] = {}
    for node in sorted(nodes, key=lambda node: not node.driver):
        room = int(node.resources.get("GPU", 0))
        if node.driver and cluster.trainer_gpus:
            room = min(room, cluster.trainer_gpus)
        seats[node.name] = min(room, ranks - sum(seats.values()))
    return seats


def _seatless(ranks: int, seats: Mapping[str, int]) -> str:
    return (
        f"trainer: {sum(seats.values())} of {ranks} ranks have a device ("
        + ", ".join(f"{name} takes {count}" for name, count in seats.items())
        + "); start fewer processes, raise cluster.trainer_gpus, or add nodes"
    )


def offered(config: RunConfig, described: Sequence[str]) -> list[Node]:
    """The nodes described on the command line; else those of `cluster.address`; else this machine."""
    if described:
        return described_nodes(described)
    if config.cluster.address is not None:
        from grpo.cluster import Cluster

        with Cluster(config.cluster) as cluster:
            return cluster.nodes()
    return [this_machine()]


def described_nodes(words: Sequence[str]) -> list[Node]:
    """`gpus=8,gpu_gib=80,cpus=96,ram_gib=1024,count=2,reward=1`: other words are Ray resources. The driver's first."""
    nodes: list[Node] = []
    for word in words:
        try:
            values = {key: float(value) for key, _, value in (part.partition("=") for part in word.split(","))}
        except ValueError:
            raise ConfigError(f"--node {word!r}: expected {','.join(f'{w}=N' for w in NODE_WORDS)}") from None
        for key, value in values.items():
            near = difflib.get_close_matches(key, NODE_WORDS, n=1)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"--node {word!r}: {key}={value} is no amount")
            if key not in NODE_WORDS and near:
                raise ConfigError(f"--node {word!r}: {key!r}, did you mean {near[0]!r}?")
        resources = {"CPU": values.get("cpus", 1.0), "GPU": values.get("gpus", 0.0)}
        resources |= {key: value for key, value in values.items() if key not in NODE_WORDS}
        for _ in range(int(values.get("count", 1))):
            nodes.append(
                Node(
                    name=f"node{len(nodes)}",
                    resources={key: value for key, value in resources.items() if value},
                    driver=not nodes,
                    ram_bytes=int(values.get("ram_gib", 0) * 2**30),
                    gpu_bytes=int(values.get("gpu_gib", 0) * 2**30),
                )
            )
    return nodes


def this_machine() -> Node:
    """As a cluster of our own would offer it: slots without number, and the devices the driver lists."""
    devices = _devices()
    return Node(
        name=socket.gethostname(),
        resources={"CPU": float(SLOTS), **({"GPU": float(len(devices))} if devices else {})},
        driver=True,
        ram_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu_bytes=min(devices, default=0),
    )


def _devices() -> list[int]:
    """Bytes of each NVIDIA device, as nvidia-smi tells; torch would start a context on it."""
    if shutil.which("nvidia-smi") is None or not Path("/dev").exists():
        return []
    ask = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
    return [int(line) << 20 for line in done.stdout.split() if line.isdigit()] if done.returncode == 0 else []


def _policy(size: ModelSize) -> str:
    return f"{size.kind}, {size.parameters:,} parameters, {size.active:,} active per token, {size.layers} layers"


def _sum(parts: Mapping[str, int]) -> str:
    return " + ".join(f"{name} {gib(n)}" for name, n in parts.items() if n) + f" = {gib(sum(parts.values()))}"


def _kind(kind: Kind) -> str:
    return f"{kind.count} {kind.name} of {written(kind.bundle)} ({kind.strategy})"


def _node(node: Node) -> str:
    memory = f", {gib(node.ram_bytes)} of memory" if node.ram_bytes else ""
    device = f" of {gib(node.gpu_bytes)}" if node.gpu_bytes else ""
    listed = [f"{n:g} {name}{device if name == 'GPU' else ''}" for name, n in node.resources.items()]
    return f"{node.name} ({' + '.join(listed)}{memory})"


def _actors(node: Node, placement: Placement, ranks: int) -> str:
    """`trainer, rollouts 0 1, rewards 0`"""
    trainer = "trainer" if ranks == 1 else f"{ranks} ranks of the trainer"
    here: dict[str, list[str]] = {trainer: []} if ranks else {}
    for actor, where in placement.nodes.items():
        kind, _, index = actor.partition("/")
        if where == node.name and kind != "trainer":
            here.setdefault(kind, []).append(index)
    return ", ".join(f"{kind} {' '.join(indices)}".strip() for kind, indices in here.items()) or "nothing"
