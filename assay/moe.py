"""Mixtures of experts: what a gate has to compute, and whether the loaded one does.

DeepSeek-V2 (arXiv 2405.04434, section 2.2; the softmax branch of the published inference code), with E experts, K of
them per token, router logits z:

    s = softmax(z) over all E, in fp32
    chosen = top-K of s, or of s inside the `topk_group` groups with the largest maximum
    weight of a chosen expert = s * routed_scaling_factor, never renormalised
    output = sum over the chosen of weight * expert(x), plus shared(x)

Qwen3-MoE divides the K weights by their sum (`norm_topk_prob`) and has no shared expert.

A checkpoint's configuration says such things in words which a modelling file may ignore. So `check_moe` runs each
loaded gate on random inputs against a reference written here, and reads off each attention the softmax scale it will
use. Shapes: N positions, M layers with experts, E experts, K per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.errors import CheckpointError

ROWS = 8  # random inputs per gate
EXACT, ROUNDED = 1e-4, 3e-2  # relative: fp32 arithmetic, and 16-bit logits or weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What assay knows of one kind of mixture of experts, and reads off nothing else."""

    gate: str  #: class name of the router module, which returns (logits [N, E], weights [N, K], ids [N, K])
    weigh: Callable[[Any, Tensor, Tensor], Tensor]  #: (config, logits [N, E], ids [N, K]) -> weights [N, K]
    groups: Callable[[Any], tuple[int, int]]  #: config -> (groups, groups kept)
    attention_scale: Callable[[Any], float]  #: config -> what attention scores are multiplied with
    contradiction: Callable[[Any], str | None]  #: config words the loaded classes are known to ignore


def full_softmax(config: Any, logits_NE: Tensor, ids_NK: Tensor) -> Tensor:
    """softmax over all experts, at `ids`, times routed_scaling_factor: DeepSeek-V2. No renormalisation."""
    return logits_NE.float().softmax(dim=-1).gather(1, ids_NK) * config.routed_scaling_factor


def share_of_chosen(config: Any, logits_NE: Tensor, ids_NK: Tensor) -> Tensor:
    """softmax over all experts, at `ids`, divided by its sum over them where norm_topk_prob says so: Qwen3-MoE."""
    chosen = logits_NE.float().softmax(dim=-1).gather(1, ids_NK)
    if config.norm_topk_prob:
        chosen = chosen / chosen.sum(dim=-1, keepdim=True)
    return chosen.to(logits_NE.dtype)


def yarn_mscale(config: Any) -> float:
    """0.1 * mscale_all_dim * ln(factor) + 1 under YaRN, else 1: DeepSeek-V2's published code; squared in attention."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") == "default" or rope.get("factor", 1) <= 1:
        return 1.0
    return 0.1 * (rope.get("mscale_all_dim") or 0.0) * log(rope["factor"]) + 1


def _limited_groups(config: Any) -> tuple[int, int]:
    limited = config.topk_method == "group_limited_greedy"
    return (config.n_group, config.topk_group) if limited else (1, 1)


def _unheard_deepseek_v2(config: Any) -> str | None:
    """transformers' gate has no code for these words, and vLLM's has: the two would part without a sound."""
    if getattr(config, "norm_topk_prob", False):
        return "norm_topk_prob=true: transformers' DeepSeek-V2 gate never renormalises, vLLM's would"
    if getattr(config, "scoring_func", "softmax") != "softmax":
        return f"scoring_func={config.scoring_func!r}: transformers' DeepSeek-V2 gate knows softmax alone"
    if config.topk_method not in ("greedy", "group_limited_greedy"):
        return f"topk_method={config.topk_method!r}: expected greedy or group_limited_greedy"
    return None


#: config.model_type -> what holds for it
ARCHITECTURES: dict[str, Architecture] = {
    "deepseek_v2": Architecture(
        gate="DeepseekV2TopkRouter",
        weigh=full_softmax,
        groups=_limited_groups,
        attention_scale=lambda config: config.qk_head_dim**-0.5 * yarn_mscale(config) ** 2,
        contradiction=_unheard_deepseek_v2,
    ),
    "qwen3_moe": Architecture(
        gate="Qwen3MoeTopKRouter",
        weigh=share_of_chosen,
        groups=lambda config: (1, 1),
        attention_scale=lambda config: (config.head_dim or config.hidden_size // config.num_attention_heads) ** -0.5,
        contradiction=lambda config: None,
    ),
}


def architecture_of(model: nn.Module) -> Architecture | None:
    """The table's row for a model, or None: dense, or a mixture assay does not know."""
    return ARCHITECTURES.get(getattr(getattr(model, "config", None), "model_type", ""))


