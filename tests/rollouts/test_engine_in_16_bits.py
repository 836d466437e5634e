"""An engine in bfloat16 under a trainer in fp32: it is asked in its own precision, and holds what rounds to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rollouts.loading
from assay.adapter import LoraConfig
from assay.errors import WeightMismatch
from assay.policy import load_policy, load_tokenizer
from grpo.config import GRPOConfig
from grpo.trainer import PolicyTrainer
from rollouts.config import EngineConfig, ProofConfig
from rollouts.weights import checkpoint_state, publish
from tests.moe_policies import make_policy

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def engine(tiny_policy: Path) -> Iterator[Any]:
    from rollouts.vllm import VLLMEngine

    config = EngineConfig(max_num_seqs=16, dtype="bfloat16")
    eos = load_tokenizer(tiny_policy).eos_token_id
    made = VLLMEngine(str(tiny_policy), config, ProofConfig(), max_model_len=128, eos_token_id=eos)
    yield made
    made.close()


@pytest.fixture
def state(tiny_policy: Path) -> dict[str, torch.Tensor]:
    return checkpoint_state(load_policy(tiny_policy))


def test_weights_in_fp32_are_held_as_they_round(engine: Any, state: dict[str, torch.Tensor]):
    report = engine.load_weights(publish(state, 1))
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert 1e-4 < report.max_relative_error < 2e-2  # products in bfloat16
    assert engine.load_weights(publish(state, 2)).modules_checked == report.modules_checked


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("model.layers.1.self_attn.o_proj", 1.1),
        ("model.layers.1.mlp.experts.2", 1.1),
        ("model.embed_tokens", 1 + 2**-7),  # what can be read has to be right to the last bit
        ("model.norm", 1 + 2**-7),
    ],
)
def test_harm_above_its_rounding_is_named(
    engine: Any, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, name: str, factor: float
):
    with monkeypatch.context() as broken:
        broken.setattr(
            rollouts.loading,
            "deliver",
            lambda sent: iter({k: v * factor if k.startswith(f"{name}.") else v for k, v in sent.items()}.items()),
        )
        with pytest.raises(WeightMismatch, match=rf"{name} \(relative error .*1 of \d+ modules"):
            engine.load_weights(publish(state, 3))
    engine.load_weights(publish(state, 4))


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.o_proj", "model.layers.1.mlp.experts.2", "lm_head"])
def test_a_module_that_missed_a_small_update_is_named(
    engine: Any, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, name: str
):
    """A step of 1e-6 moves one value in some twenty by its last bit: products in 16 bits differ by less than rounding
    alone lets them."""
    engine.load_weights(publish(state, 5))
    stepped = {k: v + 2**-13 * v.abs() for k, v in state.items()}
    changed = [(stepped[k].bfloat16() != v.bfloat16()).float().mean().item() for k, v in state.items()]
    assert max(changed) < 0.1
    with monkeypatch.context() as broken:
        broken.setattr(
            rollouts.loading,
            "deliver",
            lambda sent: iter({k: state[k] if k.startswith(f"{name}.") else v for k, v in sent.items()}.items()),
        )
        with pytest.raises(WeightMismatch, match=rf"{name} \(relative error .*1 of \d+ modules"):
            engine.load_weights(publish(stepped, 6))
    assert engine.load_weights(publish(stepped, 7)).max_relative_error < 2e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_merged_by_the_engine_rounds_as_one_merged_by_the_trainer(
    engine: Any, tiny_policy: Path, dtype: Any
):
    """The trainer's frozen weights in 32 bits and in 16; the engine's are in 16."""
    settings = GRPOConfig(kl={"estimator": "none"})  # type: ignore[arg-type]
    lora = LoraConfig(rank=4)
    trainer = PolicyTrainer(tiny_policy, settings, dtype=dtype, temperature=1.0, pad_id=2, lora=lora)
    with torch.no_grad():
        for parameter in trainer.unwrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    found = []
    for how in ("merged", "adapter"):
        published = trainer.publication(EngineConfig(dtype="bfloat16", lora_sync=how), keep=False)  # type: ignore[arg-type]
        *_, report = (engine.load_weights(bucket) for bucket in (*(published.base or ()), *published))
        found.append((report.modules_checked, engine.score([[0, 20, 30, 40, 50]])))
    assert found[0] == found[1]


def test_a_bias_that_missed_an_update_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Beside a larger one in the same layer it is within what a product in 16 bits is right to."""
    from rollouts.vllm import VLLMEngine

    policy = make_policy("qwen3_moe with biases", tmp_path / "policy")
    config = EngineConfig(max_num_seqs=4, dtype="bfloat16")
    engine = VLLMEngine(str(policy), config, ProofConfig(), max_model_len=64, eos_token_id=1)
    name = "model.layers.1.self_attn.v_proj.bias"
    state = checkpoint_state(load_policy(policy))
    state |= {name.replace("v_proj", "k_proj"): torch.full((32,), 30.0), name: torch.full((32,), 0.1)}
    assert engine.load_weights(publish(state, 1)).max_relative_error < 3e-2
    with monkeypatch.context() as broken:
        broken.setattr(
            rollouts.loading,
            "deliver",
            lambda sent: iter({k: v * 1.01 if k == name else v for k, v in sent.items()}.items()),
        )
        with pytest.raises(WeightMismatch, match=r"layers.1.self_attn.qkv_proj \(relative error .*1 of \d+ modules"):
            engine.load_weights(publish(state, 2))
    engine.load_weights(publish(state, 3))
    engine.close()
