"""One draw: groups are judged while others are drawn, and come out in the order of their tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from assay.errors import InfraFailure
from assay.types import RewardResult, RolloutGroup, Task, Verdict
from grpo.batch import build_batch, estimate_advantages
from grpo.config import GRPOConfig
from grpo.drawing import Drawing, Drawn
from grpo.record import describe
from rewards.config import RewardsConfig
from rewards.pool import RewardPool
from rollouts.config import SamplingConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.tasks import TaskStream
from tests.groups import make_result, make_task

TASKS = [make_task(str(i)) for i in range(6)]
CONFIG = GRPOConfig(steps=1, prompts_per_step=6, group_size=3, eval_every=0)


class Arriving:
    """Gives groups in an order of its own; before the last one it waits to be told."""

    def __init__(self, order: Sequence[int], judged: threading.Event | None = None) -> None:
        self.order, self.judged = order, judged
        self.engine = FakeEngine(lambda prompt, draw: [draw.randrange(3, 90) for _ in range(3)])

    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
        groups = self.engine.generate([[i] for i, _ in enumerate(tasks)], sampling)
        for i in self.order:
            if i == self.order[-1] and self.judged is not None:
                assert self.judged.wait(10), "nothing is judged before all is drawn"
            yield i, RolloutGroup(task=tasks[i], prompt_ids=(i,), completions=tuple(groups[i]))


class Worker:
    """A reward that depends on the tokens alone; says when it has given one."""

    def __init__(self) -> None:
        self.judged = threading.Event()

    def score_group(self, group: RolloutGroup) -> list[RewardResult]:
        self.judged.set()
        return [make_result(sum(c.token_ids) / 1000) for c in group.completions]


def draw(
    order: Sequence[int], *, overlap: bool = False
) -> tuple[list[tuple[str, list[float | None]]], dict[str, float]]:
    worker = Worker()
    drawing = Drawing(
        config=CONFIG,
        sampling=SamplingConfig(max_completion_tokens=8),
        tasks=TaskStream(TASKS, 0),
        rollouts=Arriving(order, worker.judged if overlap else None),
        rewards=RewardPool([worker], RewardsConfig(reward="compiler")),
        seed=1,
    )
    drawn = drawing.draw(0, lambda: None)
    return [(s.group.task.id, [r.reward for r in s.results]) for s in drawn.scored], drawn.seconds


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (2, 0, 5, 1, 4, 3)])
def test_groups_that_come_in_another_order_are_the_same_step(order: Sequence[int]):
    scored, seconds = draw(order)
    assert scored == draw(range(6))[0]
    assert [task for task, _ in scored] == [t.id for t in TaskStream(TASKS, 0).take(6)]
    assert set(seconds) == {"rollout", "reward"}


def test_a_group_is_judged_while_others_are_drawn():
    assert draw(range(6), overlap=True)[0] == draw(range(6))[0]


def test_engines_that_fail_half_way_leave_no_group_to_be_judged_for_nobody():
    worker, began = Worker(), threading.Event()

    def groups() -> Iterator[RolloutGroup]:
        arriving = Arriving(range(6)).stream(TASKS, Sampling(temperature=1.0, max_tokens=8, samples=3))
        yield from (group for _, group in arriving)
        raise InfraFailure("an engine died during generate")

    plain = worker.score_group
    judged: list[str] = []

    def slowly(group: RolloutGroup) -> list[RewardResult]:
        began.wait(10)
        judged.append(group.task.id)
        return plain(group)

    worker.score_group = slowly  # type: ignore[method-assign]
    with pytest.raises(InfraFailure, match="an engine died"):
        RewardPool([worker], RewardsConfig(reward="compiler")).score(groups())
    began.set()
    time.sleep(0.05)
    assert len(judged) <= 1


def refilled(rewards: Sequence[Sequence[float | None]], dies: bool = False) -> Drawn:
    """A step of two prompts whose groups get these rewards, in the order they are drawn; flat and failed ones are
    replaced. `dies`: the engine, in its second batch."""
    coming = iter(rewards)

    class Told:
        def score_group(self, group: RolloutGroup) -> list[RewardResult]:
            return [make_result(reward) for reward in next(coming)]

    class Batches(Arriving):
        calls = 0

        def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
            self.order, self.calls = range(len(tasks)), self.calls + 1
            if dies and self.calls == 2:
                raise InfraFailure("rollouts/0 died during generate")
            return super().stream(tasks, sampling)

    filling = {"prompts_per_step": 2, "group_size": 2, "drop_zero_variance_groups": True, "max_generation_batches": 3}
    drawing = Drawing(
        config=CONFIG.model_copy(update=filling),
        sampling=SamplingConfig(max_completion_tokens=8),
        tasks=TaskStream(TASKS, 0),
        rollouts=Batches(()),
        rewards=RewardPool([Told()], RewardsConfig(reward="compiler")),
        seed=1,
    )
    return drawing.draw(0, lambda: None)


def test_a_refill_that_the_harness_failed_on_is_replaced_and_counted():
    given = [[1.0, 1.0], [0.0, 1.0], [None, None], [1.0, 0.0]]
    drawn = refilled(given)
    assert [[r.reward for r in s.results] for s in drawn.scored] == given
    assert [s.group.task.id for s in drawn.scored] == [t.id for t in TaskStream(TASKS, 0).take(4)]
    assert drawn.batches == 3 and drawn.cursor == 4
    advantages = estimate_advantages(drawn.scored, CONFIG, 8)
    assert build_batch(drawn.scored, advantages, CONFIG, 8).counts["groups/masked_infra"] == 1
    assert describe(drawn.scored)["verdict/INFRA"] == 2 / 8


def test_a_first_batch_that_the_harness_failed_on_and_an_engine_that_is_lost_later_stop_the_run():
    with pytest.raises(InfraFailure, match="failed on all of 4 completions: box died"):
        refilled([[None, None], [None, None]])
    with pytest.raises(InfraFailure, match="rollouts/0 died during generate"):
        refilled([[1.0, 1.0], [0.0, 1.0]], dies=True)


def test_a_harness_that_fails_on_every_group_is_still_no_data():
    class Broken(Worker):
        def score_group(self, group: RolloutGroup) -> list[RewardResult]:
            return [RewardResult(verdict=Verdict.INFRA, reward=None, detail="no box") for _ in group.completions]

    arriving = Arriving(range(2)).stream(TASKS[:2], Sampling(temperature=1.0, max_tokens=8, samples=3))
    with pytest.raises(InfraFailure, match="failed on all of 6 completions: no box"):
        RewardPool([Broken()], RewardsConfig(reward="compiler")).score(group for _, group in arriving)
