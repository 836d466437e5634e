"""What every rank of `test_ranks.py` runs: python -m tests.grpo.ranks POLICY OUT KIND, with RANK and so on set.

`train` is called in the test's own process as well: the run on one rank that all others have to equal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from assay.adapter import LoraConfig
from assay.sharded import whole
from grpo.batch import TrainBatch
from grpo.config import GRPOConfig, KLConfig, OptimizerConfig
from grpo.trainer import PolicyTrainer
from rollouts.config import EngineConfig
from rollouts.merging import Base
from rollouts.weights import unpack
from tests.launching import shard_on_a_cpu

LORA = LoraConfig(rank=4, alpha=8)
LENGTHS = (6, 2, 4, 8, 9, 3, 5)


def batch(shift: int) -> TrainBatch:
    completions = tuple(tuple(20 + (7 * i + t + shift) % 200 for t in range(n)) for i, n in enumerate(LENGTHS))
    return TrainBatch(
        prompts=tuple((0, 30 + i, 40) for i in range(len(LENGTHS))),
        completions=completions,
        engine_logprobs=tuple((-5.0,) * n for n in LENGTHS),
        advantages=(1.0, -0.5, 0.8, -1.3, 0.4, 0.0, -0.4),
        weights=tuple(1 / (len(LENGTHS) * n) for n in LENGTHS),
        oldest_version=0,
        counts={},
    )


def trainer(policy: Path | str, lora: LoraConfig | None = None) -> PolicyTrainer:
    config = GRPOConfig(
        learning_rate=1e-4,
        optimizer=OptimizerConfig(grad_clip=0.05, weight_decay=0.1),
        kl=KLConfig(coef=0.1),
        micro_batch_tokens=16,
    )
    return PolicyTrainer(policy, config, dtype="float32", temperature=0.9, pad_id=2, lora=lora)


def train(policy: Path | str, folder: Path, lora: LoraConfig | None = None) -> dict[str, Any]:
    """Two steps, saved, taken up by another trainer for a third. Gradients of the second, weights after each part."""
    first = trainer(policy, lora)
    first.step(batch(0))
    gradients = caught(first, batch(3))
    metrics = first.step(batch(3))
    after_two = first.publish()
    first.save(folder)
    first.accelerator.wait_for_everyone()
    second = trainer(policy, lora)
    second.restore(folder)
    second.step(batch(5))
    after_three = second.publish()
    probe = second.probe([[20, 21, 22, 23], [90, 80, 70]])
    alone = {} if lora is None else {"alone": merged_from_factors(second)}
    return alone | {
        "gradients": gradients,
        "metrics": {k: torch.tensor(v, dtype=torch.float64) for k, v in metrics.items()},
        "two": {k: torch.from_numpy(v) for k, v in after_two.tensors.items()},
        "three": {k: torch.from_numpy(v) for k, v in after_three.tensors.items()},
        "probe": {str(i): torch.tensor(row) for i, row in enumerate(probe.expected)},
    }


def merged_from_factors(trainer: PolicyTrainer) -> dict[str, torch.Tensor]:
    """What an engine merges out of the factors that this trainer publishes. Every rank takes part; one has it."""
    published = trainer.publication(EngineConfig(lora_sync="adapter"), keep=False)
    if not trainer.accelerator.is_main_process:
        return {}
    assert published.base is not None
    base, factors = Base(), {}
    for bucket in published.base:
        base.take(bucket)
    for bucket in published:
        factors |= dict(unpack(bucket))
    return {name: tensor.clone() for name, tensor in base.merged(factors, bucket)}


def caught(trainer: PolicyTrainer, batch: TrainBatch) -> dict[str, torch.Tensor]:
    """The clipped gradient of a step that the optimizer does not take."""
    gradients: dict[str, torch.Tensor] = {}
    step = trainer.optimizer.step

    def catch(*args: Any, **kwargs: Any) -> None:
        gradients.update(whole({n: p.grad for n, p in trainer.unwrapped.named_parameters() if p.grad is not None}))

    trainer.optimizer.step = catch  # type: ignore[method-assign]
    trainer.step(batch)
    trainer.optimizer.step = step  # type: ignore[method-assign]
    trainer.version -= 1
    return {name: g.clone() for name, g in gradients.items()}


def main(policy: str, out: str, kind: str) -> None:
    torch.set_num_threads(1)
    if "fsdp2" in kind:
        shard_on_a_cpu()
        made = trainer(policy, LORA if "lora" in kind else None)
        for model in (made.unwrapped, made.reference or made.unwrapped):
            held = sum(p.to_local().numel() for p in model.parameters()) / sum(p.numel() for p in model.parameters())
            assert held < 0.6, f"this rank holds {held:.0%} of the parameters"
    results = train(policy, Path(out) / "checkpoint", LORA if "lora" in kind else None)
    if int(torch.distributed.get_rank()) == 0:
        flat = {f"{part}/{k}": v.contiguous() for part, values in results.items() for k, v in values.items()}
        save_file(flat, Path(out) / "results.safetensors")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
