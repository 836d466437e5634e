"""policy.dtype: bfloat16 computes products in 16 bits; what is trained, summed, routed and measured stays in 32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from assay.adapter import LoraConfig
from assay.errors import ConfigError
from assay.logprobs import completion_logprobs
from assay.moe import gates_of
from assay.packing import pack_completions
from assay.precision import check_precision, computing, narrow_frozen
from grpo.config import GRPOConfig, KLConfig, OptimizerConfig
from grpo.trainer import PolicyTrainer
from tests.grpo.test_trainer import gradient, make_batch, perturb

LORA = LoraConfig(rank=4, alpha=8)
LOGPROB_ATOL, COSINE = 0.03, 0.999  # of the tiny policy; it differs by 0.011 and 0.9999


def make_trainer(policy: Path, dtype: Any = "bfloat16", lora: Any = None, **settings: Any) -> PolicyTrainer:
    plain = {"learning_rate": 1e-2, "optimizer": OptimizerConfig(grad_clip=1e9), "kl": KLConfig(coef=0.1)}
    config = GRPOConfig(**{**plain, **settings})
    return PolicyTrainer(policy, config, dtype=dtype, temperature=1.0, pad_id=2, lora=lora)


def logprobs(trainer: PolicyTrainer) -> Tensor:
    batch = make_batch(trainer)
    sequences = [[*p, *c] for p, c in zip(batch.prompts, batch.completions, strict=True)]
    return torch.tensor([value for row in trainer.probe(sequences).expected for value in row])


def cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    flat = [torch.cat([g[name].flatten().double() for name in a]) for g in (a, b)]
    return torch.nn.functional.cosine_similarity(*flat, dim=0).item()


def test_log_probs_are_near_those_of_32_bits_and_not_the_same(tiny_policy: Path):
    narrow, wide = (logprobs(make_trainer(tiny_policy, dtype)) for dtype in ("bfloat16", "float32"))
    print(f"largest difference {(narrow - wide).abs().max():.4f}")
    assert 1e-4 < (narrow - wide).abs().max() < LOGPROB_ATOL


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "lora"])
def test_the_gradient_has_the_direction_of_32_bits(tiny_policy: Path, lora: Any):
    found = []
    for dtype in ("bfloat16", "float32"):
        trainer = make_trainer(tiny_policy, dtype, lora)
        if lora is None:
            perturb(trainer)
        found.append(gradient(trainer, make_batch(trainer)))
        assert all(g.dtype == torch.float32 for g in found[-1].values())
    print(f"cosine {cosine(*found):.6f}")
    assert COSINE < cosine(*found) < 1


def test_recomputed_activations_give_the_same_gradient(tiny_policy: Path):
    """The recomputation is under autocast too, experts and routers included."""
    a, b = (
        gradient(trainer, make_batch(trainer))
        for trainer in (make_trainer(tiny_policy), make_trainer(tiny_policy, gradient_checkpointing=True))
    )
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)


def test_updates_too_small_for_16_bits_are_kept(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, learning_rate=1e-6, kl=KLConfig(estimator="none"))
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    for _ in range(3):
        trainer.step(make_batch(trainer))
    moved = {n: (p.detach() - before[n]) for n, p in trainer.model.named_parameters()}
    weight = moved["lm_head.weight"]
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert 0.5e-6 < weight.abs().max() < 4e-6 and (weight != 0).float().mean() > 0.9
    name = "model.layers.1.mlp.experts.gate_up_proj"
    rounded = trainer.unwrapped.get_parameter(name).bfloat16() == before[name].bfloat16()
    assert moved[name].any() and rounded.float().mean() > 0.95  # 16 bits would have lost nearly all of it


class Products(TorchDispatchMode):
    """Which products of matrices are computed in which precision."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "bmm", "_grouped_mm"):
            self.seen.setdefault(name, set()).add(out.dtype)
        return out


def test_experts_are_computed_in_16_bits_router_and_head_in_32(tiny_policy: Path):
    trainer = make_trainer(tiny_policy)
    batch = make_batch(trainer)
    packed = pack_completions(batch.prompts, batch.completions, pad_id=2)
    seen: list[tuple[Tensor, Tensor]] = []
    for _, gate in gates_of(trainer.unwrapped):
        gate.register_forward_hook(lambda gate, args, out: seen.append((args[0].detach(), out[0].detach())))
    with Products() as products, computing("bfloat16", "cpu"):
        values, _ = completion_logprobs(trainer.model, packed)
    assert products.seen["_grouped_mm"] == {torch.bfloat16}
    assert products.seen["mm"] == {torch.bfloat16, torch.float32}  # layers; router and head
    assert values.dtype == torch.float32
    gate = gates_of(trainer.unwrapped)[0][1]
    for hidden, logits in seen:
        exact = hidden.flatten(0, -2).double() @ gate.weight.detach().double().T
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits.double(), exact, atol=1e-5, rtol=1e-5)


