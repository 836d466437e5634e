"""The real engine, and the famous silent failures of weight sync, each of which has to be caught and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rollouts.loading
from assay.errors import WeightMismatch
from assay.policy import load_policy, load_tokenizer
from assay.types import FinishReason
from rollouts.config import EngineConfig, ProofConfig
from rollouts.engine import Sampling
from rollouts.weights import checkpoint_state, compare_probe, make_probe, probe_sequences, publish

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def engine(tiny_policy: Path) -> Iterator[Any]:
    from rollouts.vllm import VLLMEngine

    eos = load_tokenizer(tiny_policy).eos_token_id
    made = VLLMEngine(
        str(tiny_policy), EngineConfig(max_num_seqs=16), ProofConfig(), max_model_len=128, eos_token_id=eos
    )
    yield made
    made.close()


@pytest.fixture
def model(tiny_policy: Path) -> Any:
    return load_policy(tiny_policy).eval()


def perturb(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)


def sequences(model: Any) -> list[list[int]]:
    return probe_sequences(model.config.vocab_size, avoid=range(7))


def test_log_probs_agree_with_transformers_across_several_syncs(engine: Any, model: Any):
    for version in range(3):
        perturb(model, version)
        report = engine.load_weights(publish(checkpoint_state(model), version))
        assert report.version == engine.version == version
        assert report.max_relative_error < 1e-5
        probe = make_probe(model, sequences(model), pad_id=2)
        assert compare_probe(engine.score(probe.sequences), probe.expected, ProofConfig(), version) < 1e-4


def test_sampled_log_probs_are_the_trainers_at_the_sampling_temperature(engine: Any, model: Any):
    from assay.logprobs import completion_logprobs
    from assay.packing import pack_completions

    perturb(model, 7)
    engine.load_weights(publish(checkpoint_state(model), 7))
    prompts = [[0, 20, 30, 40], [0, 50, 60]]
    for temperature in (1.0, 0.7):
        groups = engine.generate(prompts, Sampling(temperature=temperature, max_tokens=12, samples=3, seed=1))
        completions = [c for group in groups for c in group]
        assert [c.policy_version for c in completions] == [(7, 7)] * 6
        packed = pack_completions([p for p in prompts for _ in range(3)], [c.token_ids for c in completions], pad_id=2)
        with torch.no_grad():
            expected = packed.split_targets(completion_logprobs(model, packed, temperature)[0])
        for i, completion in enumerate(completions):
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected[i], atol=1e-4, rtol=0)


def test_a_seed_repeats_its_draw_and_greedy_has_no_luck(engine: Any):
    prompts = [[0, 20, 30], [0, 40]]
    draw = Sampling(temperature=1.0, max_tokens=8, samples=2, seed=5)
    ids = [[c.token_ids for c in g] for g in engine.generate(prompts, draw)]
    assert ids == [[c.token_ids for c in g] for g in engine.generate(prompts, draw)]
    assert ids[0][0] != ids[0][1]
    other = Sampling(temperature=1.0, max_tokens=8, samples=2, seed=6)
    assert ids != [[c.token_ids for c in g] for g in engine.generate(prompts, other)]
    greedy = Sampling(temperature=0.0, max_tokens=8, samples=1, seed=5)
    first = engine.generate(prompts, greedy)[0][0]
    assert (
        first.token_ids == engine.generate(prompts[:1], Sampling(temperature=0.0, max_tokens=8, seed=9))[0][0].token_ids
    )
    assert first.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)


def corrupted_expert(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """SkyRL#1680 in small: gate and up projection of one expert change places."""
    name = next(k for k in state if "experts.1.gate_proj" in k)
    other = name.replace("gate_proj", "up_proj")
    return iter({**state, name: state[other], other: state[name]}.items())


def one_tensor_stale(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    name = next(k for k in state if k.endswith("layers.1.self_attn.o_proj.weight"))
    return iter({**state, name: state[name] * 1.001}.items())


def half_precision_on_the_way(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return iter({k: v.half().float() for k, v in state.items()}.items())


@pytest.mark.parametrize(
    ("breakage", "named"),
    [
        (corrupted_expert, r"layers\.1\.mlp\.experts\.1"),
        (one_tensor_stale, r"layers\.1\.self_attn\.o_proj"),
        (half_precision_on_the_way, r"does not hold the trainer's weights"),
    ],
)
def test_a_broken_delivery_stops_at_the_same_sync_and_names_the_tensor(
    engine: Any, model: Any, monkeypatch: pytest.MonkeyPatch, breakage: Callable[..., Any], named: str
):
    perturb(model, 11)
    monkeypatch.setattr(rollouts.loading, "deliver", breakage)
    with pytest.raises(WeightMismatch, match=named):
        engine.load_weights(publish(checkpoint_state(model), 11))


def test_an_update_that_is_never_delivered_is_caught(engine: Any, model: Any, monkeypatch: pytest.MonkeyPatch):
    """verl#7495, TRL#5312: the engine goes on with older weights; here one training step older."""
    perturb(model, 12)
    old = checkpoint_state(model)
    old = {k: v.clone() for k, v in old.items()}
    engine.load_weights(publish(old, 12))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-4)
    monkeypatch.setattr(rollouts.loading, "deliver", lambda state: iter(old.items()))
    with pytest.raises(WeightMismatch, match="version 13"):
        engine.load_weights(publish(checkpoint_state(model), 13))


def test_vllms_own_stale_expert_packing_is_caught(engine: Any, model: Any, monkeypatch: pytest.MonkeyPatch):
    """vLLM 0.32 on a CPU leaves experts un-packed after the first reload; without our remedy the proof must see it."""
    monkeypatch.setattr(rollouts.loading, "forget_moe_kernels", lambda model: None)
    perturb(model, 14)
    with pytest.raises(WeightMismatch, match=r"mlp\.experts\.\d"):
        engine.load_weights(publish(checkpoint_state(model), 14))


def test_a_forward_pass_that_differs_is_told_apart_from_wrong_weights(engine: Any, model: Any):
    """Weights equal, computation not: only the probe can see it, and says so."""
    perturb(model, 15)
    engine.load_weights(publish(checkpoint_state(model), 15))
    model.config.routed_scaling_factor = 1.0
    for layer in model.model.layers:
        layer.self_attn.scaling *= 1.05
    probe = make_probe(model, sequences(model), pad_id=2)
    with pytest.raises(WeightMismatch, match="disagree in the forward pass itself"):
        compare_probe(engine.score(probe.sequences), probe.expected, ProofConfig(), 15)


def test_the_probe_fits_where_answers_are_short(tiny_policy: Path, model: Any):
    """It was refused as too long for the context, and taken for an engine that dies."""
    from rollouts.vllm import VLLMEngine

    engine = VLLMEngine(str(tiny_policy), EngineConfig(max_num_seqs=4), ProofConfig(), max_model_len=24, eos_token_id=1)
    try:
        engine.load_weights(publish(checkpoint_state(model), 0))
        probe = make_probe(model, sequences(model), pad_id=2)
        assert compare_probe(engine.score(probe.sequences), probe.expected, ProofConfig(), 0) < 1e-4
    finally:
        engine.close()
