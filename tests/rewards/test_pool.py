"""Several reward workers as one: order, retries, and failures that stay failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from assay.errors import InfraFailure
from assay.types import FinishReason, RewardResult, RolloutGroup, Verdict
from rewards import pool
from rewards.config import RewardsConfig
from rewards.pool import RewardPool
from tests.groups import make_completion, make_result, make_task


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "RESTART_S", 0.0)


def group(name: str, finish: FinishReason = FinishReason.STOP) -> RolloutGroup:
    completions = (make_completion([3, 1], finish), make_completion([4, 1]))
    return RolloutGroup(task=make_task(name), prompt_ids=(0,), completions=completions)


class Worker:
    """Gives 1 to the first completion and 0 to the second; dies on the first `deaths` calls."""

    def __init__(self, deaths: int = 0) -> None:
        self.deaths = deaths

    def score_group(self, group: RolloutGroup) -> list[RewardResult]:
        if self.deaths:
            self.deaths -= 1
            raise InfraFailure("worker died")
        return [make_result(1.0), make_result(0.0)]


class Model:
    def score(self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
        return [0.8 for _ in completions]


class DeadModel:
    def score(self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
        raise InfraFailure("model died")


def test_groups_come_back_in_order_with_every_part_kept():
    config = RewardsConfig(reward="mix")
    scored = RewardPool([Worker(), Worker()], config, Model()).score([group(str(i)) for i in range(20)])
    assert [s.group.task.id for s in scored] == [str(i) for i in range(20)]
    assert [r.reward for r in scored[7].results] == pytest.approx([0.5 + 0.4, 0.4])
    assert scored[7].results[0].parts == {"compiler": 1.0, "rm": 0.8}


def test_a_worker_that_dies_once_costs_nothing():
    quiet = RewardPool([Worker()], RewardsConfig()).score([group("a"), group("b")])
    noisy = RewardPool([Worker(deaths=1)], RewardsConfig()).score([group("a"), group("b")])
    assert [[r.reward for r in s.results] for s in noisy] == [[r.reward for r in s.results] for s in quiet]


def test_a_group_that_cannot_be_judged_is_masked_and_the_others_are_not():
    scored = RewardPool([Worker(deaths=2)], RewardsConfig()).score([group("a"), group("b")])
    assert [r.reward for r in scored[0].results] == [None, None]
    assert scored[0].results[0].verdict is Verdict.INFRA
    assert [r.reward for r in scored[1].results] == [1.0, 0.0]


def test_when_the_harness_fails_on_everything_the_run_stops_with_the_reason():
    with pytest.raises(InfraFailure, match="failed on all of 2 completions: worker died"):
        RewardPool([Worker(deaths=99)], RewardsConfig()).score([group("a")])
    with pytest.raises(InfraFailure, match="gave no score"):
        RewardPool([Worker()], RewardsConfig(reward="rm"), DeadModel()).score([group("a")])


def test_verdicts_for_evaluation_do_not_need_the_reward_model():
    config = RewardsConfig(reward="mix")
    judged = RewardPool([Worker()], config, DeadModel()).judge([group("a")])
    assert [r.reward for r in judged[0].results] == [1.0, 0.0]


def test_a_dead_reward_model_beside_the_tests_is_no_zero():
    scored = RewardPool([Worker()], RewardsConfig(reward="compiler"), DeadModel()).score([group("a")])
    assert [r.reward for r in scored[0].results] == [1.0, 0.0]
    assert "rm" not in scored[0].results[0].parts


def test_a_completion_the_engine_gave_up_is_the_engines_failure():
    scored = RewardPool([Worker()], RewardsConfig()).score([group("a", FinishReason.ABORT)])
    assert [r.verdict for r in scored[0].results] == [Verdict.INFRA, Verdict.WA]
    assert replace(scored[0].results[1]).reward == 0.0


class Short:
    """One answer too few: nobody knows which completion it leaves out."""

    def score_group(self, group: RolloutGroup) -> list[RewardResult]:
        return [make_result(1.0)]

    def score(self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
        return [0.5]


def test_results_of_the_wrong_length_are_no_results():
    with pytest.raises(InfraFailure, match="gave 1 results for the 2 completions of task 'a'") as caught:
        RewardPool([Short()], RewardsConfig()).score([group("a")])
    assert "\n" not in str(caught.value)
    with pytest.raises(InfraFailure, match="reward model gave 1 scores for the 2 completions of task 'a'"):
        RewardPool([Worker()], RewardsConfig(), Short()).score([group("a")])
