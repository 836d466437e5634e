"""The loop with fakes for every part: order, accounting, stopping, resuming; no model, no engine, no Ray."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from assay.checkpoint import latest_valid, step_folder
from assay.errors import CheckpointError, InfraFailure, TrainingDiverged
from assay.metrics import undocumented
from assay.stopping import Limit, Stopping
from assay.types import RolloutGroup, ScoredGroup, Task
from grpo import loop
from grpo.batch import TrainBatch, build_batch, estimate_advantages
from grpo.config import GRPOConfig
from grpo.filling import fill
from grpo.keeping import read_groups
from grpo.record import RunRecord
from rollouts.config import SamplingConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.tasks import TaskStream
from tests.groups import make_result, make_scored, make_task


class FakeRollouts:
    def __init__(self) -> None:
        self.engine = FakeEngine(lambda prompt, draw: [draw.randrange(3, 9) for _ in range(draw.randrange(1, 6))])
        self.seen: list[tuple[list[str], int]] = []

    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]:
        self.seen.append(([t.id for t in tasks], sampling.seed))
        made = self.engine.generate([[0, 5]] * len(tasks), sampling)
        return [RolloutGroup(task=t, prompt_ids=(0, 5), completions=tuple(c)) for t, c in zip(tasks, made, strict=True)]

    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
        """Backwards: whoever relies on the order of arrival is seen."""
        yield from reversed([*enumerate(self.generate(tasks, sampling))])


class FakeRewards:
    """1 for a completion that starts with an even token: something a policy could learn."""

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        return [
            ScoredGroup(group=g, results=tuple(make_result(float(c.token_ids[0] % 2 == 0)) for c in g.completions))
            for g in groups
        ]

    def each(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        return self.score(groups)


class FakeTrainer:
    """Its whole state is a number that depends on everything it was fed, in order."""

    def __init__(self, engine: FakeEngine) -> None:
        self.version, self.state, self.engine = 0, 0.0, engine
        self.mismatch = 0.0

    def step(self, batch: TrainBatch, phase: Callable[[str], AbstractContextManager[Any]]) -> dict[str, float]:
        with phase("update"):
            self.state = self.state * 0.9 + sum(
                a * sum(c) for a, c in zip(batch.advantages, batch.completions, strict=True)
            )
        self.version += 1
        return {"loss/total": self.state, "mismatch/k3": self.mismatch, "mismatch/max_abs_logratio": self.mismatch}

    def sync(self) -> dict[str, float]:
        self.engine.version = self.version
        return {"weights/probe_max_abs": 0.0}

    def save(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps([self.version, self.state]))

    def snapshot(self) -> Callable[[Path], None]:
        return copy(self).save

    def restore(self, folder: Path) -> None:
        self.version, self.state = json.loads((folder / "state.json").read_text())


CONFIG = GRPOConfig(steps=6, prompts_per_step=2, group_size=4, checkpoint_every=2, eval_every=0)
TASKS = [make_task(str(i)) for i in range(5)]


def start(
    folder: Path,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    config: GRPOConfig = CONFIG,
    rewards: FakeRewards | None = None,
    limit: Stopping | None = None,
):
    rollouts = FakeRollouts()
    trainer = FakeTrainer(rollouts.engine)
    record = RunRecord(
        folder,
        config.steps,
        keep_last=2,
        snapshot=trainer.snapshot,
        background=config.checkpoint_async,
        stop=limit,
        say=lambda line: None,
    )
    first, cursor = 0, 0
    if resume:
        checkpoint, first, cursor = record.resume()
        if checkpoint is not None:
            trainer.restore(checkpoint)
    parts = loop.Parts(
        tasks=TaskStream(TASKS, 0, cursor),
        rollouts=rollouts,
        rewards=rewards or FakeRewards(),
        trainer=trainer,
        sync=trainer.sync,
    )
    seen = rollouts.seen
    stop = (lambda: len(seen) >= stop_after) if stop_after is not None else (lambda: False)
    with record:
        done = loop.run(config, SamplingConfig(max_completion_tokens=8), parts, record, seed=1, start=first, stop=stop)
    return done, trainer, rollouts


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_prompt_is_taken_once_per_epoch_and_every_step_is_recorded(tmp_path: Path):
    done, _, rollouts = start(tmp_path)
    assert done == 6
    taken = [task for tasks, _ in rollouts.seen for task in tasks]
    assert sorted(taken[:5]) == sorted(taken[5:10]) == list("01234")
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert {row["lag/max"] for row in rows(tmp_path)} == {0.0}
    assert undocumented(rows(tmp_path)[0]) == []
    assert len(list((tmp_path / "samples").glob("*.parquet"))) == 6


@pytest.mark.parametrize("killed_after", [1, 2, 3, 5])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, killed_after: int):
    """The process dies between checkpoints: steps after the last one are done again, to the same result."""
    _, straight, all_rollouts = start(tmp_path / "straight")
    start(tmp_path / "cut", stop_after=killed_after)
    done, resumed, rest = start(tmp_path / "cut", resume=True)
    assert done == 6
    assert resumed.state == straight.state
    assert rest.seen == all_rollouts.seen[killed_after - killed_after % 2 :]
    timeless = [
        [{k: v for k, v in row.items() if not k.startswith(("time", "memory", "tokens/generated_per"))} for row in r]
        for r in (rows(tmp_path / "straight"), rows(tmp_path / "cut"))
    ]
    assert timeless[0] == timeless[1]


def test_a_disagreement_about_sampled_tokens_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeTrainer, "__init__", _mismatching(FakeTrainer.__init__))
    with pytest.raises(TrainingDiverged, match=r"step 1: engine and trainer disagree.*mean k3 3\.00e-01"):
        start(tmp_path)


def _mismatching(init: Callable[..., None]) -> Callable[..., None]:
    def wrapped(self: FakeTrainer, engine: FakeEngine) -> None:
        init(self, engine)
        self.mismatch = 0.3

    return wrapped


def test_a_full_disk_leaves_the_checkpoint_before_it_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = FakeTrainer.save
    calls = []

    def save(self: FakeTrainer, folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        plain(self, folder)

    monkeypatch.setattr(FakeTrainer, "save", save)
    with pytest.raises(CheckpointError, match="No space left on device.*earlier checkpoints are intact"):
        start(tmp_path)
    done, resumed, _ = start(tmp_path, resume=True)
    assert done == 6
    assert resumed.version == 6


def test_a_checkpoint_is_written_beside_the_next_step_from_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A write waits here until the step after it has begun; a trainer that waited for the write would wait for ever."""
    plain_save, plain_step, kept = FakeTrainer.save, FakeTrainer.step, dict[int, Any]()
    begun = {2: threading.Event(), 4: threading.Event()}  # the step after so many

    def save(self: FakeTrainer, folder: Path) -> None:
        assert self.version not in begun or begun[self.version].wait(20)
        plain_save(self, folder)
        kept[self.version] = self.state

    def step(self: FakeTrainer, *given: Any, **named: Any) -> dict[str, float]:
        if self.version in begun:
            assert self.version not in kept, "written before the next step began"
            begun[self.version].set()
        return plain_step(self, *given, **named)

    monkeypatch.setattr(FakeTrainer, "save", save)
    monkeypatch.setattr(FakeTrainer, "step", step)
    start(tmp_path / "beside")
    assert sorted(kept) == [2, 4, 6]
    monkeypatch.undo()
    then = {row["step"]: row["loss/total"] for row in rows(tmp_path / "beside")}
    assert kept == {step: then[step] for step in kept}
    timed = [row["step"] for row in rows(tmp_path / "beside") if "time/write_s" in row]
    assert timed and all(step > 2 for step in timed)
    start(tmp_path / "within", config=CONFIG.model_copy(update={"checkpoint_async": False}))
    assert {row["step"]: row["loss/total"] for row in rows(tmp_path / "within")} == then


