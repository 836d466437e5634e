"""The two losses by hand, and that a sum over parts is the sum over the whole."""

from __future__ import annotations

import math

import pytest
import torch

from rewards.model.data import Sample
from rewards.model.losses import LOSSES, count_pairs, pairwise, pointwise

TASKS = torch.tensor([0, 0, 0, 1, 1])
PASSED = torch.tensor([True, False, True, True, False])


def test_pointwise_by_hand() -> None:
    scores = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64)  # p = 3/4, 1/2
    total = pointwise(scores, torch.tensor([True, False]), torch.tensor([0, 0]))
    assert total.item() == pytest.approx(-math.log(0.75) - math.log(0.5))


def test_pairwise_by_hand() -> None:
    scores = torch.tensor([math.log(3.0), 0.0, 0.0], dtype=torch.float64)
    total = pairwise(scores, torch.tensor([True, False, True]), torch.tensor([0, 0, 0]))
    # passing 0 over failing 1: s(log 3) = 3/4; passing 2 over failing 1: s(0) = 1/2
    assert total.item() == pytest.approx(-math.log(0.75) - math.log(0.5))


def test_pairwise_compares_within_a_task_only() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0, 0.1, 0.7])
    whole = pairwise(scores, PASSED, TASKS)
    own = [torch.tensor([0, 1, 2]), torch.tensor([3, 4])]
    parts = sum(pairwise(scores[i], PASSED[i], TASKS[i]) for i in own)
    torch.testing.assert_close(whole, parts)
    shifted = scores + torch.tensor([5.0, 5.0, 5.0, -2.0, -2.0])  # per-task shifts change nothing
    torch.testing.assert_close(pairwise(shifted, PASSED, TASKS), whole)


def test_a_task_with_one_verdict_adds_nothing() -> None:
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    total = pairwise(scores, torch.tensor([True, True]), torch.tensor([0, 0]))
    total.backward()
    assert total.item() == 0 and scores.grad.tolist() == [0, 0]


def test_the_terms_are_what_the_totals_add_up() -> None:
    samples = [
        Sample(prompt_ids=(1,), completion_ids=(2,), passed=bool(p), task_id=str(int(t)))
        for p, t in zip(PASSED, TASKS, strict=True)
    ]
    assert count_pairs(samples) == 2 * 1 + 1 * 1
    assert LOSSES["pointwise"].terms(samples) == 5
    zeros = torch.zeros(5)
    for loss in LOSSES.values():  # every term of either loss is log 2 at equal scores
        assert loss.total(zeros, PASSED, TASKS).item() == pytest.approx(loss.terms(samples) * math.log(2), rel=1e-6)
