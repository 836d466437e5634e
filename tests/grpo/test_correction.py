"""Factors on the loss of tokens that engine and trainer disagree about, by hand."""

import math

import pytest
import torch

from grpo.correction import CORRECTIONS, off_policy_mask

SEGMENTS = torch.tensor([0, 0, 1, 1, 2])


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


#: pi_old / mu of five tokens; completions 0, 0, 1, 1, 2
RATIOS = (0.5, 1.0, 4.0, 0.25, 6.0)


@pytest.mark.parametrize(
    ("kind", "factors"),
    [
        ("none", [1, 1, 1, 1, 1]),
        ("tis", [0.5, 1, 2, 0.25, 2]),  # cut at 2
        ("icepop", [0.5, 1, 4, 0, 0]),  # inside 0.5 .. 5, both ends included
        ("sequence_mask", [0.5, 0.5, 1, 1, 0]),  # products 0.5, 1, 6 against 3
        ("geometric", [0, 0, 1, 1, 0]),  # means in the logarithm sqrt(0.5), 1, 6 against 0.99 .. 1.01
    ],
)
def test_corrections_by_hand(kind: str, factors: list[float]):
    row = CORRECTIONS[kind]
    assert row.weigh(t(*RATIOS).log(), SEGMENTS, row.band).tolist() == pytest.approx(factors)


def test_every_correction_has_a_case_above_and_leaves_equal_probabilities_alone():
    assert set(CORRECTIONS) == {"none", "tis", "icepop", "sequence_mask", "geometric"}
    for row in CORRECTIONS.values():
        assert row.weigh(t(0, 0, 0, 0, 0), SEGMENTS, row.band).tolist() == [1] * 5
        assert row.weigh(t(0)[:0], SEGMENTS[:0], row.band).tolist() == []


def test_a_band_of_ones_own():
    assert CORRECTIONS["geometric"].weigh(t(*RATIOS).log(), SEGMENTS, (0.7, 1.5)).tolist() == [1, 1, 1, 1, 0]
    assert CORRECTIONS["tis"].weigh(t(*RATIOS).log(), SEGMENTS, (0.0, 5.0)).tolist() == pytest.approx(
        [0.5, 1, 4, 0.25, 5]
    )


def test_off_policy_mask_drops_bad_answers_that_have_drifted_and_nothing_else():
    # mean log mu - log pi of the completions: 0.6, 0.6, 0.2; advantages -, +, -; threshold 0.5
    engine = t(-1.0, -1.0, -1.0, -1.0, -1.0)
    policy = t(-1.2, -2.0, -1.2, -2.0, -1.2).requires_grad_()
    advantages = t(-1, -1, 1, 1, -1)
    mask = off_policy_mask(policy, engine, advantages, SEGMENTS, 0.5)
    assert mask.tolist() == [0, 0, 1, 1, 1]
    assert not mask.requires_grad
    assert off_policy_mask(policy, engine, advantages, SEGMENTS, 0.7).tolist() == [1] * 5
    assert off_policy_mask(policy, engine, advantages, SEGMENTS, 0.1).tolist() == [0, 0, 1, 1, 0]


def test_truncation_alone_keeps_a_completion_the_engine_found_unlikely():
    log_ratio = t(math.log(100), math.log(100), 0, 0, 0)
    kept = {k: bool((row.weigh(log_ratio, SEGMENTS, row.band)[:2] > 0).all()) for k, row in CORRECTIONS.items()}
    assert kept == {"none": True, "tis": True, "icepop": False, "sequence_mask": False, "geometric": False}