def test_a_write_that_failed_beside_the_steps_stops_the_run_and_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = FakeTrainer.save

    def save(self: FakeTrainer, folder: Path) -> None:
        if self.version == 4:
            raise OSError(28, "No space left on device")
        plain(self, folder)

    monkeypatch.setattr(FakeTrainer, "save", save)
    with pytest.raises(CheckpointError, match="step-00000004: cannot be written.*earlier checkpoints are intact"):
        start(tmp_path)
    assert rows(tmp_path)[-1]["step"] in (5, 6)
    assert latest_valid(tmp_path / "checkpoints") == step_folder(tmp_path / "checkpoints", 2)


def test_whatever_ends_a_run_waits_for_the_checkpoint_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain_save, plain_step, free = FakeTrainer.save, FakeTrainer.step, threading.Event()

    def save(self: FakeTrainer, folder: Path) -> None:
        assert free.wait(20)
        plain_save(self, folder)

    def step(self: FakeTrainer, *given: Any, **named: Any) -> dict[str, float]:
        if self.version == 2:
            threading.Timer(0.1, free.set).start()
            raise KeyboardInterrupt
        return plain_step(self, *given, **named)

    monkeypatch.setattr(FakeTrainer, "save", save)
    monkeypatch.setattr(FakeTrainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    assert latest_valid(tmp_path / "checkpoints") == step_folder(tmp_path / "checkpoints", 2)


def test_under_a_limit_of_time_the_first_step_is_saved_too(tmp_path: Path):
    start(tmp_path / "limited", limit=Stopping(Limit(5.0, time.monotonic())), stop_after=1)
    assert latest_valid(tmp_path / "limited" / "checkpoints") == step_folder(tmp_path / "limited" / "checkpoints", 1)
    start(tmp_path / "free", stop_after=1)
    assert latest_valid(tmp_path / "free" / "checkpoints") is None


class OneOutcome(FakeRewards):
    """All right, all wrong or mixed, by the name of the task: 0 and 1 teach nothing."""

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        mixed = super().score(groups)
        return [
            replace(s, results=tuple(make_result(float(s.group.task.id)) for _ in s.results))
            if s.group.task.id in "01"
            else replace(s, results=tuple(make_result(float(i % 2)) for i, _ in enumerate(s.results)))
            for s in mixed
        ]


def filling(batches: int) -> GRPOConfig:
    return CONFIG.model_copy(
        update={"prompts_per_step": 3, "drop_zero_variance_groups": True, "max_generation_batches": batches}
    )


def test_flat_groups_are_replaced_until_the_step_is_full(tmp_path: Path):
    done, _, rollouts = start(tmp_path, config=filling(10), rewards=OneOutcome())
    assert done == 6
    assert {row["groups/trained"] for row in rows(tmp_path)} == {3.0}
    taken = [row["groups/trained"] + row["groups/zero_variance"] for row in rows(tmp_path)]
    assert sum(taken) == sum(len(tasks) for tasks, _ in rollouts.seen)
    assert sum(row["groups/generation_batches"] for row in rows(tmp_path)) == len(rollouts.seen) > 6
    assert len({seed for _, seed in rollouts.seen}) == len(rollouts.seen)  # no batch is drawn twice alike


def test_filling_ends_at_the_limit_and_trains_on_what_there_is(tmp_path: Path):
    start(tmp_path, config=filling(2), rewards=OneOutcome())
    assert max(row["groups/generation_batches"] for row in rows(tmp_path)) == 2
    assert min(row["groups/trained"] for row in rows(tmp_path)) < 3


def test_a_run_with_replaced_groups_is_taken_up_to_the_same_result(tmp_path: Path):
    _, straight, _ = start(tmp_path / "straight", config=filling(10), rewards=OneOutcome())
    start(tmp_path / "cut", stop_after=4, config=filling(10), rewards=OneOutcome())
    _, resumed, _ = start(tmp_path / "cut", resume=True, config=filling(10), rewards=OneOutcome())
    assert resumed.state == straight.state


class NotANumber(FakeRewards):
    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        first, *others = super().score(groups)
        bad = replace(first.results[0], reward=float("nan"))
        return [replace(first, results=(bad, *first.results[1:])), *others]


def test_a_reward_that_is_no_number_stops_the_run_and_keeps_the_batch(tmp_path: Path):
    with pytest.raises(
        TrainingDiverged, match=r"reward nan is not a finite number.*offending-step-00001\.jsonl"
    ) as seen:
        start(tmp_path, rewards=NotANumber())
    path = Path(str(seen.value).rpartition("the batch is in ")[2])
    kept = read_groups(path)
    assert [len(g.results) for g in kept] == [4, 4]
    with pytest.raises(TrainingDiverged, match="reward nan"):
        estimate_advantages(kept, CONFIG, 8)
    assert "\n" not in str(seen.value)
    assert rows(tmp_path) == []


def test_a_loss_that_is_no_number_keeps_a_batch_that_does_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fed: list[TrainBatch] = []

    def step(self: FakeTrainer, batch: TrainBatch, phase: Any) -> dict[str, float]:
        fed.append(batch)
        raise TrainingDiverged("the loss is nan (policy nan, KL 0.0); the optimizer did not step")

    monkeypatch.setattr(FakeTrainer, "step", step)
    with pytest.raises(TrainingDiverged, match="the loss is nan.*; the batch is in") as seen:
        start(tmp_path)
    kept = read_groups(Path(str(seen.value).rpartition("the batch is in ")[2]))
    assert build_batch(kept, estimate_advantages(kept, CONFIG, 8), CONFIG, 8) == fed[0]


def ahead(max_lag: int) -> GRPOConfig:
    return CONFIG.model_copy(update={"max_lag": max_lag})


def trained_on(folder: Path) -> list[list[str]]:
    """Task ids by step, in the order of the samples."""
    files = sorted((folder / "samples").glob("*.parquet"))
    return [list(dict.fromkeys(parquet.read_table(file)["task_id"].to_pylist())) for file in files]


class Dying(FakeRollouts):
    """Fails in the fifth draw, for good; asked to stop meanwhile, or not."""

    def __init__(self, stop: Stopping | None = None) -> None:
        super().__init__()
        self.stop = stop

    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
        if len(self.seen) == 4:
            if self.stop is not None:
                os.kill(os.getpid(), signal.SIGTERM)
            raise InfraFailure("rollouts/0 died during generate")
        yield from super().stream(tasks, sampling)


def on(folder: Path, rollouts: FakeRollouts, stop: Stopping, *, full: bool = False) -> int:
    """A run that would make its first checkpoint at step 50."""
    config, trainer = CONFIG.model_copy(update={"checkpoint_every": 50}), FakeTrainer(rollouts.engine)

    def snapshot() -> Callable[[Path], None]:
        if full:
            raise CheckpointError("cannot be written")
        return trainer.snapshot()

    said: list[str] = []
    record = RunRecord(folder, 6, keep_last=2, snapshot=snapshot, background=True, stop=stop, say=said.append)
    parts = loop.Parts(
        tasks=TaskStream(TASKS, 0), rollouts=rollouts, rewards=FakeRewards(), trainer=trainer, sync=trainer.sync
    )
    try:
        with record, stop:
            return loop.run(config, SamplingConfig(max_completion_tokens=8), parts, record, seed=1, stop=stop)
    finally:
        assert full == ("cannot be written" in said)


def test_what_fails_in_drawing_costs_no_step_that_was_trained(tmp_path: Path):
    with pytest.raises(InfraFailure, match="died during generate"):
        on(tmp_path, Dying(), Stopping())
    assert latest_valid(tmp_path / "checkpoints") == step_folder(tmp_path / "checkpoints", 4)
    start(tmp_path, resume=True)
    start(tmp_path / "quiet")
    found, quiet = ([row["loss/total"] for row in rows(folder)] for folder in (tmp_path, tmp_path / "quiet"))
    assert found == quiet and len(found) == 6


def test_a_failure_is_told_also_where_the_steps_before_it_cannot_be_saved(tmp_path: Path):
    with pytest.raises(InfraFailure, match="died during generate"):
        on(tmp_path, Dying(), Stopping(), full=True)


def test_asked_to_stop_together_with_its_engines_a_run_stops_after_the_step_before(tmp_path: Path):
    """SIGTERM goes to a whole group of processes where a scheduler sends it, to Ray's too."""
    stop = Stopping()
    assert on(tmp_path, Dying(stop), stop) == 4 and stop.asked


def test_engines_rest_from_the_end_of_a_draw_until_the_sync(tmp_path: Path):
    calls = list[str]()

    def noted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (calls.append(name), work(*args))[1]

    rollouts = FakeRollouts()
    trainer = FakeTrainer(rollouts.engine)
    record = RunRecord(tmp_path, 2, keep_last=2, snapshot=trainer.snapshot, say=lambda line: None)
    rollouts.generate, trainer.step = noted("draw", rollouts.generate), noted("step", trainer.step)  # type: ignore[method-assign]
    parts = loop.Parts(
        tasks=TaskStream(TASKS, 0, 0),
        rollouts=rollouts,
        rewards=FakeRewards(),
        trainer=trainer,
        sync=noted("sync", trainer.sync),
        rest=noted("rest", lambda: None),
    )
    loop.run(CONFIG.model_copy(update={"steps": 2}), SamplingConfig(max_completion_tokens=8), parts, record, seed=1)
    record.close()
    assert calls == ["sync", *["draw", "rest", "step", "sync"] * 2]


@pytest.mark.parametrize("max_lag", [1, 3])
def test_ahead_of_training_the_same_prompts_are_trained_in_the_same_steps(tmp_path: Path, max_lag: int):
    start(tmp_path / "behind")
    done, trainer, rollouts = start(tmp_path / "ahead", config=ahead(max_lag))
    assert done == trainer.version == 6
    assert trained_on(tmp_path / "ahead") == trained_on(tmp_path / "behind")
    assert len(rollouts.seen) == 6
    lags = [row["lag/max"] for row in rows(tmp_path / "ahead")]
    assert lags[0] == 0 and max(lags) <= max_lag


@pytest.mark.parametrize("max_lag", [0, 2])
def test_stopped_while_drawing_ahead_no_prompt_is_lost_or_trained_twice(tmp_path: Path, max_lag: int):
    start(tmp_path / "straight", config=ahead(max_lag))
    stopped, _, _ = start(tmp_path / "cut", config=ahead(max_lag), stop_after=3)
    assert stopped < 6
    done, trainer, _ = start(tmp_path / "cut", config=ahead(max_lag), resume=True)
    assert done == trainer.version == 6
    assert trained_on(tmp_path / "cut") == trained_on(tmp_path / "straight")
    assert [row["step"] for row in rows(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]


def test_replacing_flat_groups_and_drawing_ahead_go_together(tmp_path: Path):
    config = filling(10).model_copy(update={"max_lag": 2})
    done, _, rollouts = start(tmp_path, config=config, rewards=OneOutcome())
    assert done == 6
    assert {row["groups/trained"] for row in rows(tmp_path)} == {3.0}
    assert [row["lag/max"] <= 2 for row in rows(tmp_path)] == [True] * 6
    assert sum(row["groups/generation_batches"] for row in rows(tmp_path)) == len(rollouts.seen)


def test_a_group_the_harness_failed_on_is_replaced_too():
    given = [[make_scored([None, None], [1, 1]), make_scored([1.0, 0.0], [1, 1])], [make_scored([0.0, 1.0], [1, 1])]]
    asked: list[tuple[int, int]] = []
    scored: list[ScoredGroup] = []
    config = filling(5).model_copy(update={"prompts_per_step": 2})
    assert fill(scored, lambda prompts, again: asked.append((prompts, again)) or given[again], config) == 2
    assert asked == [(2, 0), (1, 1)]
    assert len(scored) == 3


@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_in_drawing_stops_the_run_in_whichever_batch(failing: int):
    """Failed groups are data, and come in `draw`'s answer (`test_drawing`); what it raises is no group's."""

    def draw(prompts: int, again: int) -> list[ScoredGroup]:
        if again == failing:
            raise InfraFailure("an engine died during generate")
        return [make_scored([1.0, float(again == 0)], [1, 1])]  # the first is flat

    with pytest.raises(InfraFailure, match="an engine died"):
        fill([], draw, filling(5).model_copy(update={"prompts_per_step": 1}))
