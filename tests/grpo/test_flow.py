"""A flow of groups: steps take what is ready, nothing gets too old, nothing is lost. Every wait has an end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.errors import ConfigError, InfraFailure
from assay.metrics import undocumented
from assay.tokenizer import train_tokenizer
from assay.types import Completion, Message, RewardResult, RolloutGroup, ScoredGroup, Task
from grpo import loop
from grpo.config import GRPOConfig
from grpo.drawing import Ask, Drawn, Give
from grpo.flow import Flow
from grpo.record import RunRecord, lag_shares
from rewards.config import RewardsConfig
from rewards.pool import RewardPool
from rollouts.config import ProofConfig, SamplingConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool
from rollouts.tasks import TaskStream
from rollouts.weights import Probe, SyncReport, WeightBundle, publish
from tests.groups import make_result, make_scored, make_task
from tests.grpo.test_loop import FakeTrainer, rows, trained_on

DRAW = Sampling(temperature=1.0, max_tokens=8, samples=2)


class ByHand:
    """Engines and rewards whose every answer the test gives."""

    def __init__(self) -> None:
        self.ask: Ask
        self.give: Give
        self.lane: Future[None] = Future()

    def serve(self, ask: Ask, give: Give, sampling: Sampling) -> list[Future[None]]:
        self.ask, self.give = ask, give
        return [self.lane]

    def one(self, group: RolloutGroup) -> ScoredGroup:
        return ScoredGroup(group=group, results=tuple(make_result(float(i)) for i, _ in enumerate(group.completions)))


class Hands:
    """A flow driven by hand: `begin` as many prompts as may be begun, `finish` them, `take` steps in a thread."""

    def __init__(self, prompts: int, max_lag: int, steps: int = 9, cursor: int = 0, left: Sequence[int] = ()) -> None:
        self.config = GRPOConfig(steps=steps, prompts_per_step=prompts, group_size=2, max_lag=max_lag, flow=True)
        self.parts = ByHand()
        tasks = TaskStream([make_task(str(i)) for i in range(50)], 0, cursor=cursor, left=left)
        self.flow = Flow(self.config, DRAW, tasks, self.parts, self.parts, start=0)  # type: ignore[arg-type]
        self.threads = ThreadPoolExecutor(4)

    def take(self, step: int) -> Future[Drawn]:
        taking = self.threads.submit(self.flow.take, step)
        deadline = time.monotonic() + 5
        while not hasattr(self.parts, "give") and time.monotonic() < deadline:
            time.sleep(0.001)
        return taking

    def begin(self) -> list[int]:
        begun = []
        while self.flow._may_begin():
            asked = self.parts.ask()
            assert asked is not None
            begun.append(asked[0])
        return begun

    def finish(self, *places: int) -> None:
        for place in places:
            group = make_scored([0.0, 1.0], [2, 2]).group
            self.parts.give(place, group)
            deadline = time.monotonic() + 5
            while place in self.flow._due and place not in self.flow._ready and time.monotonic() < deadline:
                time.sleep(0.001)


def test_a_slow_prompt_goes_to_a_later_step_and_the_last_it_may_go_to_waits_for_it():
    hands = Hands(prompts=2, max_lag=1)
    first = hands.take(0)
    assert hands.begin() == [0, 1, 2, 3]  # (max_lag + 1) x prompts: back-pressure
    hands.finish(1, 2)
    drawn = first.result(5)
    assert (len(drawn.scored), drawn.cursor, drawn.left) == (2, 4, (0, 3))
    assert hands.begin() == []  # version 0 still: what is begun must be learned from in step 1, which is full
    second = hands.take(1)
    hands.flow.trained(1)
    assert hands.begin() == [4, 5]  # begun at version 1: for step 2 at the latest
    hands.finish(4, 5, 3)
    time.sleep(0.05)
    assert not second.done(), "the step went on without the group that may not be later"
    hands.finish(0)
    assert second.result(5).left == (4, 5)
    hands.flow.trained(2)
    third = hands.take(2)
    assert third.result(5).left == ()
    hands.flow.close()


def test_a_step_takes_no_later_group_where_an_earlier_one_would_lose_its_last_place():
    """N = 1, L = 1: two are due at step 1. Step 0 may take either; step 1 must take the other, whoever is ready."""
    hands = Hands(prompts=1, max_lag=1)
    first = hands.take(0)
    assert hands.begin() == [0, 1]
    hands.finish(1)
    assert first.result(5).left == (0,)
    hands.flow.trained(1)
    second = hands.take(1)
    assert hands.begin() == [2]
    hands.finish(2)
    time.sleep(0.05)
    assert not second.done()
    hands.finish(0)
    assert second.result(5).left == (2,)
    hands.flow.close()


def test_nothing_is_begun_that_no_step_is_left_for():
    hands = Hands(prompts=3, max_lag=4, steps=2)
    taking = hands.take(0)
    assert len(hands.begin()) == 6
    hands.finish(*range(6))
    taking.result(5)
    assert hands.take(1).result(5).left == ()
    assert hands.begin() == []
    hands.flow.close()


def test_what_was_begun_before_a_checkpoint_is_begun_first():
    hands = Hands(prompts=2, max_lag=1, cursor=5, left=(1, 3, 4))
    taking = hands.take(0)
    assert hands.begin() == [1, 3, 4, 5]
    hands.finish(5, 3)
    drawn = taking.result(5)
    assert (drawn.cursor, drawn.left) == (6, (1, 4))
    hands.flow.close()


def test_the_failure_of_an_engine_is_raised_where_the_step_is_taken():
    hands = Hands(prompts=2, max_lag=1)
    taking = hands.take(0)
    hands.parts.lane.set_exception(InfraFailure("an engine died"))
    with pytest.raises(InfraFailure, match="an engine died"):
        taking.result(5)
    assert hands.parts.ask() is None  # and nothing more is begun
    hands.flow.close()


def test_closing_lets_waiting_engines_go_and_who_waits_for_a_step():
    hands = Hands(prompts=1, max_lag=1)
    taking = hands.take(0)
    hands.begin()
    waiting = hands.threads.submit(hands.parts.ask)
    hands.flow.close()
    assert waiting.result(5) is None
    with pytest.raises(CancelledError):
        taking.result(5)


# -- the whole loop, with engines of uneven speed ------------------------------------------------------------------

PROBE = Probe(sequences=[[3, 4, 5]], expected=[[-1.0, -1.0]])
TASKS = [
    Task(id=str(i), messages=(Message(role="user", content="x" * (1 + i)),), verifier="function", answer={})
    for i in range(24)
]


class Uneven(FakeEngine):
    """Some prompts take long. Fails where weights change during a call."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, draw: [draw.randrange(3, 9) for _ in range(draw.randrange(1, 6))])
        self.inside, self.lock = 0, threading.Lock()

    def stream(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[tuple[int, list[Completion]]]:
        with self.lock:
            self.inside += 1
        held = self.version
        time.sleep(0.03 if len(prompts[0]) % 5 == 0 else 0.001)
        assert self.version == held
        yield from super().stream(prompts, sampling)
        with self.lock:
            self.inside -= 1

    def load_weights(self, bundle: WeightBundle) -> SyncReport:
        assert self.inside == 0, "weights change under a call"
        time.sleep(0.001)
        return super().load_weights(bundle)


class Worker:
    def score_group(self, group: RolloutGroup) -> list[RewardResult]:
        return [make_result(float(c.token_ids[0] % 2 == 0)) for c in group.completions]


class Flat(Worker):
    """Every third task teaches nothing, and the others do."""

    def score_group(self, group: RolloutGroup) -> list[RewardResult]:
        teaches = int(group.task.id) % 3
        return [make_result(float(bool(teaches) and i % 2 == 0)) for i, _ in enumerate(group.completions)]


CONFIG = GRPOConfig(steps=6, prompts_per_step=4, group_size=2, checkpoint_every=2, eval_every=0, max_lag=2, flow=True)


def start(
    folder: Path, config: GRPOConfig = CONFIG, *, resume: bool = False, stop_after: int | None = None,
    worker: Worker | None = None, engines: int = 3,
) -> int:  # fmt: skip
    pool = RolloutPool(
        [Uneven() for _ in range(engines)], train_tokenizer(["x"], vocab_size=300), ProofConfig(), room=4
    )
    trainer = FakeTrainer(FakeEngine(lambda prompt, draw: ()))
    record = RunRecord(folder, config.steps, keep_last=2, snapshot=trainer.snapshot, say=lambda line: None)
    first, cursor = 0, 0
    if resume:
        _, first, cursor = record.resume(trainer.restore, config.checkpoint_every)
    steps = iter(range(first, config.steps))
    parts = loop.Parts(
        tasks=TaskStream(TASKS, 0, cursor, record.left),
        rollouts=pool,
        rewards=RewardPool([worker or Worker(), worker or Worker()], RewardsConfig(reward="compiler")),
        trainer=trainer,
        sync=lambda: {"weights/probe_max_abs": pool.sync(publish({"a": torch.ones(2)}, trainer.version), PROBE)[1]},
    )
    done = loop.run(
        config, SamplingConfig(max_completion_tokens=8), parts, record, seed=1, start=first,
        stop=lambda: stop_after is not None and next(steps) >= stop_after,
    )  # fmt: skip
    if done < config.steps:
        record.checkpoint(done)
    record.close()
    return done


@pytest.mark.parametrize("max_lag", [1, 2, 5])
def test_every_prompt_is_learned_from_once_and_none_is_too_old(tmp_path: Path, max_lag: int):
    assert start(tmp_path, CONFIG.model_copy(update={"max_lag": max_lag})) == 6
    steps = trained_on(tmp_path)
    assert [len(step) for step in steps] == [4] * 6
    assert Counter(task for step in steps for task in step) == Counter(str(i) for i in range(24))
    found = rows(tmp_path)
    assert max(row["lag/max"] for row in found) <= max_lag
    for row in found:
        assert undocumented(row) == []
        assert sum(row[name] for name in row if name.startswith("lag/share")) == pytest.approx(1.0)


class Holding(Worker):
    """Judges the first task of the run only once a step was trained without it."""

    first = TaskStream(TASKS, 0).take(1)[0].id

    def __init__(self, folder: Path, within_s: float = 30.0) -> None:
        self.log, self.within_s = folder / "metrics.jsonl", within_s

    def score_group(self, group: RolloutGroup) -> list[RewardResult]:
        deadline = time.monotonic() + self.within_s
        while group.task.id == self.first and not (self.log.is_file() and self.log.read_text()):
            assert time.monotonic() < deadline, "the step waits for the slow group"
            time.sleep(0.005)
        return super().score_group(group)


def test_a_group_that_is_judged_late_is_learned_from_in_a_later_step(tmp_path: Path):
    start(tmp_path, worker=Holding(tmp_path))
    (step,) = [k for k, tasks in enumerate(trained_on(tmp_path)) if Holding.first in tasks]
    assert step in (1, 2)
    assert rows(tmp_path)[step]["lag/max"] == step  # begun at version 0


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_stopped_and_resumed_no_prompt_is_lost_or_learned_from_twice(tmp_path: Path, stop_after: int):
    assert start(tmp_path, stop_after=stop_after) == stop_after
    assert start(tmp_path, resume=True) == 6
    steps = trained_on(tmp_path)
    assert [len(step) for step in steps] == [4] * 6
    assert Counter(task for step in steps for task in step) == Counter(str(i) for i in range(24))
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_what_a_flow_had_begun_is_learned_from_where_the_run_goes_on_step_by_step(tmp_path: Path):
    start(tmp_path, stop_after=2)
    start(tmp_path, CONFIG.model_copy(update={"flow": False, "max_lag": 0}), resume=True)
    assert Counter(task for step in trained_on(tmp_path) for task in step) == Counter(str(i) for i in range(24))


def test_groups_that_teach_nothing_are_replaced_out_of_the_flow(tmp_path: Path):
    config = CONFIG.model_copy(update={"drop_zero_variance_groups": True, "max_generation_batches": 5})
    assert start(tmp_path, config, worker=Flat()) == 6
    found = rows(tmp_path)
    assert {row["groups/trained"] for row in found} == {4.0}
    assert max(row["lag/max"] for row in found) <= 2
    assert sum(row["groups/zero_variance"] for row in found) > 0


def test_the_share_of_tokens_by_age_counts_spans():
    scored = make_scored([1.0, 0.0], [4, 6])
    group = scored.group
    first, second = group.completions
    spanned = Completion(
        token_ids=second.token_ids, logprobs=second.logprobs, text="", finish_reason=second.finish_reason,
        policy_version=(0, 5), spans=((0, 1), (4, 2), (5, 3)),
    )  # fmt: skip
    aged = ScoredGroup(
        group=RolloutGroup(task=group.task, prompt_ids=group.prompt_ids, completions=(first, spanned)),
        results=scored.results,
    )
    version = 5
    shares = lag_shares([aged], version)
    before = version - first.policy_version[0]
    expected = Counter({5: 1, 1: 2, 0: 3}) + Counter({before: 4})
    assert shares["lag/share_0"] == pytest.approx(expected[0] / 10)
    assert shares["lag/share_1"] == pytest.approx(expected[1] / 10)
    assert shares["lag/share_4_up"] == pytest.approx(sum(n for lag, n in expected.items() if lag >= 4) / 10)
    with pytest.raises(ValueError, match="6 tokens but spans"):
        Completion(token_ids=second.token_ids, logprobs=second.logprobs, text="", finish_reason=second.finish_reason,
                   policy_version=(0, 5), spans=((0, 1),))  # fmt: skip


def test_a_flow_without_lag_or_queue_is_refused():
    from assay.commands.schema import RunConfig

    with pytest.raises(ValueError, match="flow lets slow groups go to a later step"):
        GRPOConfig(flow=True)
    settings: dict[str, Any] = {
        "run_dir": "x", "policy": {"path": "p"}, "tasks": {"train": {"path": "t"}}, "grpo": {"flow": True, "max_lag": 1}
    }  # fmt: skip
    with pytest.raises((ConfigError, ValueError), match="routing: queue"):
        RunConfig.model_validate(settings)
