"""LoRA on attention, router and fused experts: nothing at the start, merged = adapted, folders that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from assay.adapter import (
    LoraConfig,
    adapted,
    adapter_state,
    base_of,
    merged_state,
    restore_weights,
    save_weights,
    without_adapter,
)
from assay.errors import CheckpointError, ConfigError
from assay.policy import check_folder, load_policy, load_tokenizer, save_policy
from grpo.batch import TrainBatch
from grpo.config import GRPOConfig, KLConfig
from grpo.trainer import PolicyTrainer
from rollouts.weights import checkpoint_state, make_probe, unpack

TOKENS = torch.tensor([[5, 6, 7, 200, 30, 31, 32, 8]])
ALL = ("attention", "router", "experts")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def trained(policy: Path, **settings: Any) -> Any:
    """An adapted policy whose adapters do something."""
    model = adapted(load_policy(policy).eval(), LoraConfig(rank=4, alpha=8, **settings))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def test_a_fresh_adapter_changes_nothing_and_is_all_that_trains(tiny_policy: Path):
    plain = load_policy(tiny_policy).eval()
    model = adapted(load_policy(tiny_policy).eval(), LoraConfig(targets=ALL))
    assert torch.equal(logits(model), logits(plain))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and all(".lora_" in name for name in trainable)
    again = adapted(load_policy(tiny_policy).eval(), LoraConfig(targets=ALL))
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "target, ends",
    [
        ("attention", ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")),
        ("router", ("mlp.gate",)),
        ("experts", ("mlp.experts", "mlp.experts.base_layer")),
    ],
)
def test_a_target_is_what_its_name_says(tiny_policy: Path, target: Any, ends: tuple[str, ...]):
    model = adapted(load_policy(tiny_policy), LoraConfig(targets=(target,)))
    wrapped = {n.split(".lora_A")[0] for n, _ in model.named_parameters() if ".lora_A" in n}
    assert all(name.endswith(ends) for name in wrapped), wrapped
    assert {end for end in ends if any(name.endswith(end) for name in wrapped)} == set(ends)
    assert all(("self_attn" in name) == (target == "attention") for name in wrapped)


@pytest.mark.parametrize("targets", [("attention",), ("router",), ("experts",), ALL])
def test_merged_weights_in_a_plain_model_give_the_adapted_logits(tiny_policy: Path, targets: tuple[Any, ...]):
    model = trained(tiny_policy, targets=targets)
    before = {name: p.clone() for name, p in model.named_parameters()}
    plain = load_policy(tiny_policy).eval()
    untouched = logits(plain)
    plain.load_state_dict(merged_state(model))
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=1e-5)
    assert (logits(model) - untouched).abs().max() > 1e-3
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_the_reference_is_the_policy_without_its_adapter(tiny_policy: Path):
    model = trained(tiny_policy)
    adapted_logits = logits(model)
    with without_adapter(model):
        assert torch.equal(logits(model), logits(load_policy(tiny_policy).eval()))
    assert torch.equal(logits(model), adapted_logits)
    assert any(p.requires_grad for p in model.parameters())


def test_merged_weights_have_the_names_of_a_checkpoint(tiny_policy: Path):
    plain, model = load_policy(tiny_policy), trained(tiny_policy, targets=ALL)
    expected = checkpoint_state(plain)
    found = checkpoint_state(base_of(model), merged_state(model))
    assert found.keys() == expected.keys() and "model.layers.1.mlp.experts.0.gate_proj.weight" in found
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in expected.items()}


def test_folders_come_back_in_transformers_and_peft(tiny_policy: Path, tmp_path: Path):
    from peft import PeftModel

    model = trained(tiny_policy, targets=ALL)
    save_weights(model, merged_state(model), adapter_state(model), tmp_path)
    torch.testing.assert_close(logits(load_policy(tmp_path / "model").eval()), logits(model), atol=1e-5, rtol=1e-5)
    theirs = PeftModel.from_pretrained(load_policy(tiny_policy), str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-6, rtol=1e-6)
    ours = adapted(load_policy(tiny_policy).eval(), LoraConfig(rank=4, alpha=8, targets=ALL))
    restore_weights(ours, tmp_path)
    assert torch.equal(logits(ours), logits(model))


def test_a_run_s_final_policy_is_whole_and_merged(tiny_policy: Path, tmp_path: Path):
    """What `assay eval --policy` and vLLM load: a plain folder, not one of adapters alone."""
    model = trained(tiny_policy, targets=ALL)
    save_policy(model, load_tokenizer(tiny_policy), tmp_path)
    check_folder(tmp_path)
    torch.testing.assert_close(logits(load_policy(tmp_path).eval()), logits(model), atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_is_said_in_one_line(tiny_policy: Path, tmp_path: Path):
    model = trained(tiny_policy)
    save_weights(model, merged_state(model), adapter_state(model), tmp_path)
    other = adapted(load_policy(tiny_policy), LoraConfig(rank=8, alpha=8))
    with pytest.raises(CheckpointError, match="another rank or other targets"):
        restore_weights(other, tmp_path)
    with pytest.raises(CheckpointError, match="no adapter can be read there"):
        restore_weights(other, tmp_path / "nothing")
    with pytest.raises(ConfigError, match="experts: a LlamaForCausalLM has none"):
        adapted(dense_model(), LoraConfig(targets=("attention", "experts")))


def dense_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=50)
    )


# -- the trainer --------------------------------------------------------------------------------------------------


def make_trainer(policy: Path, **settings: Any) -> PolicyTrainer:
    config = GRPOConfig(**{"learning_rate": 1e-2, "kl": KLConfig(coef=0.1), "micro_batch_tokens": 20, **settings})
    lora = LoraConfig(rank=4, alpha=8)
    return PolicyTrainer(policy, config, dtype="float32", temperature=1.0, pad_id=2, lora=lora)


def make_batch() -> TrainBatch:
    completions = ((60, 61, 62, 1), (70, 1), (80, 81, 82, 1), (90, 91, 92, 93, 1))
    return TrainBatch(
        prompts=((0, 20), (0, 20), (0, 50), (0, 50)),
        completions=completions,
        engine_logprobs=tuple((-5.0,) * len(c) for c in completions),
        advantages=(1.0, -1.0, 1.0, -1.0),
        weights=tuple(1 / (4 * len(c)) for c in completions),
        oldest_version=0,
        counts={},
    )


def test_steps_train_the_adapter_alone_against_the_policy_inside(tiny_policy: Path):
    trainer = make_trainer(tiny_policy)
    assert trainer.reference is None
    first = trainer.step(make_batch())
    assert first["kl/reference"] == 0.0  # the adapter does nothing yet
    for _ in range(3):
        later = trainer.step(make_batch())
    assert later["loss/policy"] < first["loss/policy"] or later["kl/reference"] > 1e-4
    plain = dict(load_policy(tiny_policy).named_parameters())
    for name, parameter in base_of(trainer.unwrapped).named_parameters():
        if ".lora_" not in name:
            assert torch.equal(parameter, plain[name.replace(".base_layer", "")]), name


def test_what_is_published_is_the_adapted_policy(tiny_policy: Path, tmp_path: Path):
    trainer = make_trainer(tiny_policy)
    trainer.step(make_batch())
    trainer.step(make_batch())
    trainer.save(tmp_path)
    published = unpack(trainer.publish())
    saved = load_policy(tmp_path / "model").eval()
    assert published.keys() == checkpoint_state(saved).keys()
    for name, tensor in checkpoint_state(saved).items():
        assert torch.equal(published[name], tensor), name
    ours = trainer.probe([[20, 60, 61, 62, 1]]).expected
    assert ours == [pytest.approx(row, abs=1e-5) for row in make_probe(saved, [[20, 60, 61, 62, 1]], 2).expected]


def test_an_adapted_run_resumes_as_if_nothing_had_happened(tiny_policy: Path, tmp_path: Path):
    straight = make_trainer(tiny_policy)
    for _ in range(3):
        straight.step(make_batch())
    first = make_trainer(tiny_policy)
    first.step(make_batch())
    first.save(tmp_path)
    second = make_trainer(tiny_policy)
    second.restore(tmp_path)
    for _ in range(2):
        second.step(make_batch())
    for (name, a), (_, b) in zip(straight.model.named_parameters(), second.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.vllm
def test_the_engine_proves_that_it_holds_the_adapted_policy(tiny_policy: Path):
    from rollouts.config import EngineConfig, ProofConfig
    from rollouts.vllm import VLLMEngine
    from rollouts.weights import compare_probe, probe_sequences

    trainer = make_trainer(tiny_policy)
    engine = VLLMEngine(
        str(tiny_policy), EngineConfig(max_num_seqs=16), ProofConfig(), max_model_len=128, eos_token_id=1
    )
    try:
        trainer.step(make_batch())
        trainer.step(make_batch())
        report = engine.load_weights(trainer.publish())
        assert report.version == 2 and report.max_relative_error < 1e-5
        probe = trainer.probe(probe_sequences(trainer.unwrapped.config.vocab_size, avoid=range(7)))
        assert compare_probe(engine.score(probe.sequences), probe.expected, ProofConfig(), 2) < 1e-4
        base = make_probe(load_policy(tiny_policy).eval(), probe.sequences, 2)
        assert max(abs(a - b) for x, y in zip(base.expected, probe.expected, strict=True)
                   for a, b in zip(x, y, strict=True)) > 1e-2  # fmt: skip
    finally:
        engine.close()


def test_what_an_adapter_cannot_go_with_is_refused_before_training(tiny_policy: Path):
    with pytest.raises(ConfigError, match="reset_every"):
        make_trainer(tiny_policy, kl=KLConfig(coef=0.1, reset_every=5))
