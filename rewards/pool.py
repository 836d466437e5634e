"""Several reward workers as one, with the learned reward model beside them.

A worker scores a group by its tests; the reward model scores the same completions at the same time; `mix.combine`
makes the reward the run asked for and keeps every part. Workers may be objects here or proxies of Ray actors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol

from assay.errors import InfraFailure
from assay.types import FinishReason, RewardResult, RolloutGroup, ScoredGroup, Verdict
from rewards.config import RewardsConfig
from rewards.mix import combine

RESTART_S = 2.0
Begun = tuple[RolloutGroup, Future[list[RewardResult]], Future[list[float | None]]]
"""A group with what the tests and the reward model will have said of it."""


class GroupScorer(Protocol):
    """What a reward worker answers: one result per completion. Never raises for the sample's own doing."""

    def score_group(self, group: RolloutGroup) -> list[RewardResult]: ...


class CompletionScorer(Protocol):
    """What the learned reward model answers: a probability of passing per completion."""

    def score(self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]: ...


class RewardPool:
    """`score` and `judge` over a fixed list of workers."""

    def __init__(
        self, workers: Sequence[GroupScorer], config: RewardsConfig, reward_model: CompletionScorer | None = None
    ) -> None:
        self._config, self.reward_model = config, reward_model
        self._idle: SimpleQueue[GroupScorer] = SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(max_workers=len(workers), thread_name_prefix="reward")
        self._rm_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reward-model")

    def score(self, groups: Iterable[RolloutGroup]) -> list[ScoredGroup]:
        """Every group with the rewards the run trains on, in order. Raises InfraFailure where none could be given."""
        return _something_earned(self.each(groups))

    def each(self, groups: Iterable[RolloutGroup]) -> list[ScoredGroup]:
        """As `score`, of few groups beside others: where the harness failed on all of them, their results say so.

        Judging a group begins when `groups` gives it, so groups that are still being drawn do not hold the others.
        """
        begun: list[Begun] = []
        try:
            for group in groups:
                begun.append(self._begin(group))
            return [self._end(one) for one in begun]
        finally:
            for _, tests, learned in begun:  # all are done, or nobody wants them any more
                tests.cancel()
                learned.cancel()

    def one(self, group: RolloutGroup) -> ScoredGroup:
        """As `each`, of one group alone."""
        return self._end(self._begin(group))

    def _begin(self, group: RolloutGroup) -> Begun:
        return group, self._threads.submit(self._by_tests, group), self._rm_thread.submit(self._by_model, group)

    def _end(self, begun: Begun) -> ScoredGroup:
        group, tests, learned = begun
        rewards = combine(tests.result(), learned.result(), self._config.reward, self._config.mix_weights)
        return ScoredGroup(group=group, results=tuple(rewards))

    def judge(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """Every group with its verdicts by the tests alone, whatever the run trains on: for evaluation and labels."""
        tests = [self._threads.submit(self._by_tests, group) for group in groups]
        scored = [ScoredGroup(group=g, results=tuple(t.result())) for g, t in zip(groups, tests, strict=True)]
        return _something_earned(scored)

    def _by_tests(self, group: RolloutGroup) -> list[RewardResult]:
        """Tried once more where the worker died; then the samples are masked, not zeroed.

        A worker that failed stays out for a moment: while it restarts it would fail one group after the other.
        """
        detail = ""
        for _ in range(2):
            worker = self._idle.get()
            try:
                return _given_up(group, worker.score_group(group))
            except InfraFailure as failure:
                detail = str(failure)
                time.sleep(RESTART_S)
            finally:
                self._idle.put(worker)
        return [RewardResult(verdict=Verdict.INFRA, reward=None, detail=detail) for _ in group.completions]

    def _by_model(self, group: RolloutGroup) -> list[float | None]:
        if self.reward_model is None:
            return [None] * len(group.completions)
        scores: list[float | None]
        try:
            scores = [*self.reward_model.score(group.prompt_ids, [c.token_ids for c in group.completions])]
        except InfraFailure:
            return [None] * len(group.completions)
        if len(scores) != len(group.completions):
            raise InfraFailure(
                f"the reward model gave {len(scores)} scores for the {len(group.completions)} completions of task "
                f"{group.task.id!r}: nobody knows which belongs to which"
            )
        return scores

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._rm_thread.shutdown(wait=False, cancel_futures=True)


def _given_up(group: RolloutGroup, results: list[RewardResult]) -> list[RewardResult]:
    """A completion the engine gave up is the engine's failure, whatever its stump was judged to be."""
    if len(results) != len(group.completions):
        raise InfraFailure(
            f"a reward worker gave {len(results)} results for the {len(group.completions)} completions of task "
            f"{group.task.id!r}"
        )
    aborted = RewardResult(verdict=Verdict.INFRA, reward=None, detail="the engine gave the completion up")
    return [
        aborted if completion.finish_reason is FinishReason.ABORT else result
        for completion, result in zip(group.completions, results, strict=True)
    ]


def _something_earned(scored: list[ScoredGroup]) -> list[ScoredGroup]:
    """A call in which the harness failed on everything is no data: it stops the run, with the first reason."""
    results = [result for group in scored for result in group.results]
    if results and all(result.verdict is Verdict.INFRA for result in results):
        detail = next((result.detail for result in results if result.detail), "no detail given")
        raise InfraFailure(f"the reward harness failed on all of {len(results)} completions: {detail}")
    return scored
