"""Does this engine hold these weights? Asked of every module of a vLLM model, by running it.

Reading parameters back would not do. On a CPU vLLM pre-packs linear layers and frees the originals, experts lie
in a grouped-matmul layout, and MLA keeps derived copies of `kv_b_proj`. So each module is *run* on random inputs
and compared with the same product computed from the tensors the trainer sent (Freivalds, "Probabilistic machines
can use less running time", 1977: a wrong product survives a random vector with probability 0 over the reals).

`ANSWERS` is a literal table: class name of a vLLM module -> how it is asked. A tensor no module answered for is a
mismatch too, so the proof cannot lose coverage when vLLM renames a class. Imported inside the engine's process only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from assay.errors import WeightMismatch

State = Mapping[str, torch.Tensor]

#: vLLM's fused linear layers and the checkpoint tensors they are made of, in order
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
}
ROWS = 4  # random input rows per matrix; one would do over the reals, four make the maximum steadier


@dataclass(slots=True)
class Inquiry:
    """One pass over the engine's modules."""

    state: State
    generator: torch.Generator
    device: torch.device
    used: set[str] = field(default_factory=set)

    def take(self, name: str) -> torch.Tensor:
        """A tensor that was sent, on the engine's device. Raises WeightMismatch where there is none of that name."""
        if name not in self.state:
            raise WeightMismatch(f"the engine asks for {name}, and nothing of that name was sent")
        self.used.add(name)
        return self.state[name].to(self.device)

    def inputs(self, rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """Random inputs [rows, width], equal on both sides because the seed is."""
        return torch.randn(rows, width, generator=self.generator).to(device=like.device, dtype=like.dtype)


def check_holding(model: torch.nn.Module, state: State, rtol: float, seed: int) -> tuple[int, float]:
    """Ask every module. Returns (modules asked, worst relative error); raises WeightMismatch naming what differs."""
    inquiry = Inquiry(state, torch.Generator().manual_seed(seed), next(model.parameters()).device)
    answers: dict[str, float] = {}
    with torch.inference_mode():
        for name, module in model.named_modules():
            ask = _question(module)
            if ask is not None:
                answers.update(ask(inquiry, name, module))
    wrong = {name: error for name, error in answers.items() if not error <= rtol}
    silent = sorted(state.keys() - inquiry.used - _tied(state, inquiry.used))
    if wrong:
        worst = sorted(wrong, key=lambda name: -wrong[name])
        shown = ", ".join(f"{name} (relative error {wrong[name]:.1e})" for name in worst[:4])
        more = f" and {len(worst) - 4} more" if len(worst) > 4 else ""
        raise WeightMismatch(
            f"the engine does not hold the trainer's weights: {shown}{more}, "
            f"{len(wrong)} of {len(answers)} modules; allowed {rtol:.0e}"
        )
    if silent:
        raise WeightMismatch(f"no module of the engine answers for {', '.join(silent[:4])} ({len(silent)} tensors)")
    return len(answers), max(answers.values())


Ask = Callable[[Inquiry, str, Any], Iterator[tuple[str, float]]]


def _question(module: torch.nn.Module) -> Ask | None:
    for cls in type(module).__mro__:
        if cls.__name__ in ANSWERS:
            return ANSWERS[cls.__name__]
    return None


def _linear(inquiry: Inquiry, name: str, module: Any) -> Iterator[tuple[str, float]]:
    parent, _, leaf = name.rpartition(".")
    parts = [f"{parent}.{part}" for part in FUSED[leaf]] if leaf in FUSED else [name]
    weight = torch.cat([inquiry.take(f"{part}.weight") for part in parts])
    biases = [inquiry.take(f"{part}.bias") for part in parts if f"{part}.bias" in inquiry.state]
    x = inquiry.inputs(ROWS, weight.shape[1], like=weight)
    out = module(x)
    got = out[0] if isinstance(out, tuple) else out
    yield name, _relative(got, F.linear(x, weight, torch.cat(biases) if biases else None))


def _table(inquiry: Inquiry, name: str, module: Any) -> Iterator[tuple[str, float]]:
    """Embedding and output head: rows can be read; vLLM may pad the vocabulary."""
    key = f"{name}.weight"
    if key not in inquiry.state:  # tied: the head is the embedding
        key = next(k for k in inquiry.state if k.endswith("embed_tokens.weight"))
    expected = inquiry.take(key)
    yield name, _exact(module.weight[: expected.shape[0]], expected)


def _norm(inquiry: Inquiry, name: str, module: Any) -> Iterator[tuple[str, float]]:
    if f"{name}.weight" in inquiry.state:
        yield name, _exact(module.weight, inquiry.take(f"{name}.weight"))


def _latent_attention(inquiry: Inquiry, name: str, module: Any) -> Iterator[tuple[str, float]]:
    """MLA keeps two derived copies of kv_b_proj: W_UK^T [H, nope, R] and W_UV [H, R, v], used in decoding."""
    if getattr(module, "W_UV", None) is None:
        return
    prefix = name.removesuffix(".mla_attn").removesuffix(".mla_attn")
    heads, nope, rank = module.W_UK_T.shape
    full = inquiry.take(f"{prefix}.kv_b_proj.weight").view(heads, -1, rank)
    yield f"{name}.W_UK_T", _exact(module.W_UK_T, full[:, :nope])
    yield f"{name}.W_UV", _exact(module.W_UV, full[:, nope:].transpose(1, 2))


def _experts(inquiry: Inquiry, name: str, module: Any) -> Iterator[tuple[str, float]]:
    """Each routed expert alone: row e of the input goes to expert e with weight 1."""
    prefix = name.removesuffix(".routed_experts")
    count = module.w13_weight.shape[0]
    weights = [
        [inquiry.take(f"{prefix}.{e}.{part}_proj.weight") for part in ("gate", "up", "down")] for e in range(count)
    ]
    hidden = weights[0][0].shape[1]
    x = inquiry.inputs(count, hidden, like=weights[0][0])
    ids = torch.arange(count, device=x.device, dtype=torch.int32).unsqueeze(1)
    ones = torch.ones(count, 1, device=x.device, dtype=torch.float32)
    got = module.quant_method.apply(module, x.clone(), ones, ids, None, None)
    for e, (gate, up, down) in enumerate(weights):
        expected = F.linear(F.silu(F.linear(x[e], gate)) * F.linear(x[e], up), down)
        yield f"{prefix}.{e}", _relative(got[e], expected)


ANSWERS: dict[str, Ask] = {
    "LinearBase": _linear,
    "VocabParallelEmbedding": _table,
    "RMSNorm": _norm,
    "MLAAttention": _latent_attention,
    "RoutedExperts": _experts,
}


def _tied(state: State, used: set[str]) -> set[str]:
    """An untouched `lm_head.weight` that is the embedding under another name needs no answer of its own."""
    head, table = "lm_head.weight", next((k for k in used if k.endswith("embed_tokens.weight")), None)
    if head in state and table and torch.equal(state[head], state[table]):
        return {head}
    return set()


def _relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    scale = expected.float().abs().max().clamp_min(1e-30)
    error = (got.float() - expected.float()).abs().max() / scale
    return float("inf") if not torch.isfinite(error) else error.item()


def _exact(got: torch.Tensor, expected: torch.Tensor) -> float:
    """0 when equal to the bit; otherwise a relative error that no tolerance lets through."""
    if got.shape == expected.shape and torch.equal(got, expected.to(got.dtype)):
        return 0.0
    return float("inf") if got.shape != expected.shape else max(1.0, _relative(got, expected))
