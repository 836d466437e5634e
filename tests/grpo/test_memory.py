"""What saves work and memory changes no gradient: skipped rows, activation checkpointing, experts' kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import assay.logprobs
from assay.adapter import LoraConfig
from assay.logprobs import completion_logprobs
from assay.packing import PADDING, pack_completions
from grpo.batch import with_gradient
from grpo.config import EntropyConfig, KLConfig
from grpo.objective import by_token
from grpo.trainer import PolicyTrainer
from tests.grpo.test_trainer import gradient, make_batch, make_trainer, perturb


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys() and a
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)


def forward_tokens(trainer: Any, batch: Any) -> int:
    """Positions that went through the policy with gradients in one step."""
    seen: list[int] = []
    hook = trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel() * torch.is_grad_enabled()),
        with_kwargs=True,
    )
    trainer.step(batch)
    hook.remove()
    return sum(seen)


@pytest.mark.parametrize("advantages", [(1.0, 0.0, 0.8, 0.0), (0.0, 0.0, 0.0, -1.3)])
def test_completions_without_advantage_are_skipped_where_no_kl_pulls_on_them(tiny_policy: Path, advantages: Any):
    trainer = make_trainer(tiny_policy, kl=KLConfig(coef=0.0))
    batch = make_batch(trainer, advantages)
    kept = [i for i, a in enumerate(advantages) if a]
    assert with_gradient(batch, trainer.config) == kept
    for moved in ({"kl": KLConfig(coef=0.1)}, {"entropy": EntropyConfig(coef=1e-3)}):
        assert with_gradient(batch, trainer.config.model_copy(update=moved)) == [0, 1, 2, 3]
    skipped = gradient(trainer, batch)
    # a KL so weak that its gradient is nothing keeps every completion in
    assert_same(skipped, gradient(make_trainer(tiny_policy, kl=KLConfig(coef=1e-12)), batch))
    lengths = [len(batch.prompts[i]) + len(batch.completions[i]) for i in kept]
    assert forward_tokens(trainer, batch) == max(lengths) * len(kept)


def test_means_are_over_the_completions_that_were_looked_at(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, kl=KLConfig(coef=0.0))
    batch = make_batch(trainer, (1.0, 0.0, -1.0, 0.0))
    fields = ("prompts", "completions", "engine_logprobs", "advantages", "weights")
    alone = replace(batch, **{name: tuple(getattr(batch, name)[i] for i in (0, 2)) for name in fields})
    metrics, expected = trainer.step(batch), make_trainer(tiny_policy, kl=KLConfig(coef=0.0)).step(alone)
    assert metrics == pytest.approx(expected, rel=1e-5) and metrics["tokens/trained"] == 10


def test_where_nothing_moves_the_optimizer_steps_all_the_same(tiny_policy: Path):
    """Momentum of the step before goes on: AdamW with a gradient of zero is not a step left out."""
    trainer = make_trainer(tiny_policy, kl=KLConfig(coef=0.0))
    trainer.step(make_batch(trainer))
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    assert forward_tokens(trainer, make_batch(trainer, (0.0,) * 4)) == 6  # the shortest completion, with its prompt
    assert any(not torch.equal(before[name], p) for name, p in trainer.model.named_parameters())


def test_a_part_of_the_pairs_keeps_their_numbers():
    packed = pack_completions([[1], [2], [3]], [[11, 12], [21], [31, 32]], pad_id=9, only=[2, 1])
    assert set(packed.segment_ids.unique().tolist()) <= {PADDING, 1, 2}
    assert {i: v.tolist() for i, v in packed.split_targets(packed.targets()).items()} == {1: [21], 2: [31, 32]}
    assert sorted(packed.gather_targets([[0.0], [21.0], [31.0, 32.0]]).tolist()) == [21.0, 31.0, 32.0]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8)])
def test_activation_checkpointing_changes_no_gradient_and_keeps_less(tiny_policy: Path, lora: LoraConfig | None):
    plain = make_trainer(tiny_policy, lora=lora)
    saving = make_trainer(tiny_policy, lora=lora, gradient_checkpointing=True)
    for trainer in (plain, saving):
        perturb(trainer)
    batch = make_batch(plain)
    assert_same(gradient(plain, batch), gradient(saving, batch))
    assert kept_bytes(saving, batch) < 0.5 * kept_bytes(plain, batch)


def kept_bytes(trainer: Any, batch: Any) -> int:
    """Of activations, from the forward pass to the backward pass. Parameters are there anyway."""
    parameters = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    packed = pack_completions(batch.prompts, batch.completions, pad_id=2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logprobs, _ = completion_logprobs(trainer.model, packed)
    assert logprobs.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("experts", ["eager", "grouped_mm", "batched_mm"])
def test_every_way_of_computing_experts_gives_the_same_gradient(tiny_policy: Path, experts: Any):
    trainer = make_trainer(tiny_policy, experts=experts)
    assert trainer.unwrapped.config._experts_implementation == experts
    default = make_trainer(tiny_policy)
    assert_same(gradient(trainer, make_batch(trainer)), gradient(default, make_batch(default)))


def test_attention_one_sequence_at_a_time_gives_the_same_gradient(tiny_policy: Path):
    """Rows of several completions: 8 + 4 + 2 tokens behind prompts go into rows of 12."""
    settings: dict[str, Any] = {"dtype": "float32", "temperature": 1.0, "pad_id": 2}
    config = make_trainer(tiny_policy).config
    apart = PolicyTrainer(tiny_policy, config, attention="segments", **settings)
    masked = PolicyTrainer(tiny_policy, config, **settings)
    batch = make_batch(apart)
    assert any(len(m.segment_ids.unique()) > len(m.segment_ids) for m in apart._micro_batches(batch))
    assert_same(gradient(apart, batch), gradient(masked, batch))


@pytest.mark.parametrize(
    "settings, announced",
    [
        ({}, True),
        ({"loss": "cispo", "clip": (0.0, 0.2), "correction": {"kind": "tis"}, "updates_per_rollout": 2}, True),
        ({"entropy": EntropyConfig(coef=0.01)}, True),
        ({"loss": "gspo"}, False),
        ({"correction": {"kind": "geometric", "band": (0.0, 1e9)}}, False),
    ],
)
def test_chunks_of_the_head_change_no_gradient_whatever_the_loss(
    tiny_policy: Path, settings: dict[str, Any], announced: bool, monkeypatch: pytest.MonkeyPatch
):
    def run() -> dict[str, torch.Tensor]:
        trainer = make_trainer(tiny_policy, **settings)
        perturb(trainer)
        return gradient(trainer, make_batch(trainer))

    assert by_token(make_trainer(tiny_policy, **settings).config) == announced
    whole = run()
    factors: list[float | None] = []
    factor = assay.logprobs._Foreseen.factor
    monkeypatch.setattr(assay.logprobs._Foreseen, "factor", lambda *a: (factors.append(factor(*a)), factors[-1])[1])
    monkeypatch.setattr(assay.logprobs, "CHUNK_LOGITS", 300 * 7)  # of 20 tokens
    assert_same(run(), whole)
    assert factors == pytest.approx([1.0] * len(factors)) and bool(factors) == announced
