"""The sum by which an engine's routed experts are read: whatever order and padding, and every last bit."""

import pytest
import torch

from rollouts.holding import _sum_of_values


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def values(request) -> torch.Tensor:
    return (torch.randn(300, 7, generator=torch.Generator().manual_seed(3)) * 0.02).to(request.param)


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.int32 if values.dtype == torch.float32 else torch.int16)


def test_order_and_padding_do_not_count(values):
    order = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(5))
    moved = torch.cat([values.flatten()[order], values.new_zeros(100)]).reshape(-1, 4)
    assert _sum_of_values(moved) == _sum_of_values(values)
    assert (_sum_of_values(values[:150]) + _sum_of_values(values[150:]) - _sum_of_values(values)) % 2**32 == 0


def test_last_bits_that_cancel_are_seen(values):
    """Pairs of values of which one grows by a bit and the other shrinks by one, so that the plain sum stays."""
    draw, before = torch.Generator().manual_seed(7), _sum_of_values(values)
    for pairs in (1, 2, 50, 1000):
        for _ in range(250):
            up, down = torch.randperm(values.numel(), generator=draw)[: 2 * pairs].chunk(2)
            changed = bits(values).flatten().clone()
            changed[up] += 1
            changed[down] -= 1
            assert changed.sum() == bits(values).sum()
            assert (_sum_of_values(changed.view(values.dtype)) - before) % 2**32, pairs


def test_values_of_16_bits_in_32_have_no_last_bits_and_are_seen_all_the_same():
    """A sum of products with one factor, shifted once, is the same of these two."""
    one = torch.tensor([0.017212, 0.026367, 0.038330, 0.012329]).bfloat16().float()
    other = torch.tensor([0.017334, 0.026489, 0.038086, 0.012268]).bfloat16().float()
    assert (_sum_of_values(one) - _sum_of_values(other)) % 2**32
    draw, values = torch.Generator().manual_seed(11), (torch.randn(400) * 0.02).bfloat16().float()
    for _ in range(5000):
        up, down = torch.randperm(400, generator=draw)[:4].chunk(2)
        changed = bits(values).clone()
        changed[up] += 1 << 16
        changed[down] -= 1 << 16
        assert (_sum_of_values(changed.view(torch.float32)) - _sum_of_values(values)) % 2**32


@pytest.mark.parametrize("change", [torch.neg, torch.zeros_like, lambda v: 2 * v, lambda v: v.nextafter(v + 1)])
def test_what_changes_all_values_is_seen(values, change):
    if values.dtype != torch.float32 and change(torch.ones(1)) not in (-1, 0, 2):
        pytest.skip("torch has no next value in 16 bits")
    assert (_sum_of_values(change(values)) - _sum_of_values(values)) % 2**32
