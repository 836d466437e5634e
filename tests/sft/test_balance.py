"""The expert balance loss against numbers a person can check."""

from __future__ import annotations

import math

import pytest
import torch

from sft.balance import sequence_balance


def test_two_experts_by_hand() -> None:
    # one sequence, two tokens, K = 1, E = 2: softmax rows (3/4, 1/4), (1/2, 1/2); both choose expert 0
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    loss = sequence_balance(logits, torch.tensor([[0], [0]]), torch.tensor([0, 0]))
    # f = (2, 0), P = (5/8, 3/8): 2 * 5/8
    assert loss.item() == pytest.approx(1.25)


def test_equal_use_costs_one_per_sequence_and_padding_nothing() -> None:
    logits = torch.zeros(6, 2)
    chosen = torch.tensor([[0], [1], [0], [1], [0], [0]])
    assert sequence_balance(logits, chosen, torch.tensor([4, 4, 7, 7, -1, -1])).item() == pytest.approx(2.0)


def test_it_is_a_sum_over_sequences_however_they_are_split() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 8, generator=generator)
    chosen = logits.topk(2).indices
    segments = torch.arange(30) // 7
    whole = sequence_balance(logits, chosen, segments)
    parts = sum(
        sequence_balance(logits[segments == s], chosen[segments == s], segments[segments == s]) for s in range(5)
    )
    torch.testing.assert_close(whole, parts)


def test_the_gradient_pushes_down_the_busy_expert() -> None:
    logits = torch.zeros(4, 2, requires_grad=True)
    sequence_balance(logits, torch.zeros(4, 1, dtype=torch.long), torch.zeros(4, dtype=torch.long)).backward()
    assert (logits.grad[:, 0] > 0).all() and (logits.grad[:, 1] < 0).all()
