import math
import random

import pytest

from grpo.advantages import ADVANTAGES, batch_std, leave_one_out, mean, mean_std, process


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


def test_leave_one_out_by_hand():
    # each against the mean of the other three: 1 - 1/3, 0 - 2/3, 1 - 1/3, 0 - 2/3
    assert leave_one_out([1.0, 0.0, 1.0, 0.0]) == pytest.approx([2 / 3, -2 / 3, 2 / 3, -2 / 3])
    draw = random.Random(5)
    rewards = [draw.random() for _ in range(6)]
    by_definition = [r - math.fsum(rewards[:i] + rewards[i + 1 :]) / 5 for i, r in enumerate(rewards)]
    assert leave_one_out(rewards) == pytest.approx(by_definition)


def test_batch_std_by_hand():
    # rewards 1 0 | 1 1 | 0 - : five of them, mean 0.6, squares 3 * 0.16 + 2 * 0.36 = 1.2, deviation sqrt(1.2 / 4)
    deviation = math.sqrt(0.3)
    out = batch_std([[1.0, 0.0], [1.0, 1.0], [0.0, None]])
    assert out[0] == pytest.approx([0.5 / deviation, -0.5 / deviation])
    assert out[1:] == [[0.0, 0.0], [0.0, None]]
    assert batch_std([[0.3, 0.3], [None, None]]) == [[0.0, 0.0], [None, None]]


def test_batch_std_does_not_blow_up_a_rare_success():
    rare, common = [1.0] + [0.0] * 15, [1.0] * 8 + [0.0] * 8
    alone = mean_std(rare)[0] / mean_std(common)[0]
    together = batch_std([rare, common])
    assert alone > together[0][0] / together[1][0] == pytest.approx((15 / 16) / 0.5)


def test_batch_std_is_shift_invariant_and_scale_free():
    draw = random.Random(4)
    groups = [[draw.random() for _ in range(4)] for _ in range(3)]
    plain = batch_std(groups)
    for turned in ([[r + 2 for r in g] for g in groups], [[r * 7 for r in g] for g in groups]):
        assert [a for g in batch_std(turned) for a in g] == pytest.approx([a for g in plain for a in g])


def test_process_supervision_by_hand():
    # step rewards 1 0 | 1: mean 2/3, squares 1/9 + 4/9 + 1/9 = 2/3, sample deviation sqrt(1/3)
    scale = math.sqrt(3)
    up, down = scale / 3, -2 * scale / 3
    first, second, masked = process([[(1, 1.0), (3, 0.0)], [(0, 1.0)], None], [4, 2, 5])
    # tokens 0 and 1 lie in or before both steps, 2 and 3 in the second alone; what follows the last step gets nothing
    assert first == pytest.approx((up + down, up + down, down, down))
    assert second == pytest.approx((up, 0.0))
    assert masked is None


def test_process_supervision_of_one_step_at_the_end_is_outcome_supervision():
    rewards = [1.0, 0.0, 0.0, 1.0, 0.3]
    lengths = [3, 1, 4, 2, 2]
    per_token = process([[(n - 1, r)] for r, n in zip(rewards, lengths, strict=True)], lengths)
    for values, advantage, length in zip(per_token, mean_std(rewards), lengths, strict=True):
        assert values == pytest.approx((advantage,) * length)


def test_process_supervision_shift_permutation_and_steps_that_cannot_be():
    steps, lengths = [[(1, 0.2), (2, 0.9)], [(0, 0.4)], [(3, 0.1)]], [3, 1, 4]
    plain = process(steps, lengths)
    shifted = process([[(e, r + 3) for e, r in s] for s in steps], lengths)
    turned = process(steps[::-1], lengths[::-1])[::-1]
    for a, b, c in zip(plain, shifted, turned, strict=True):
        assert b == pytest.approx(a)
        assert c == pytest.approx(a)
    assert process([[(0, 1.0)], [(0, 1.0)]], [1, 1]) == [(0.0,), (0.0,)]
    for bad in ([(4, 1.0)], [(0, 1.0), (0, 0.5)]):
        with pytest.raises(ValueError, match="steps end at tokens"):
            process([bad], [4])
