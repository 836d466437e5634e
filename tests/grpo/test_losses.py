import math

import pytest
import torch

from grpo.aggregation import AGGREGATIONS, constant, per_sequence_mean, token
from grpo.kl import KL, k1, k2, k3
from grpo.losses import clipped_surrogate


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_clipped_surrogate_by_hand():
    # ratios 1, 1.5, 0.5, 1.5 with clip 0.8..1.2
    logprobs = torch.log(t(1.0, 1.5, 0.5, 1.5))
    loss, clipped = clipped_surrogate(logprobs, t(0, 0, 0, 0), t(2.0, 2.0, -1.0, -1.0), 0.2, 0.2)
    # -min(1*2, 1*2) = -2;  -min(1.5*2, 1.2*2) = -2.4;  -min(0.5*-1, 0.8*-1) = 0.8;  -min(1.5*-1, 1.2*-1) = 1.5
    assert loss.tolist() == pytest.approx([-2.0, -2.4, 0.8, 1.5])
    assert clipped.tolist() == [False, True, True, False]


def test_clip_higher_leaves_more_room_above():
    loss, clipped = clipped_surrogate(torch.log(t(1.25)), t(0), t(1.0), 0.2, 0.28)
    assert loss.item() == pytest.approx(-1.25)
    assert not clipped.item()


def test_on_policy_gradient_is_the_advantage():
    logprobs = t(-0.3, -1.2, -2.0).requires_grad_()
    loss, _ = clipped_surrogate(logprobs, logprobs.detach(), t(1.5, -0.5, 0.0), 0.2, 0.2)
    loss.sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([-1.5, 0.5, 0.0])


def test_no_gradient_flows_through_a_clipped_token():
    logprobs = torch.log(t(1.5)).requires_grad_()
    clipped_surrogate(logprobs, t(0), t(1.0), 0.2, 0.2)[0].sum().backward()
    assert logprobs.grad.item() == 0


def test_kl_estimators_by_hand():
    # pi = 0.5, reference = 0.25: d = log 0.5
    logprobs, reference = torch.log(t(0.5)), torch.log(t(0.25))
    d = math.log(0.5)
    assert k1(logprobs, reference).item() == pytest.approx(-d)  # 0.6931
    assert k2(logprobs, reference).item() == pytest.approx(d * d / 2)  # 0.2402
    assert k3(logprobs, reference).item() == pytest.approx(0.5 - d - 1)  # 0.1931


def test_k1_and_k3_average_to_the_kl_divergence():
    p, q = t(0.5, 0.3, 0.2), t(0.2, 0.5, 0.3)
    exact = (p * (p / q).log()).sum().item()
    for name in ("k1", "k3"):
        assert (p * KL[name](p.log(), q.log())).sum().item() == pytest.approx(exact)
    assert (k3(p.log(), q.log()) >= 0).all()


def test_k3_is_exact_for_tiny_differences():
    # in fp32 exp(d) - d - 1 rounds to 0 or to noise; expm1 keeps d^2 / 2
    d = torch.tensor([1e-3], dtype=torch.float32)
    assert k3(torch.zeros(1), d).item() == pytest.approx(5.0e-7, rel=0.15)


def test_aggregations_by_hand():
    lengths = [3, 1]
    assert per_sequence_mean(lengths, 8) == pytest.approx([1 / 6, 1 / 2])
    assert token(lengths, 8) == pytest.approx([1 / 4, 1 / 4])
    assert constant(lengths, 8) == pytest.approx([1 / 16, 1 / 16])


def test_weights_add_up_to_one_where_they_should():
    lengths = [5, 2, 9, 1]
    for name in ("per_sequence_mean", "token"):
        assert sum(n * w for n, w in zip(lengths, AGGREGATIONS[name](lengths, 16), strict=True)) == pytest.approx(1)
    assert sum(n * w for n, w in zip(lengths, constant(lengths, 16), strict=True)) == pytest.approx(17 / 64)
