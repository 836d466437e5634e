"""Attention one packed sequence at a time is attention under a block-diagonal mask, for every kind of row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.logprobs import completion_logprobs
from assay.packing import PackedBatch, pack_completions
from assay.policy import load_policy
from assay.segments import attend_by_segment, attention, segment_bounds
from tests.moe_policies import make_policy

LENGTHS = (3, 3, 2, 9, 4, 1, 5, 9)  # rows of one sequence, of several, and with padding


def test_the_blocks_of_the_docstring():
    rows = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])
    assert segment_bounds(rows) == ((0, 1, 0, 3), (0, 1, 3, 5), (1, 3, 0, 5))
    assert segment_bounds(rows[1:]) == ((0, 2, 0, 5),)
    assert segment_bounds(rows.flip(0)) == ((0, 2, 0, 5), (2, 3, 0, 3), (2, 3, 3, 5))


@pytest.fixture(scope="module", params=["deepseek_v2", "qwen3_moe"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(request.param, tmp_path_factory.mktemp("policy"))


def packed_rows() -> PackedBatch:
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(20, 280, (n,), generator=generator).tolist() for n in LENGTHS]
    return pack_completions([[0, 5]] * len(LENGTHS), tokens, pad_id=2)


def values_and_gradient(model: Any, packed: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    values, _ = completion_logprobs(model, packed)
    (values * torch.linspace(-1, 1, len(values))).sum().backward()
    return values.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "recomputed"])
def test_values_and_gradients_are_those_of_the_mask(policy: Path, checkpointing: bool):
    packed = packed_rows()
    assert packed.token_ids.shape[0] > 2 and len(segment_bounds(packed.position_ids)) > packed.token_ids.shape[0] - 2
    masked, model = load_policy(policy).train(), load_policy(policy).train()
    attend_by_segment(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    (a, before), (b, found) = values_and_gradient(masked, packed), values_and_gradient(model, packed)
    torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-6)
    assert found.keys() == before.keys()
    for name in found:
        torch.testing.assert_close(found[name], before[name], atol=1e-6, rtol=1e-4)


def test_no_sequence_is_looked_at_beside_another(policy: Path):
    model, packed = load_policy(policy).eval(), packed_rows()
    attend_by_segment(model)
    with torch.no_grad():
        together = packed.split_targets(completion_logprobs(model, packed)[0])
        for i, n in enumerate(LENGTHS):
            tokens = packed.split_tokens(packed.token_ids)[i]
            alone = pack_completions([tokens[:2].tolist()], [tokens[2:].tolist()], pad_id=2)
            torch.testing.assert_close(together[i], completion_logprobs(model, alone)[0], atol=1e-6, rtol=1e-6)
            assert len(together[i]) == n


def test_a_mask_that_is_given_is_obeyed(policy: Path):
    """As sdpa does: what transformers itself pads on the left, say, is not looked at."""
    masked, model = load_policy(policy).eval(), load_policy(policy).eval()
    attend_by_segment(model)
    ids = torch.tensor([[2, 2, 0, 20, 30], [0, 40, 50, 60, 70]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        a, b = (m(input_ids=ids, attention_mask=mask).logits for m in (masked, model))
        plain = model(input_ids=ids).logits
    torch.testing.assert_close(a, b)
    assert (plain[0, 2:] - b[0, 2:]).abs().max() > 1e-3


def test_a_model_that_keeps_its_positions_to_itself_is_refused():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ConfigError, match="does not tell its positions; leave it out"):
        attention(torch.nn.Linear(1, 1), q, q, q, None)
