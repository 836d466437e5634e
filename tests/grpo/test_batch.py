from dataclasses import replace

import pytest

from assay.errors import ConfigError, DataError, InfraFailure, TrainingDiverged
from assay.types import FinishReason, RoutedExperts
from grpo.batch import build_batch, estimate_advantages, is_flat, rewards_of
from grpo.config import GRPOConfig
from grpo.keeping import read_groups, write_groups
from grpo.record import describe
from tests.groups import make_completion, make_scored


def build(scored, **settings):
    config = GRPOConfig(**settings)
    return build_batch(scored, estimate_advantages(scored, config, 8), config, max_completion_tokens=8)


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


def test_a_group_of_nothing_but_infra_leaves_the_others_as_they_are():
    good, broken = make_scored([1.0, 0.0], [3, 1], "good"), make_scored([None, None], [2, 2], "broken")
    alone, both = build([good]), build([broken, good])
    assert (both.completions, both.advantages, both.weights) == (alone.completions, alone.advantages, alone.weights)
    assert both.counts["groups/masked_infra"] == 1
    assert both.counts["groups/trained"] == 1


def test_truncated_completions_are_compared_with_but_not_trained_on():
    scored = make_scored([1.0, 0.0, 0.0], [2, 2, 8])
    cut = make_completion([7] * 8, finish=FinishReason.LENGTH)
    group = replace(scored.group, completions=(*scored.group.completions[:2], cut))
    plain, masked = build([replace(scored, group=group)]), build([replace(scored, group=group)], mask_truncated=True)
    assert masked.advantages == plain.advantages[:2]
    assert masked.weights == pytest.approx((1 / 4, 1 / 4))
    assert masked.counts["completions/masked_truncated"] == 1
    assert plain.counts["completions/masked_truncated"] == 0
    all_cut = replace(scored, group=replace(group, completions=(cut, cut, cut)))
    assert build([all_cut], mask_truncated=True).completions == ()  # nothing to train on, and nobody failed


def test_soft_overlong_punishment_enters_the_advantages():
    # lengths 4, 6, 8 of at most 8 with a buffer of 4: 0, -0.5, -1
    batch = build([make_scored([1.0, 1.0, 1.0], [4, 6, 8])], advantage="mean", overlong_buffer_tokens=4)
    assert batch.advantages == pytest.approx((0.5, 0.0, -0.5))
    assert (batch.counts["groups/trained"], batch.counts["groups/zero_variance"]) == (1, 0)
    alike, mixed = make_scored([1.0, 1.0], [4, 8]), make_scored([1.0, 0.0], [4, 8])
    batch = build([alike, mixed], overlong_buffer_tokens=4, drop_zero_variance_groups=True)
    assert len(batch.completions) == 2  # what counts for dropping is the reward that was earned
    assert (batch.counts["groups/trained"], batch.counts["groups/zero_variance"]) == (1, 1)
    with pytest.raises(ConfigError, match="overlong_buffer_tokens=9 is longer than a completion"):
        build([make_scored([1.0, 0.0], [2, 2])], overlong_buffer_tokens=9)


def test_batch_std_divides_all_groups_by_one_deviation():
    batch = build([make_scored([1.0, 0.0], [1, 1]), make_scored([0.5, 0.5], [1, 1])], advantage="batch_std")
    assert batch.advantages == pytest.approx((0.5 / (1 / 6) ** 0.5, -0.5 / (1 / 6) ** 0.5, 0, 0))


def test_prompt_mean_weighs_prompts_alike():
    groups = [make_scored([1.0, None], [3, 2], "a"), make_scored([1.0, 0.0], [4, 6], "b")]
    batch = build(groups, loss_normalisation="prompt_mean")
    assert batch.weights == pytest.approx((1 / 6, 1 / 20, 1 / 20))


def test_mini_batches_are_whole_groups_each_weighed_on_its_own():
    groups = [make_scored([1.0, 0.0], [i + 1, 2], str(i)) for i in range(5)]
    batch = build(groups, mini_batches=2, loss_normalisation="token")
    assert batch.mini_batches == (0, 0, 0, 0, 0, 0, 1, 1, 1, 1)
    first, second = batch.parts()
    assert first.completions + second.completions == batch.completions
    for part in (first, second):
        assert sum(w * len(c) for w, c in zip(part.weights, part.completions, strict=True)) == pytest.approx(1)
    assert [p.num_tokens for p in build(groups[:2], mini_batches=3).parts()] == [3, 4]  # fewer groups than wanted
    assert build(groups).parts() == [build(groups)]


def with_steps(scored, steps):
    results = tuple(replace(r, steps=s) for r, s in zip(scored.results, steps, strict=True))
    return replace(scored, results=results)


