"""Tiny random mixtures of experts as Hugging Face folders, one for each architecture that assay knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.moe import architecture_of, gates_of
from assay.policy import without_bars
from assay.tokenizer import train_tokenizer

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "moe_intermediate_size": 32,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
}
LATENT = {
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 64,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
GROUPED = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}


def make_policy(kind: str, folder: Path) -> Path:
    """Write the policy `kind` with its tokenizer: random weights, the same every time."""
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

    tokenizer = train_tokenizer(["def f(n): return n + 1", "sum of the squares"] * 3, vocab_size=300)
    shared = {**SIZES, "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    greedy = {"topk_method": "greedy", "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0}
    grouped_heads: dict[str, Any] = {"num_key_value_heads": 1, "head_dim": 32, "num_experts": 8, "norm_topk_prob": True}
    grouped_heads["mlp_only_layers"] = [0]  # so that every kind has one dense layer and two with experts
    makers: dict[str, Callable[[], Any]] = {
        "deepseek_v2": lambda: DeepseekV2ForCausalLM(DeepseekV2Config(**shared, **LATENT, **greedy)),
        "deepseek_v2 in groups": lambda: DeepseekV2ForCausalLM(DeepseekV2Config(**shared, **LATENT, **GROUPED)),
        "qwen3_moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**shared, **grouped_heads)),
        "qwen3_moe with biases": lambda: Qwen3MoeForCausalLM(
            Qwen3MoeConfig(**shared, **grouped_heads, attention_bias=True)
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = makers[kind]()
    with without_bars():
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@contextmanager
def other_choice(model: Any, strength: float = 0.05) -> Iterator[None]:
    """Inside, each gate chooses by probability plus a constant of its own per expert; weights are as ever.

    A stand-in for an engine that breaks near-ties the other way: no weight of the policy and no formula for the
    weights of the chosen changes, only which experts are chosen, and only where probabilities are close.
    """
    generator = torch.Generator().manual_seed(11)
    row: Any = architecture_of(model)
    handles = []
    for _, gate in gates_of(model):
        bias = torch.randn(gate.weight.shape[0], generator=generator) * strength

        def after(gate: Any, arguments: Any, output: tuple[Tensor, ...], bias: Tensor = bias) -> tuple[Tensor, ...]:
            logits = output[0]
            ids = (logits.softmax(-1) + bias).topk(2).indices
            return logits, row.weigh(model.config, logits, ids), ids

        handles.append(gate.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