def gates_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, router module) of the M layers with experts, in the order of the layers; empty where there are none."""
    row = architecture_of(model)
    return [] if row is None else [(n, m) for n, m in model.named_modules() if type(m).__name__ == row.gate]


@torch.no_grad()
def check_moe(model: nn.Module, where: str) -> None:
    """Raise CheckpointError, in one line, unless gates, experts and attention scale compute what `model` asks for.

    A dense model, or one without a row in ARCHITECTURES, passes.
    """
    row = architecture_of(model)
    if row is None:
        return
    config: Any = model.config
    ignored = row.contradiction(config)
    if ignored:
        raise CheckpointError(f"{where}: {ignored}; such a checkpoint cannot be trained as it is served")
    _check_scale(model, row.attention_scale(config), config, where)
    gates = gates_of(model)
    generator = torch.Generator().manual_seed(0)
    for name, gate in gates:
        weight: Any = gate.weight
        hidden = torch.randn(ROWS, config.hidden_size, generator=generator).to(weight.device, weight.dtype)
        complaint = _gate_complaint(gate, hidden, row, config)
        if complaint:
            raise CheckpointError(f"{where}: {name}: {complaint}; the engine would compute another policy")
    if gates:
        _check_block(model, gates[0][0].rpartition(".")[0], generator, where)


def _check_scale(model: nn.Module, expected: float, config: Any, where: str) -> None:
    for name, module in model.named_modules():
        scale = getattr(module, "scaling", None)
        if isinstance(scale, float) and abs(scale - expected) > 1e-6 * expected:
            raise CheckpointError(
                f"{where}: {name}: attention scores are multiplied with {scale:.6f} instead of {expected:.6f}, YaRN's "
                f"mscale^2 = {yarn_mscale(config) ** 2:.4f} included; transformers before 5.15.0 leaves that factor "
                f"out of deepseek_v2, so install a later one"
            )


def _gate_complaint(gate: Any, hidden_NH: Tensor, row: Architecture, config: Any) -> str | None:
    """What the gate computes otherwise than the reference, or None.

    Ties are no complaint: the chosen experts are compared by their probabilities, which a tie leaves equal.
    """
    logits, weights, ids = gate(hidden_NH)
    tolerance = EXACT if logits.dtype == torch.float32 else ROUNDED
    if _apart(logits, hidden_NH.double() @ gate.weight.double().T) > tolerance:
        return "its logits are not hidden states times its weight, in its precision"
    probabilities = logits.float().softmax(dim=-1)
    for own, chosen in zip(probabilities.tolist(), ids.tolist(), strict=True):
        best = reference_choice(own, config.num_experts_per_tok, *row.groups(config))
        if sorted(own[e] for e in chosen) != sorted(own[e] for e in best):
            groups, kept = row.groups(config)
            limit = f" inside the best {kept} of {groups} groups" if groups > 1 else ""
            return f"it chooses experts {sorted(chosen)} instead of the top {len(best)}{limit}, {sorted(best)}"
    expected = row.weigh(config, logits, ids)
    tolerance = EXACT if weights.dtype == torch.float32 else ROUNDED
    if _apart(weights, expected.double()) > tolerance:
        return (
            f"its weights sum to {weights[0].sum().item():.4f} instead of {expected[0].sum().item():.4f} "
            f"({row.weigh.__name__}: softmax over all experts, renormalisation, routed_scaling_factor)"
        )
    return None


def reference_choice(probabilities_E: Sequence[float], k: int, groups: int, kept: int) -> list[int]:
    """The K experts of one token: the most probable ones of the `kept` groups with the largest maximum.

    (.1, .4, .3, .2), K = 2: experts 1 and 2. In two groups of which one is kept: experts 1 and 0.
    """
    size = len(probabilities_E) // groups
    best = sorted(range(groups), key=lambda g: -max(probabilities_E[g * size : (g + 1) * size]))[:kept]
    allowed = [e for g in best for e in range(g * size, (g + 1) * size)]
    return sorted(allowed, key=lambda e: -probabilities_E[e])[:k]


def _check_block(model: nn.Module, name: str, generator: torch.Generator, where: str) -> None:
    """The block around a gate: sum of weight * expert(x), expert by expert, plus shared(x) where there is one."""
    block: Any = model.get_submodule(name)
    experts = block.experts
    if experts.down_proj.dtype != torch.float32:
        return  # the gates were asked; sums in 16 bits would say nothing sharper
    hidden = torch.randn(ROWS, experts.down_proj.shape[1], generator=generator).to(experts.down_proj.device)
    _, weights, ids = block.gate(hidden)
    expected = torch.zeros_like(hidden)
    for n, k in torch.cartesian_prod(torch.arange(ROWS), torch.arange(ids.shape[1])).tolist():
        gate, up = F.linear(hidden[n], experts.gate_up_proj[ids[n, k]]).chunk(2)
        expected[n] += weights[n, k] * F.linear(experts.act_fn(gate) * up, experts.down_proj[ids[n, k]])
    if hasattr(block, "shared_experts"):
        expected += block.shared_experts(hidden)
    error = _apart(block(hidden[None])[0], expected.double())
    if error > EXACT:
        raise CheckpointError(
            f"{where}: {name}: its output is not the weighted sum of its experts plus the shared one "
            f"(relative difference {error:.1e}); use a transformers release that assay was tested with"
        )


def _apart(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest magnitude; infinite where anything is not finite."""
    difference = (got.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
    return difference.item() if torch.isfinite(difference) else float("inf")
