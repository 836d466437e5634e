import math

import pytest
import torch

from grpo.aggregation import AGGREGATIONS, constant, per_sequence_mean, prompt_mean, token
from grpo.kl import KL, k1, k2, k3, unbiased
from grpo.losses import LOSSES, cispo, clipped_surrogate, gspo
from grpo.sequences import sequence_mean, sequence_sum


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


def test_values_per_sequence_in_the_place_of_every_token():
    values, segments = t(1.0, 2.0, 3.0, 10.0), torch.tensor([4, 0, 4, 0])
    assert sequence_sum(values, segments).tolist() == [4.0, 12.0, 4.0, 12.0]
    assert sequence_mean(values, segments).tolist() == [2.0, 6.0, 2.0, 6.0]
    assert sequence_mean(values[:0], segments[:0]).shape == (0,)


def test_gspo_by_hand():
    # two tokens of ratios 4 and 1 and one of ratio 1/2: s = sqrt(4) = 2 and 1/2, clipped to 1.1 and 0.9
    new, segments = torch.log(t(4.0, 1.0, 0.5)), torch.tensor([0, 0, 1])
    loss, clipped = gspo(new, t(0, 0, 0), t(1.0, 1.0, 3.0), 0.1, 0.1, segments)
    assert loss.tolist() == pytest.approx([-1.1, -1.1, -1.5])
    assert clipped.tolist() == [True, True, False]


def test_gspo_gradient_is_that_of_the_sequence_likelihood():
    # of s A / 1 with s = exp(mean d): s A / |o| on each token, and A / |o| where nothing has moved yet
    new = torch.log(t(1.2, 0.9)).requires_grad_()
    weights = t(0.5, 0.5)  # 1 / (S |o|)
    (weights * gspo(new, t(0, 0), t(2.0, 2.0), 1.0, 1.0, torch.tensor([0, 0]))[0]).sum().backward()
    assert new.grad.tolist() == pytest.approx([-math.sqrt(1.2 * 0.9)] * 2)


def test_gspo_of_single_tokens_is_grpo():
    new, old, advantages = t(-0.1, -0.9, -2.0), t(-0.2, -0.5, -1.0), t(1.0, -2.0, 0.5)
    for a, b in zip(
        gspo(new, old, advantages, 0.2, 0.2, torch.arange(3)),
        clipped_surrogate(new, old, advantages, 0.2, 0.2),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_cispo_by_hand():
    # ratios 0.5 and 8, cap 1 + 4: weights 0.5 and 5, and the gradient is -weight * A, also beyond the cap
    new = torch.log(t(0.5, 8.0)).requires_grad_()
    loss, capped = cispo(new, t(0, 0), t(1.0, -2.0), 0.2, 4.0)
    assert loss.tolist() == pytest.approx([-0.5 * math.log(0.5), 10 * math.log(8)])
    assert capped.tolist() == [False, True]
    loss.sum().backward()
    assert new.grad.tolist() == pytest.approx([-0.5, 10.0])


@pytest.mark.parametrize("name", LOSSES)
def test_on_policy_every_loss_has_the_gradient_of_the_advantage(name: str):
    # weights 1 / (S |o|): with ratio 1 the sequence ratio spreads its gradient evenly, as advantages are constant there
    new, segments = t(-0.3, -1.2, -2.0).requires_grad_(), torch.tensor([0, 1, 1])
    weights = t(1 / 2, 1 / 4, 1 / 4)
    (weights * LOSSES[name](new, new.detach(), t(1.5, -0.5, -0.5), 0.2, 0.2, segments)[0]).sum().backward()
    assert new.grad.tolist() == pytest.approx([-0.75, 0.125, 0.125])


@pytest.mark.parametrize("name", LOSSES)
def test_no_advantage_no_gradient(name: str):
    new = t(-0.3, -1.2, -2.0).requires_grad_()
    LOSSES[name](new, t(-1.0, -1.0, -1.0), t(0, 0, 0), 0.2, 0.2, torch.tensor([0, 0, 1]))[0].sum().backward()
    assert not new.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_tokens_is_nothing_to_a_loss(name: str):
    generator = torch.Generator().manual_seed(2)
    new, old, advantages = torch.randn(3, 9, generator=generator, dtype=torch.float64) * 0.3
    segments = torch.tensor([0, 0, 1, 1, 1, 1, 2, 3, 3])
    order = torch.randperm(9, generator=generator)
    plain, _ = LOSSES[name](new, old, advantages, 0.2, 0.28, segments)
    turned, _ = LOSSES[name](new[order], old[order], advantages[order], 0.2, 0.28, segments[order])
    torch.testing.assert_close(turned, plain[order])


def test_unbiased_kl_by_hand():
    # pi 0.5, reference 0.25, pi_old 0.4: ratio 1.25 times k3 = 0.5 + log 2 - 1
    value = unbiased(torch.log(t(0.5)), torch.log(t(0.25)), torch.log(t(0.4)))
    assert value.item() == pytest.approx(1.25 * (0.5 + math.log(2) - 1))
    assert KL["none"](t(-1.0), t(-2.0), t(-1.0)).item() == 0


def test_which_estimators_have_the_gradient_of_the_divergence():
    """All tokens of a vocabulary of three, weighted by the policy that drew them, instead of samples."""
    reference, drawn = t(0.2, 0.5, 0.3).log(), t(0.3, 0.3, 0.4).log()

    def gradient(name: str, old: torch.Tensor) -> list[float]:
        logits = t(0.4, -0.1, 0.3).requires_grad_()
        logprobs = logits.log_softmax(-1)
        (old.exp() * KL[name](logprobs, reference, old)).sum().backward()
        return logits.grad.tolist()

    logits = t(0.4, -0.1, 0.3).requires_grad_()
    logprobs = logits.log_softmax(-1)
    (logprobs.exp() * (logprobs - reference)).sum().backward()
    exact, on_policy = logits.grad.tolist(), logprobs.detach()
    assert gradient("unbiased", drawn) == pytest.approx(exact)
    assert gradient("unbiased", on_policy) == pytest.approx(exact)
    assert gradient("k2", on_policy) == pytest.approx(exact)
    assert gradient("k1", on_policy) == pytest.approx([0, 0, 0], abs=1e-15)
    assert gradient("k3", on_policy) != pytest.approx(exact, rel=0.1)  # its value is right, its gradient is not


def test_prompt_mean_by_hand():
    # group 0 has 3 + 1 tokens, group 1 has 4: each prompt counts one half
    assert prompt_mean([3, 1, 4], 8, [0, 0, 1]) == pytest.approx([1 / 8, 1 / 8, 1 / 8])
    assert prompt_mean([3, 1, 1], 8, [0, 0, 1]) == pytest.approx([1 / 8, 1 / 8, 1 / 2])
    # of equal lengths everywhere it is the mean over completions
    assert prompt_mean([2] * 4, 8, [0, 0, 1, 1]) == pytest.approx(per_sequence_mean([2] * 4, 8))
