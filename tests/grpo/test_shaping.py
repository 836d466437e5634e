"""Soft overlong punishment, and the coefficient that seeks an entropy."""

import pytest

from grpo.entropy import Bonus
from grpo.shaping import soft_overlong


def test_soft_overlong_has_the_numbers_of_the_paper():
    lengths = [1, 16_384, 16_385, 18_432, 20_480, 21_000]
    wanted = [0, 0, -1 / 4096, -0.5, -1, -1]
    assert [soft_overlong(n, 20_480, 4_096) for n in lengths] == pytest.approx(wanted)


def test_soft_overlong_over_the_whole_length():
    assert [soft_overlong(n, 4, 4) for n in range(5)] == [0, -0.25, -0.5, -0.75, -1]


def test_the_coefficient_rises_below_the_target_and_falls_above_it():
    bonus = Bonus(0.0, entropy=0.1)
    for _ in range(3):
        bonus = bonus.after(0.1, target=0.2, step=1e-4, largest=2.5e-4)
    assert bonus.coefficient == pytest.approx(2.5e-4)  # three steps of 1e-4, held at the largest
    assert bonus.applied(0.2) == bonus.coefficient
    bonus = bonus.after(0.3, target=0.2, step=1e-4, largest=2.5e-4)
    assert bonus.coefficient == pytest.approx(1.5e-4)
    assert bonus.applied(0.2) == 0  # enough entropy: kept for later, not used
    for _ in range(3):
        bonus = bonus.after(0.3, target=0.2, step=1e-4, largest=2.5e-4)
    assert bonus.coefficient == 0


def test_without_a_target_the_coefficient_stays():
    bonus = Bonus(0.01).after(5.0, None, 1e-4, 0.005)
    assert (bonus.coefficient, bonus.applied(None)) == (0.01, 0.01)
