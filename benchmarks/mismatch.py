"""How far a 16-bit engine and the trainer are apart on sampled tokens: k3 per token, by what each side computes in.

    python benchmarks/mismatch.py [--tokens 96] [--prompts 16] [--sharpness 8]

A tiny random DeepSeek-V2 (4 layers, 16 experts, 4 per token). The real vLLM draws completions in bfloat16, without and
with `fp32_router_and_head`; the trainer reads them in float32 and in bfloat16, without and with routing replay (r3).
k3 = e^d - d - 1 with d = log mu - log pi, mu the engine's probability. The head of a random model says next to nothing:
its logits are about 1, those of a trained one reach 20 or 30, where bfloat16 goes in steps of an eighth. `sharpness`
multiplies the head's weight.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from assay.policy import InitConfig, PolicyConfig, create_policy
from assay.tokenizer import train_tokenizer
from grpo.batch import TrainBatch
from grpo.config import GRPOConfig, KLConfig, MoEConfig
from grpo.trainer import PolicyTrainer
from rollouts.config import EngineConfig, ProofConfig
from rollouts.engine import Sampling

SIZES = InitConfig(hidden_size=64, num_hidden_layers=4, n_routed_experts=16, num_experts_per_tok=4)
HEADER = ("engine", "trainer", "replay", "tokens", "k3", "largest |d|", "|d| > 0.01", "> 0.1", "experts agree")
GROUP = 4


@dataclass(frozen=True)
class Drawn:
    batch: TrainBatch
    state: dict[str, torch.Tensor]  # the weights that drew it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--sharpness", type=float, default=1.0)
    options = parser.parse_args()
    tokenizer = train_tokenizer(["def f(n): return n + 1", "sum of the squares"] * 3, vocab_size=300)
    folder = Path(tempfile.mkdtemp()) / "policy"
    policy = create_policy(PolicyConfig(init=SIZES, vocab_size=300), tokenizer, 0, folder)
    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER), flush=True)
    for wide in (False, True):
        config = EngineConfig(max_num_seqs=16, dtype="bfloat16", fp32_router_and_head=wide, return_experts=True)
        drawn = draw(policy, config, options)
        for dtype in ("float32", "bfloat16"):
            for replay in ("off", "r3"):
                row(policy, drawn, "bfloat16, router and head fp32" if wide else "bfloat16", dtype, replay)


def trainer_of(policy: Path, dtype: Any, replay: Any = "off") -> PolicyTrainer:
    config = GRPOConfig(learning_rate=1e-9, kl=KLConfig(estimator="none"), moe=MoEConfig(replay=replay))
    return PolicyTrainer(policy, config, dtype=dtype, temperature=1.0, pad_id=2)


def draw(policy: Path, config: EngineConfig, options: argparse.Namespace) -> Drawn:
    """Completions of an engine that holds weights of float32 rounded, as after any update."""
    from rollouts.vllm import VLLMEngine

    trainer, generator = trainer_of(policy, "float32"), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
        trainer.unwrapped.lm_head.weight.mul_(options.sharpness)
    asked = [[0, *torch.randint(20, 280, (12,), generator=generator).tolist()] for _ in range(options.prompts)]
    engine = VLLMEngine(str(policy), config, ProofConfig(), max_model_len=options.tokens + 32, eos_token_id=1)
    for bucket in trainer.publication(config, keep=False):
        engine.load_weights(bucket)
    groups = engine.generate(asked, Sampling(temperature=1.0, max_tokens=options.tokens, samples=GROUP, seed=3))
    engine.close()
    gc.collect()
    pairs = [(p, c) for p, group in zip(asked, groups, strict=True) for c in group]
    batch = TrainBatch(
        prompts=tuple(tuple(p) for p, _ in pairs),
        completions=tuple(c.token_ids for _, c in pairs),
        engine_logprobs=tuple(c.logprobs for _, c in pairs),
        advantages=tuple(1.0 if i % 2 else -1.0 for i in range(len(pairs))),
        weights=(1 / len(pairs),) * len(pairs),
        oldest_version=0,
        counts={},
        experts=tuple(c.experts for _, c in pairs),
    )
    return Drawn(batch, {name: t.clone() for name, t in trainer.unwrapped.state_dict().items()})


def row(policy: Path, drawn: Drawn, engine: str, dtype: str, replay: str) -> None:
    trainer = trainer_of(policy, dtype, replay)
    trainer.unwrapped.load_state_dict(drawn.state)
    m = trainer.step(drawn.batch)
    shares = [f"{m[f'mismatch/above_{t}']:.1%}" for t in ("0.01", "0.1")] + [f"{m['moe/agreement']:.2%}"]
    measured = [f"{m['tokens/trained']:.0f}", f"{m['mismatch/k3']:.2e}", f"{m['mismatch/max_abs_logratio']:.3f}"]
    print("| " + " | ".join([engine, dtype, replay, *measured, *shares]) + " |", flush=True)


if __name__ == "__main__":
    main()
