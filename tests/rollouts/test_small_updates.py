"""An engine in fp32 that missed one small update of one module, a warm-up's or an adapter's first: named at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rollouts.loading
from assay.errors import WeightMismatch
from assay.policy import load_policy, load_tokenizer
from rollouts.config import EngineConfig, ProofConfig
from rollouts.weights import checkpoint_state, publish

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def engine(tiny_policy: Path) -> Iterator[Any]:
    from rollouts.vllm import VLLMEngine

    eos = load_tokenizer(tiny_policy).eos_token_id
    config = EngineConfig(max_num_seqs=16)
    made = VLLMEngine(str(tiny_policy), config, ProofConfig(), max_model_len=128, eos_token_id=eos)
    yield made
    made.close()


@pytest.fixture(scope="module")
def state(tiny_policy: Path) -> dict[str, torch.Tensor]:
    return checkpoint_state(load_policy(tiny_policy))


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.o_proj",
        "model.layers.1.mlp.experts.2",
        "model.layers.1.mlp.gate",
        "model.norm",
        "lm_head",
    ],
)
def test_a_module_that_missed_a_step_of_1e_8_is_named(
    engine: Any, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, name: str
):
    draw = torch.Generator().manual_seed(1)
    stepped = {k: v - 1e-8 * torch.randn(v.shape, generator=draw).sign() for k, v in state.items()}
    if name == "model.norm":  # values near 1 need more to move at all
        stepped = {k: v - 1e-6 for k, v in state.items()}
    engine.load_weights(publish(state, 1))
    with monkeypatch.context() as broken:
        broken.setattr(
            rollouts.loading,
            "deliver",
            lambda sent: iter({k: state[k] if k.startswith(f"{name}.") else v for k, v in sent.items()}.items()),
        )
        with pytest.raises(WeightMismatch, match=rf"{name} \(relative error .*1 of \d+ modules"):
            engine.load_weights(publish(stepped, 2))
    assert engine.load_weights(publish(stepped, 3)).max_relative_error < 1e-5
