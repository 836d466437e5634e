"""What was recorded comes back as it was sampled, for the same tasks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from assay.errors import DataError
from assay.tokenizer import train_tokenizer
from assay.types import Message, RewardResult, RolloutGroup, RoutedExperts, ScoredGroup, Task, Verdict
from rollouts.config import ProofConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool
from rollouts.recorder import SampleRecorder, has_experts
from rollouts.replay import Replay

DRAW = Sampling(temperature=1.0, max_tokens=6, samples=3)
TOKENIZER = train_tokenizer(["plus minus times"], vocab_size=300)
TASKS = [
    Task(id=str(i), messages=(Message(role="user", content="x" * i),), verifier="function", answer={}) for i in range(4)
]
BY_ID = {task.id: task for task in TASKS}


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, list[RolloutGroup]]:
    engine = FakeEngine(lambda prompt, draw: [draw.randrange(6, 270) for _ in range(draw.randrange(1, 9))], -0.1)
    groups = RolloutPool([engine], TOKENIZER, ProofConfig()).generate(TASKS, DRAW)
    recorder = SampleRecorder(tmp_path / "samples")
    for step, some in ((1, groups[:1]), (2, groups[1:])):
        write(recorder, step, some)
    return tmp_path / "samples", groups


def write(recorder: SampleRecorder, step: int, groups: list[RolloutGroup]) -> None:
    judged = (RewardResult(verdict=Verdict.AC, reward=1.0),) * 3
    scored = [ScoredGroup(group=group, results=judged) for group in groups]
    recorder.write(step, scored, [[0.0] * 3] * len(scored), [g.task.messages[-1].content for g in groups])


def test_groups_come_back_step_by_step_as_they_were_sampled(recorded: tuple[Path, list[RolloutGroup]]):
    folder, groups = recorded
    replay = Replay(TOKENIZER, folder)
    assert replay.steps == [1, 2]
    last = replay.step(2, BY_ID)  # whichever is asked for, and as many as it held
    assert len(last) == 3
    again = [*replay.step(1, BY_ID), *last]
    for then, now in zip(groups, again, strict=True):
        assert (now.task, now.prompt_ids) == (then.task, then.prompt_ids)
        for a, b in zip(then.completions, now.completions, strict=True):
            assert (b.token_ids, b.text, b.finish_reason) == (a.token_ids, a.text, a.finish_reason)
            assert b.policy_version == a.policy_version
            assert b.logprobs == pytest.approx(a.logprobs, abs=1e-7)


def test_the_experts_an_engine_chose_come_back_and_take_no_column_where_it_told_none(
    tmp_path: Path, recorded: tuple[Path, list[RolloutGroup]]
):
    def route(tokens: Sequence[int]) -> RoutedExperts | None:
        """Of three layers with two experts per token, in one byte or two; none for some."""
        count, wide = len(tokens) - 1, len(tokens) % 2
        ids = bytes(i % 7 for i in range(count * 3 * 2 * (1 + wide)))
        return RoutedExperts(shape=(count, 3, 2), ids=ids) if count % 4 else None

    engine = FakeEngine(lambda prompt, draw: [9] * draw.randrange(1, 6), route=route)
    groups = RolloutPool([engine], TOKENIZER, ProofConfig()).generate(TASKS, DRAW)
    write(SampleRecorder(tmp_path / "routed"), 1, groups)
    again = Replay(TOKENIZER, tmp_path / "routed").step(1, BY_ID)
    then, now = ([c.experts for g in some for c in g.completions] for some in (groups, again))
    assert now == then and None in then and len({len(e.ids) for e in then if e is not None}) > 2
    assert has_experts(tmp_path / "routed", 1) and not has_experts(recorded[0], 1)


def test_versions_within_a_completion_come_back_and_take_no_column_where_there_was_one(
    tmp_path: Path, recorded: tuple[Path, list[RolloutGroup]]
):
    folder, groups = recorded
    first, *others = groups[0].completions
    told = replace(first, policy_version=(3, 5), spans=((3, 0), (5, len(first.token_ids))))
    write(SampleRecorder(tmp_path / "spans"), 1, [replace(groups[0], completions=(told, *others))])
    (again,) = Replay(TOKENIZER, tmp_path / "spans").step(1, BY_ID)
    assert [(c.policy_version, c.spans) for c in again.completions] == [
        ((3, 5), told.spans), *((c.policy_version, ()) for c in others)
    ]  # fmt: skip
    assert "spans" not in pq.read_schema(folder / "step-00001.parquet").names


def test_a_task_twice_in_a_step_is_two_groups(tmp_path: Path, recorded: tuple[Path, list[RolloutGroup]]):
    groups = [recorded[1][k] for k in (3, 3, 0)]
    write(SampleRecorder(tmp_path / "twice"), 1, groups)
    again = Replay(TOKENIZER, tmp_path / "twice").step(1, BY_ID)
    assert [(g.task.id, len(g.completions)) for g in again] == [("3", 3), ("3", 3), ("0", 3)]


def test_other_tasks_other_prompts_and_more_steps_are_refused(recorded: tuple[Path, list[RolloutGroup]]):
    folder, _ = recorded
    replay = Replay(TOKENIZER, folder)
    with pytest.raises(DataError, match=r"step 1 holds '0', which this configuration does not train on; replay needs"):
        replay.step(1, {task.id: task for task in TASKS[1:]})
    other = replace(TASKS[0], messages=TASKS[1].messages)
    with pytest.raises(DataError, match="step 1 answers another prompt of '0' than this configuration has; replay"):
        replay.step(1, {**BY_ID, "0": other})
    ordered = replace(TASKS[0], messages=(Message(role="system", content="In Rust."), *TASKS[0].messages))
    with pytest.raises(
        DataError, match="step 1 answers '0' behind another system message or other turns than this con"
    ):
        replay.step(1, {**BY_ID, "0": ordered})
    assert replay.step(1, {**BY_ID, "0": replace(TASKS[0], answer={"tests": []})})[0].task.answer == {"tests": []}
    with pytest.raises(DataError, match="nothing recorded of step 3"):
        replay.step(3, BY_ID)
    with pytest.raises(DataError, match="no recorded samples"):
        Replay(TOKENIZER, folder / "none")


def test_the_prompt_is_what_it_was_though_the_template_says_another_date(recorded: tuple[Path, list[RolloutGroup]]):
    folder, groups = recorded
    other = train_tokenizer(["plus minus times"], vocab_size=300)
    other.chat_template = "Today is Monday. " + TOKENIZER.chat_template
    assert Replay(other, folder).prompt_ids(TASKS[0]) != groups[0].prompt_ids
    assert Replay(other, folder).step(1, BY_ID)[0].prompt_ids == groups[0].prompt_ids


def test_samples_of_an_earlier_version_are_taken_without_what_they_lack(recorded: tuple[Path, list[RolloutGroup]]):
    folder, groups = recorded
    path = folder / "step-00001.parquet"
    pq.write_table(pq.read_table(path).drop(["prompt_ids", "messages_digest"]), path)
    assert Replay(TOKENIZER, folder).step(1, BY_ID)[0].prompt_ids == groups[0].prompt_ids


def test_samples_of_an_earlier_version_lack_the_tokens(recorded: tuple[Path, list[RolloutGroup]]):
    folder, _ = recorded
    path = folder / "step-00001.parquet"
    pq.write_table(pq.read_table(path).drop(["logprobs"]), path)
    with pytest.raises(DataError, match="recorded without tokens and log-probabilities"):
        Replay(TOKENIZER, folder).step(1, BY_ID)
