"""What is sent to an engine in 16 bits, and an engine in 16 bits whose routers and head compute in 32."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GraniteMoeConfig, LlamaConfig, MixtralConfig, PhimoeConfig, Qwen3MoeConfig

from assay.config import validate
from assay.errors import ConfigError
from assay.moe import gates_of
from assay.policy import load_policy
from rollouts.config import EngineConfig, ProofConfig, RolloutConfig
from rollouts.vllm import VLLMEngine
from rollouts.weights import checkpoint_state, compare_probe, make_probe, probe_sequences, publish
from rollouts.wide import as_held, check_routers, wide_routers
from tests.moe_policies import make_policy

NARROW = EngineConfig(dtype="bfloat16", max_num_seqs=8)
WIDE = EngineConfig(dtype="bfloat16", max_num_seqs=8, fp32_router_and_head=True)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy("deepseek_v2", tmp_path_factory.mktemp("policy"))


@pytest.fixture
def model(policy: Path) -> Any:
    loaded, generator = load_policy(policy).eval(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
    return loaded


def test_tensors_are_sent_as_the_engine_holds_them(model: Any):
    state = checkpoint_state(model)
    routers = {n for n in state if n.endswith("mlp.gate.weight")}
    assert len(routers) == len(gates_of(model)) == 2
    for config, wide in ((EngineConfig(), state.keys()), (NARROW, set()), (WIDE, routers)):
        bundle = publish(dict(as_held(state.items(), config)), 0)
        assert bundle.tensors.keys() == state.keys()
        assert {n for n, dtype in bundle.dtypes.items() if dtype == "float32"} == set(wide)
        assert {dtype for n, dtype in bundle.dtypes.items() if n not in wide} <= {"bfloat16"}
    full = publish(dict(as_held(state.items(), EngineConfig())), 0)
    assert 0.49 < publish(dict(as_held(state.items(), WIDE)), 0).size_bytes / full.size_bytes < 0.52


def test_an_engine_of_32_bits_needs_no_word_for_it():
    with pytest.raises(ConfigError, match="computes all so; leave one of them out"):
        validate(RolloutConfig, {"engine": {"fp32_router_and_head": True}}, "x.yaml")


@pytest.mark.parametrize("config", [MixtralConfig, PhimoeConfig, GraniteMoeConfig])
def test_routers_of_unknown_names_are_not_widened_after_they_were_rounded(tmp_path: Path, config: Any):
    """Theirs are called block_sparse_moe.gate, .router, router.layer: none of what `as_held` leaves wide."""
    config().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"does not know the routers of '{config.model_type}'.*; leave it out"):
        VLLMEngine(str(tmp_path), WIDE, ProofConfig(), max_model_len=64, eos_token_id=1)


def test_what_has_known_routers_or_none_is_taken(policy: Path, tmp_path: Path):
    check_routers(str(policy))
    for config in (Qwen3MoeConfig(), LlamaConfig()):
        config.save_pretrained(tmp_path)
        check_routers(str(tmp_path))


@pytest.fixture(scope="module")
def engine(policy: Path) -> Iterator[Any]:
    made = VLLMEngine(str(policy), WIDE, ProofConfig(), max_model_len=64, eos_token_id=1)
    yield made
    made.close()
    gc.collect()


@pytest.mark.vllm
def test_its_routers_are_those_of_the_trainer_and_its_head_rounds_the_weight_alone(engine: Any, model: Any):
    report = engine.load_weights(publish(dict(as_held(checkpoint_state(model).items(), WIDE)), 1))
    assert report.max_relative_error < 3e-2
    hidden = torch.randn(16, 32, generator=torch.Generator().manual_seed(2)).bfloat16()
    found = engine._llm.apply_model(lambda m: routed(m, hidden))[0]
    assert len(found) == 2
    for (_, gate), logits in zip(gates_of(model), found, strict=True):
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, hidden.float() @ gate.weight.detach().T, atol=1e-5, rtol=1e-5)
    logits = engine._llm.apply_model(lambda m: m.logits_processor(m.lm_head, hidden))[0]
    expected = hidden.float() @ model.lm_head.weight.detach().bfloat16().float().T
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits[:, : expected.shape[1]], expected, atol=1e-5, rtol=1e-5)


def routed(model: Any, hidden: torch.Tensor) -> list[torch.Tensor]:
    return [m(hidden)[0] for name, m in model.named_modules() if name.endswith("mlp.gate")]


@pytest.mark.vllm
def test_it_proves_and_scores_within_16_bits_across_syncs(engine: Any, model: Any):
    for version in (2, 3):
        engine.load_weights(publish(dict(as_held(checkpoint_state(model).items(), WIDE)), version))
        probe = make_probe(model, probe_sequences(model.config.vocab_size, avoid=range(7)), pad_id=2)
        proof = ProofConfig(logprob_atol=0.1)
        assert compare_probe(engine.score(probe.sequences), probe.expected, proof, version) > 1e-5


@pytest.mark.vllm
def test_the_door_for_layers_is_shut_again():
    from vllm.model_executor.custom_op import op_registry_oot

    with pytest.raises(RuntimeError), wide_routers(True) as told:
        assert told == {"hf_overrides": {"head_dtype": "float32"}} and "GateLinear" in op_registry_oot
        raise RuntimeError
    assert "GateLinear" not in op_registry_oot
    with wide_routers(False) as told:
        assert told == {} and "GateLinear" not in op_registry_oot