def test_outside_of_it_nothing_is_rounded(tiny_policy: Path):
    """Telling autocast of the grouped product changes no pass that is not under autocast."""
    wide = make_trainer(tiny_policy, "float32")
    before = logprobs(wide)
    logprobs(make_trainer(tiny_policy))
    assert torch.equal(logprobs(wide), before)


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "lora"])
def test_what_is_frozen_is_held_in_16_bits_and_not_a_bit_differs(tiny_policy: Path, lora: Any):
    trainer = make_trainer(tiny_policy, lora=lora)
    frozen = trainer.unwrapped if lora else trainer.reference
    held = [p for p in frozen.parameters() if not p.requires_grad]
    layers = [p for n, p in frozen.named_parameters() if not p.requires_grad and "proj" in n]
    assert layers and all(p.dtype == torch.bfloat16 for p in layers)
    assert {p.dtype for p in held} == {torch.bfloat16, torch.float32}
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters() if p.requires_grad)
    assert trainer.step(make_batch(trainer))["kl/reference"] == 0.0  # against weights of 32 bits, rounded on the way


def test_a_narrowed_base_gives_the_log_probs_of_a_wide_one(tiny_policy: Path, monkeypatch: pytest.MonkeyPatch):
    narrow = logprobs(make_trainer(tiny_policy, lora=LORA))
    monkeypatch.setattr("grpo.trainer.narrow_frozen", lambda model, dtype: None)
    assert torch.equal(narrow, logprobs(make_trainer(tiny_policy, lora=LORA)))


def test_a_narrowed_base_trains_is_published_and_resumes(tiny_policy: Path, tmp_path: Path):
    straight, first = (make_trainer(tiny_policy, lora=LORA) for _ in range(2))
    for trainer in (straight, first):
        trainer.step(make_batch(trainer))
    first.save(tmp_path)
    again = make_trainer(tiny_policy, lora=LORA)
    again.restore(tmp_path)
    for trainer in (straight, again):
        trainer.step(make_batch(trainer))
    assert torch.equal(logprobs(straight), logprobs(again))
    bundle, plain = straight.publish(), make_trainer(tiny_policy, "float32", LORA)
    assert {n: t.shape for n, t in bundle.tensors.items()} == {n: t.shape for n, t in plain.publish().tensors.items()}


def test_activations_take_less(tiny_policy: Path):
    """Bytes kept for the backward pass per further completion: what weights take is the same for few and for many."""
    a, b = (kept_per_completion(make_trainer(tiny_policy, dtype), dtype) for dtype in ("bfloat16", "float32"))
    print(f"{a} bytes in bfloat16, {b} in float32: {a / b:.2f}")
    assert a < 0.8 * b


def kept_per_completion(trainer: PolicyTrainer, dtype: str) -> float:
    def kept(completions: int) -> int:
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        tokens = [list(range(20, 52))] * completions
        packed = pack_completions([[0]] * completions, tokens, pad_id=2)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), computing(dtype, "cpu"):
            completion_logprobs(trainer.model, packed)
        return sum(sizes.values())

    return (kept(12) - kept(4)) / 8


@pytest.mark.parametrize(
    ("dtype", "elsewhere", "complaint"),
    [("float16", "no", "loss scaling"), ("float32", "bf16", "say policy.dtype: bfloat16")],
)
def test_other_precisions_are_refused_in_one_line(dtype: str, elsewhere: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint) as caught:
        check_precision(dtype, elsewhere)
    assert "\n" not in str(caught.value)


def test_embedding_head_routers_and_norms_are_never_narrowed(tiny_policy: Path):
    model = make_trainer(tiny_policy, "float32").unwrapped.requires_grad_(False)
    narrow_frozen(model, "bfloat16")
    wide = {n for n, p in model.named_parameters() if p.dtype == torch.float32}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.gate.weight"} < wide
    assert all("norm" in n for n in wide - {"model.embed_tokens.weight", "lm_head.weight"} if "gate.weight" not in n)
