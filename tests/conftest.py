"""What tests of several packages share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from assay.policy import InitConfig, PolicyConfig, create_policy
    from assay.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["def f(n): return n + 1", "sum of the squares"] * 3, vocab_size=300)
    init = InitConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        qk_nope_head_dim=16,
        v_head_dim=16,
        intermediate_size=32,
        moe_intermediate_size=32,
        n_routed_experts=4,
        initializer_range=0.1,
    )
    folder = tmp_path_factory.mktemp("tiny") / "policy"
    return create_policy(PolicyConfig(init=init, vocab_size=300), tokenizer, 0, folder)
