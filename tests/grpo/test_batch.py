import pytest

from assay.errors import InfraFailure, TrainingDiverged
from assay.types import FinishReason
from grpo.batch import build_batch, estimate_advantages, rewards_of
from grpo.config import GRPOConfig
from tests.groups import make_completion, make_scored


def build(scored, **settings):
    config = GRPOConfig(**settings)
    return build_batch(scored, estimate_advantages(scored, config), config, max_completion_tokens=8)


def test_the_worked_example_of_the_docstring():
    batch = build([make_scored([1.0, 0.0], [3, 1])])
    assert batch.advantages == pytest.approx((0.70710678, -0.70710678))
    assert batch.weights == pytest.approx((1 / 6, 1 / 2))
    assert batch.num_tokens == 4


def test_infra_is_masked_and_counted_and_never_a_zero():
    quiet = build([make_scored([1.0, 0.0, 1.0], [2, 2, 2])])
    noisy = build([make_scored([1.0, None, 0.0, 1.0], [2, 5, 2, 2])])
    assert noisy.advantages == quiet.advantages
    assert noisy.weights == quiet.weights
    assert noisy.counts["groups/masked_infra"] == 1


def test_an_aborted_completion_is_masked_whatever_it_scored():
    scored = make_scored([1.0, 0.0, 1.0], [2, 2, 2])
    aborted = make_completion([7, 7], finish=FinishReason.ABORT)
    group = scored.group.__class__(
        task=scored.group.task, prompt_ids=(0,), completions=(aborted, *scored.group.completions[1:])
    )
    assert rewards_of(scored.__class__(group=group, results=scored.results)) == [None, 0.0, 1.0]


def test_zero_variance_groups_stay_for_the_kl_or_go():
    groups = [make_scored([1.0, 1.0], [2, 2], "flat"), make_scored([1.0, 0.0], [2, 2], "mixed")]
    assert len(build(groups).completions) == 4
    dropped = build(groups, drop_zero_variance_groups=True)
    assert len(dropped.completions) == 2
    assert dropped.counts["groups/zero_variance"] == 1
    assert build(groups[:1], drop_zero_variance_groups=True).completions == ()


def test_nothing_but_infra_stops_with_the_reason():
    with pytest.raises(InfraFailure, match="none of 1 groups earned a reward.*box died"):
        build([make_scored([None, None], [2, 2])])
    with pytest.raises(InfraFailure, match="earned a reward"):
        build([make_scored([None, None], [2, 2])], drop_zero_variance_groups=True)


def test_a_reward_that_is_no_number_stops_the_run():
    with pytest.raises(TrainingDiverged, match="not a finite number"):
        build([make_scored([float("nan"), 0.0], [2, 2])])


def test_a_group_of_one_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="every advantage would be 0"):
        GRPOConfig(group_size=1)