def test_process_supervision_gives_every_token_its_own_advantage():
    scored = with_steps(make_scored([1.0, 0.0, None], [3, 1, 2]), [((0, 1.0), (2, 0.0)), ((0, 1.0),), ()])
    batch = build([scored], advantage="process")
    up, down = 1 / 3**0.5, -2 / 3**0.5
    assert batch.advantages[0] == pytest.approx((up + down, down, down))
    assert batch.advantages[1] == pytest.approx((up,))
    assert len(batch.advantages) == 2
    assert batch.counts["groups/trained"] == 1
    flat = with_steps(make_scored([1.0, 1.0], [2, 2], "flat"), [((1, 0.3),), ((1, 0.3),)])
    assert build([flat, scored], advantage="process", drop_zero_variance_groups=True).completions == batch.completions


def test_process_supervision_without_steps_says_who_gave_none():
    with pytest.raises(DataError, match="verifier 'function' gave none"):
        build([make_scored([1.0, 0.0], [2, 2])], advantage="process")
    with pytest.raises(DataError, match="task 't': steps end at tokens"):
        build([with_steps(make_scored([1.0], [2]), [((2, 1.0),)])], advantage="process")


def test_kept_groups_come_back_whole(tmp_path):
    scored = with_steps(make_scored([1.0, None, float("inf")], [3, 2, 1]), [((0, 1.0), (2, 0.5)), (), ()])
    routed = make_scored([0.5], [1])
    (completion,) = routed.group.completions
    told = replace(completion, experts=RoutedExperts(shape=(3, 1, 2), ids=bytes([0, 255, 7, 10, 13, 1])))
    routed = replace(routed, group=replace(routed.group, completions=(told,)))
    write_groups([scored, make_scored([0.5], [1]), routed], tmp_path / "groups.jsonl")
    assert read_groups(tmp_path / "groups.jsonl") == [scored, make_scored([0.5], [1]), routed]


@pytest.mark.parametrize("ids", [bytes(range(12)), bytes(range(24))], ids=["one byte", "two bytes"])
def test_kept_groups_come_back_with_the_experts_of_the_engine(tmp_path, ids: bytes):
    """Of one completion, not of the other; the batch under replay is rebuilt from the file, to the byte."""
    scored = make_scored([1.0, 0.0], [2, 3])
    first, second = scored.group.completions
    routed = replace(first, experts=RoutedExperts(shape=(3, 2, 2), ids=ids))
    scored = replace(scored, group=replace(scored.group, completions=(routed, second)))
    write_groups([scored], tmp_path / "groups.jsonl")
    kept = read_groups(tmp_path / "groups.jsonl")
    assert kept == [scored]
    assert build(kept).experts == (routed.experts, None)


def test_the_experts_an_engine_chose_ride_along_into_every_mini_batch():
    scored = [make_scored([1.0, 0.0], [2, 3]), make_scored([0.0, 1.0], [1, 2])]
    for n, one in enumerate(scored):
        routed = [
            replace(completion, experts=RoutedExperts(shape=(1, 1, 1), ids=bytes([4 * n + m])))
            for m, completion in enumerate(one.group.completions)
        ]
        scored[n] = replace(one, group=replace(one.group, completions=tuple(routed)))
    batch = build(scored, mini_batches=2)
    assert [chosen.ids[0] for chosen in batch.experts] == [0, 1, 4, 5]
    assert sorted([chosen.ids[0] for chosen in part.experts] for part in batch.parts()) == [[0, 1], [4, 5]]


def test_the_group_with_most_failures_of_the_harness_is_told_beside_their_share():
    """An answer that makes its task's checker fail is masked, not punished: that must be seen by task."""
    told = describe([make_scored([1.0, 0.0, 1.0, 0.0], [1] * 4), make_scored([None, None, None, 1.0], [1] * 4)])
    assert told["verdict/INFRA"] == 3 / 8
    assert told["groups/infra_worst"] == 3 / 4


def test_a_step_of_flat_groups_and_one_failure_of_the_harness_goes_on():
    """Nothing is learned from it, and the harness did not fail on all."""
    flat = [make_scored([1.0, 1.0], [1, 1]), make_scored([0.0, 0.0], [1, 1])]
    batch = build([*flat, make_scored([None, None], [1, 1])], drop_zero_variance_groups=True)
    assert batch.completions == ()
    assert batch.counts["groups/zero_variance"] == 2
    with pytest.raises(InfraFailure, match="failed on all of them"):
        build([make_scored([None, None], [1, 1])] * 3, drop_zero_variance_groups=True)


def test_rewards_of_steps_make_a_group_teach_only_where_they_train():
    scored = make_scored([1.0, 1.0], [2, 2])
    stepped = replace(scored, results=tuple(replace(r, steps=((0, float(n)),)) for n, r in enumerate(scored.results)))
    assert not is_flat(stepped)
    assert is_flat(stepped, by_steps=False)


def test_equal_rewards_of_steps_teach_nothing_however_many_there_are():
    scored = make_scored([1.0, 2.0], [2, 2])
    steps = ((0, 1.0),), ((0, 1.0), (1, 1.0))
    stepped = replace(scored, results=tuple(replace(r, steps=s) for r, s in zip(scored.results, steps, strict=True)))
    advantages = estimate_advantages([stepped], GRPOConfig(advantage="process"), 8)
    assert {a for completion in advantages[0] for a in completion} == {0.0}
    assert is_flat(stepped)
