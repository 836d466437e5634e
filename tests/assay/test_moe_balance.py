"""The balance loss in closed form, its gradient by hand, and the numbers that tell of imbalance."""

from __future__ import annotations

import pytest
import torch

from assay.moe_balance import batch_balance, load_metrics, sequence_balance

#: two tokens, two experts, one chosen: both choose expert 0
SKEWED = torch.tensor([[0.75, 0.25], [0.6, 0.4]], dtype=torch.float64)
BOTH_ZERO = torch.tensor([[0], [0]])


def test_skewed_routing_by_hand() -> None:
    # f = 2/(1*2) * (2, 0) = (2, 0); P = (0.675, 0.325); f.P = 1.35
    assert batch_balance(SKEWED, BOTH_ZERO).item() == pytest.approx(1.35, abs=1e-15)


def test_the_gradient_at_the_logits_by_hand() -> None:
    """d(f.P)/dz_ti = s_ti (f_i - sum_j f_j s_tj) / T: the counts f carry no gradient, the softmax does."""
    logits = SKEWED.log().requires_grad_()
    batch_balance(logits.softmax(-1), BOTH_ZERO).backward()
    expected = [[0.75 * (2 - 1.5) / 2, 0.25 * (0 - 1.5) / 2], [0.6 * (2 - 1.2) / 2, 0.4 * (0 - 1.2) / 2]]
    torch.testing.assert_close(logits.grad, torch.tensor(expected, dtype=torch.float64), atol=1e-15, rtol=0)


def test_even_routing_gives_one_and_the_worst_gives_experts_over_k() -> None:
    even = torch.full((4, 4), 0.25, dtype=torch.float64)
    ids = torch.tensor([[0, 1], [2, 3], [1, 2], [3, 0]])
    assert batch_balance(even, ids).item() == pytest.approx(1.0, abs=1e-15)
    collapsed = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64).repeat(3, 1)
    assert batch_balance(collapsed, torch.tensor([[0, 1]] * 3)).item() == pytest.approx(2.0, abs=1e-15)  # E/K = 4/2


def test_sequences_balance_each_on_its_own() -> None:
    """One sequence all on expert 0, one all on expert 1: even over the batch, skewed in each sequence."""
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    ids = torch.tensor([[0], [1]])
    values = sequence_balance(probabilities, ids, torch.tensor([0, 1]), 2)
    torch.testing.assert_close(values, torch.tensor([1.8, 1.6], dtype=torch.float64), atol=1e-15, rtol=0)
    assert batch_balance(probabilities, ids).item() == pytest.approx(1.0, abs=1e-15)


def test_sequences_of_different_lengths_against_one_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(11, 6, generator=generator, dtype=torch.float64).softmax(-1)
    ids = probabilities.topk(2).indices
    segments = torch.tensor([2, 0, 0, 1, 2, 0, 2, 2, 1, 0, 2])
    together = sequence_balance(probabilities, ids, segments, 3)
    for s in range(3):
        alone = batch_balance(probabilities[segments == s], ids[segments == s])
        torch.testing.assert_close(together[s], alone, atol=1e-14, rtol=0)


def test_descending_the_loss_evens_the_load() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(64, 8, generator=generator, dtype=torch.float64) + torch.arange(8) * 0.3).requires_grad_()
    before = load_metrics(torch.bincount(logits.topk(2).indices.flatten(), minlength=8)[None])
    for _ in range(200):
        loss = batch_balance(logits.softmax(-1), logits.topk(2).indices)
        (gradient,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= 5 * gradient
    after = load_metrics(torch.bincount(logits.topk(2).indices.flatten(), minlength=8)[None])
    assert after["moe/max_violation"] < before["moe/max_violation"] / 2


def test_load_by_hand() -> None:
    counts = torch.tensor([[3, 1, 0, 0], [1, 1, 1, 1]])
    assert load_metrics(counts) == {"moe/max_violation": 2.0, "moe/dead_experts": 2.0}
