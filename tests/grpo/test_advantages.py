import math
import random

import pytest

from grpo.advantages import ADVANTAGES, mean, mean_std


def test_mean_std_by_hand():
    # rewards 1 0 0 1: mean 0.5, sample deviation sqrt(4 * 0.25 / 3) = 0.57735, so +-0.5 / 0.57735 = +-0.866025
    assert mean_std([1.0, 0.0, 0.0, 1.0]) == pytest.approx([0.8660254, -0.8660254, -0.8660254, 0.8660254])
    # rewards 3 1: mean 2, sample deviation sqrt(2) -> +-0.7071068
    assert mean_std([3.0, 1.0]) == pytest.approx([0.7071068, -0.7071068])


def test_mean_by_hand():
    assert mean([1.0, 0.0, 0.0, 0.0]) == pytest.approx([0.75, -0.25, -0.25, -0.25])


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_reward_nobody_could_give_leaves_the_others_as_they_are(name: str):
    with_hole = ADVANTAGES[name]([1.0, None, 0.0, 0.5])
    without = ADVANTAGES[name]([1.0, 0.0, 0.5])
    assert with_hole[1] is None
    assert [with_hole[0], with_hole[2], with_hole[3]] == without


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_teach_nothing(name: str):
    assert ADVANTAGES[name]([0.1, 0.1, 0.1]) == [0.0, 0.0, 0.0]
    assert ADVANTAGES[name]([0.7, None]) == [0.0, None]
    assert ADVANTAGES[name]([None, None]) == [None, None]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_shift_invariance_and_permutation(name: str):
    draw = random.Random(3)
    rewards = [draw.random() for _ in range(7)]
    plain = ADVANTAGES[name](rewards)
    assert ADVANTAGES[name]([r + 5 for r in rewards]) == pytest.approx(plain)
    order = draw.sample(range(7), 7)
    assert ADVANTAGES[name]([rewards[i] for i in order]) == pytest.approx([plain[i] for i in order])
    assert math.fsum(plain) == pytest.approx(0, abs=1e-12)


def test_mean_std_has_unit_deviation_whatever_the_scale():
    values = mean_std([0.0, 10.0, 20.0, 50.0])
    assert math.sqrt(sum(v * v for v in values) / 3) == pytest.approx(1)
    assert values == pytest.approx(mean_std([0.0, 1.0, 2.0, 5.0]))
