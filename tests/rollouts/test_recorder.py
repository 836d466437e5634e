import json

import pytest

from assay.errors import DataError
from assay.types import (
    Completion,
    FinishReason,
    Message,
    RewardResult,
    RolloutGroup,
    ScoredGroup,
    Task,
    TestVerdict,
    Verdict,
)
from rollouts.recorder import COLUMNS, SampleRecorder, read_samples, recorded_steps


def scored_group(name="t1"):
    task = Task(id=name, messages=(Message(role="user", content="add"),), verifier="python", answer={}, source="mbpp")
    said = [
        Completion(token_ids=(1, 2, 3), logprobs=(-0.5, -0.25, -2.0), text="```x```", finish_reason=FinishReason.STOP,
                   policy_version=(3, 4)),
        Completion(token_ids=(1,), logprobs=(-0.1,), text="odd \ud800", finish_reason=FinishReason.LENGTH,
                   policy_version=(4, 4)),
    ]  # fmt: skip
    judged = (
        RewardResult(verdict=Verdict.WA, reward=0.25, parts={"compiler": 0.5, "rm": 0.1, "style": 1.0}, program="x",
                     tests=(TestVerdict(verdict=Verdict.AC), TestVerdict(verdict=Verdict.WA)), detail="no",
                     isolation="fake", seconds=0.5),
        RewardResult(verdict=Verdict.INFRA, reward=None),
    )  # fmt: skip
    return ScoredGroup(group=RolloutGroup(task=task, prompt_ids=(9,), completions=tuple(said)), results=judged)


def test_a_step_reads_back_as_written(tmp_path):
    recorder = SampleRecorder(tmp_path / "samples")
    path = recorder.write(12, [scored_group()], [[-1.5, None]], ["User: add"], [[0.01, None]])
    assert path == tmp_path / "samples/step-00012.parquet"
    first, second = read_samples(tmp_path / "samples")
    assert list(first) == list(COLUMNS)
    assert json.loads(first.pop("parts")) == {"compiler": 0.5, "rm": 0.1, "style": 1.0}
    assert first == {
        "step": 12, "task_id": "t1", "source": "mbpp", "prompt": "User: add", "index": 0, "completion": "```x```",
        "prompt_ids": [9], "messages_digest": "74fd70e3ca9decc4",
        "program": "x", "verdict": "WA", "tests": ["AC", "WA"], "reward": 0.25, "reward_compiler": 0.5,
        "reward_rm": 0.1, "advantage": -1.5, "tokens": 3,
        "token_ids": [1, 2, 3], "logprobs": [-0.5, -0.25, -2.0], "finish_reason": "stop", "policy_version_min": 3,
        "policy_version_max": 4, "mismatch_max": 0.01, "isolation": "fake", "detail": "no", "seconds": 0.5,
    }  # fmt: skip
    assert second["reward"] is None and second["advantage"] is None and second["verdict"] == "INFRA"
    assert second["completion"] == "odd ?" and second["tests"] == [] and second["index"] == 1


def test_steps_are_replaced_and_removed_and_no_temporary_file_stays(tmp_path):
    recorder = SampleRecorder(tmp_path)
    assert recorded_steps(tmp_path / "none") == [] and read_samples(tmp_path / "none") == []
    for step in (1, 2, 3, 3):
        recorder.write(step, [scored_group("a"), scored_group("b")], [[0.0, 0.0]] * 2, ["p", "q"])
    assert recorded_steps(tmp_path) == [1, 2, 3]
    assert [row["task_id"] for row in read_samples(tmp_path, steps=[2])] == ["a", "a", "b", "b"]
    assert recorder.remove_after(1) == [2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00001.parquet"]


def test_a_step_without_groups_is_a_file_without_rows(tmp_path):
    SampleRecorder(tmp_path).write(0, [], [], [])
    assert recorded_steps(tmp_path) == [0] and read_samples(tmp_path) == []


def test_lengths_that_differ_are_refused(tmp_path):
    recorder = SampleRecorder(tmp_path)
    with pytest.raises(DataError, match="1 scored, 1 advantages, 2 prompts"):
        recorder.write(0, [scored_group()], [[0.0, 0.0]], ["p", "q"])
    with pytest.raises(DataError, match="task 't1': 2 completions, 1 advantages"):
        recorder.write(0, [scored_group()], [[0.0]], ["p"])
    assert recorded_steps(tmp_path) == []
