"""How much memory the parts of a run take, before anything is loaded. Bytes; no torch.

The trainer holds the policy, its gradient, AdamW's two moments and the reference in fp32: 4 + 4 + 8 + 4 bytes a
parameter, on one device, plus what a micro-batch leaves for the backward pass (an estimate) and a chunk of logits.
Computing in bfloat16 it holds what is frozen in 2 bytes, and during a pass a rounded copy of what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay.sizes import WIDTH, ModelSize
from grpo.config import ClusterConfig, GRPOConfig
from grpo.placement import Node, Placement
from rollouts.config import EngineConfig

FP32 = 4
LIVE_CHUNKS = 4  #: of logits at once: the product, its tempered copy, softmax, gradient

HELD = ("weights", "gradient", "Adam", "reference", "rounded copy")  #: what ranks may share

Parts = Mapping[str, int]  #: what -> bytes


def trainer_parts(
    size: ModelSize,
    config: GRPOConfig,
    length: int,
    chunk_logits: int,
    adapted: bool = False,
    dtype: str = "float32",
) -> dict[str, int]:
    """`length`: the longest prompt + completion, which a micro-batch holds even where it is above its limit.

    `adapted`: by LoRA, which holds no gradient or Adam state of the weights, and finds the reference inside them; its
    own are left out, a percent or so of the weights.
    """
    positions = max(config.micro_batch_tokens, length)
    saved = size.saved_per_token
    if config.gradient_checkpointing:  # the input of each layer, and the inside of one
        saved = size.layers * size.hidden + saved // size.layers
    weights, frozen = FP32 * size.parameters, WIDTH[dtype] * size.parameters
    return {
        "weights": frozen if adapted else weights,
        "gradient": 0 if adapted else weights,
        "Adam": 0 if adapted else 2 * weights,
        "reference": 0 if adapted or str(config.kl.estimator) == "none" else frozen,
        "rounded copy": 0 if adapted or dtype == "float32" else frozen,
        "activations": (FP32 if dtype == "float32" else 3) * saved * positions,  # residuals and norms stay in fp32
        "logits": LIVE_CHUNKS * FP32 * min(chunk_logits, size.vocabulary * positions),
    }


def sharded(parts: Parts, size: ModelSize, ranks: int) -> dict[str, int]:
    """Of one of `ranks` that shard the model (FSDP2): its share of what is held, and what is made whole for a moment:
    a layer, the next one and a gradient, and the head with its own. An estimate."""
    table = size.vocabulary * size.hidden
    layer = (size.parameters - 2 * table) // size.layers
    shares = {name: amount // ranks if name in HELD else amount for name, amount in parts.items()}
    return {**shares, "made whole": FP32 * (3 * layer + 2 * table)}


def engine_parts(size: ModelSize, config: EngineConfig, length: int, devices: int) -> dict[str, int]:
    """Of one device, of one engine. Weights are split over its devices; a KV cache is counted whole on each."""
    wanted = config.max_num_seqs * sequence_cache(size, config, length)
    return {
        "weights": WIDTH[config.dtype] * size.parameters // max(1, devices),
        "KV cache": wanted if devices else min(wanted, config.kv_cache_gib << 30),
    }


def sequence_cache(size: ModelSize, config: EngineConfig, length: int) -> int:
    """KV cache of one sequence at full length."""
    return WIDTH[config.dtype] * size.cached_per_token * length


def kept_base(size: ModelSize, engine: EngineConfig, dtype: str) -> int:
    """Of main memory, by each engine: the frozen weights it merges adapters into, in `policy.dtype`."""
    return WIDTH[dtype] * size.parameters if engine.lora_sync == "adapter" else 0


def in_transit(size: ModelSize, engine: EngineConfig, kept: bool) -> int:
    """Weights on their way to the engines, on the driver's node: the bucket that is made, and two in Ray's memory, each
    of `sync_bucket_mib` or of the largest tensor; and a copy, where engines may ask for it while the trainer trains."""
    width = WIDTH[engine.dtype]
    bucket = max(engine.sync_bucket_mib << 20, width * size.vocabulary * size.hidden)
    return 3 * bucket + (width * size.parameters if kept else 0)


def memory_missing(
    cluster: ClusterConfig,
    engine: EngineConfig,
    nodes: Sequence[Node],
    placement: Placement,
    *,
    trainer: Parts | None,
    one_engine: Parts,
    one_sequence: int,
    transit: int,
    ranks: Mapping[str, int],
    loading: int = 0,
    kept: int = 0,
    reward_model: int = 0,
) -> list[str]:
    """What does not fit, one line each. Memory that a node does not tell (0 bytes) is not judged.

    `ranks`: of the trainer, on each node, which hold `trainer` each, and `loading` of main memory at the start.
    `kept`: of main memory, by each engine.
    `reward_model`: its weights, in main memory or on the device it is given.
    """
    found = []
    held = 0 if trainer is None else sum(trainer.values())
    for node in nodes:
        engines = sum(1 for actor, where in placement.nodes.items() if where == node.name and "rollouts/" in actor)
        on_devices, here = node.resources.get("GPU", 0) > 0, ranks.get(node.name, 0)
        if on_devices:
            found += _device(cluster, engine, node, held if here else 0, engines, one_engine, one_sequence)
        ram = engines * kept + (0 if on_devices else engines * sum(one_engine.values()) + here * held)
        scores = reward_model if placement.nodes.get("reward-model/0") == node.name else 0
        if scores and cluster.reward_model_gpus and 0 < node.gpu_bytes < scores:
            found.append(
                f"{node.name}: the reward model wants {gib(scores)} on one device, {gib(node.gpu_bytes)} there; set "
                f"cluster.reward_model_gpus: 0, or take a smaller one"
            )
        ram += 0 if cluster.reward_model_gpus else scores
        ram += max(transit if node.driver else 0, here * loading if on_devices else 0)
        if 0 < node.ram_bytes < ram:
            found.append(
                f"{node.name}: {gib(ram)} of memory wanted, {gib(node.ram_bytes)} there; lower "
                f"grpo.micro_batch_tokens or rollouts.engine.engines, or take a smaller policy"
            )
    return found


def _device(
    cluster: ClusterConfig, engine: EngineConfig, node: Node, held: int, engines: int, one: Parts, sequence: int
) -> list[str]:
    if not node.gpu_bytes:
        return []
    found = []
    share = int(engine.gpu_memory_utilization * node.gpu_bytes)
    least = one["weights"] + sequence
    if engines and least > share:
        found.append(
            f"{node.name}: an engine wants {gib(least)} a device for its weights and one sequence, "
            f"rollouts.engine.gpu_memory_utilization leaves {gib(share)} of {gib(node.gpu_bytes)}; raise "
            f"cluster.engine_gpus (tensor parallel), or shorten the sequences"
        )
    beside = share if engines and cluster.placement == "colocated" else 0
    if held + beside > node.gpu_bytes:
        found.append(
            f"{node.name}: the trainer wants {gib(held)} on one device, {gib(node.gpu_bytes - beside)} of "
            f"{gib(node.gpu_bytes)} are free of the engine; lower grpo.micro_batch_tokens, set "
            f"grpo.gradient_checkpointing, place the engines apart, or take a smaller policy"
        )
    return found


def checkpoint_copy(size: ModelSize, config: GRPOConfig, adapted: bool = False) -> int:
    """What is held on the driver's node while a checkpoint is written beside the steps: weights and AdamW's moments in
    fp32. Those of an adapted policy are not written beside them."""
    return 3 * FP32 * size.parameters if config.checkpoint_async and not adapted else 0


def gib(amount: int) -> str:
    """12,345,678 -> `11.8 MiB`; GiB from one on."""
    return f"{amount / 2**30:,.2f} GiB" if amount >= 2**30 else f"{amount / 2**20:,.1f} MiB"
