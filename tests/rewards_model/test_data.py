"""Judged samples: no verdict is no label, and no task is on both sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from assay.errors import DataError
from rewards.model.data import Sample, read_samples, split_by_task, usable

ROW = {"prompt_ids": [1, 2], "completion_ids": [3], "passed": True, "task_id": "a", "source": "s"}


def sample(task: str, passed: bool | None, length: int = 3) -> Sample:
    return Sample(prompt_ids=(1,), completion_ids=(2,) * (length - 1), passed=passed, task_id=task)


def test_rows_are_read_with_and_without_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({**ROW, "passed": p}) for p in (True, False, None)))
    assert [s.passed for s in read_samples(path)] == [True, False, None]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("[", "not valid JSON"),
        ("3", "expected an object"),
        (json.dumps({**ROW, "passed": 1}), "passed is 1"),
        (json.dumps({k: v for k, v in ROW.items() if k != "passed"}), "passed is None; expected true"),
        (json.dumps({**ROW, "task_id": None}), "task_id is None"),
        (json.dumps({**ROW, "prompt_ids": "12"}), "prompt_ids must be a list"),
        (json.dumps({**ROW, "completion_ids": [1.5]}), "completion_ids must be a list"),
    ],
)
def test_a_malformed_row_names_file_and_line(tmp_path: Path, row: str, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{row}\n")
    with pytest.raises(DataError, match=complaint) as caught:
        read_samples(path)
    assert str(caught.value).startswith(f"{path}:2: ")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("")
    with pytest.raises(DataError, match="holds no samples"):
        read_samples(tmp_path / "empty")


def test_samples_without_a_verdict_are_left_out_and_counted() -> None:
    kept, counts = usable([sample("a", True), sample("a", None), sample("b", False, 50)], max_length=10)
    assert kept == [sample("a", True)]
    assert counts == {"left_out_infra": 1, "left_out_length": 1}


def test_no_task_is_on_both_sides() -> None:
    samples = [sample(f"t{i % 10}", i % 3 == 0) for i in range(60)]
    train, held = split_by_task(samples, 0.2, seed=0)
    assert len({s.task_id for s in held}) == 2 and len(train) + len(held) == 60
    assert not {s.task_id for s in train} & {s.task_id for s in held}
    assert split_by_task(samples, 0.2, seed=0)[1] == held


def test_a_problem_in_two_languages_is_on_one_side() -> None:
    samples = [
        replace(sample(f"{language}/{i % 10}", i % 3 == 0), family=str(i % 10)) for i in range(60) for language in "cp"
    ]
    train, held = split_by_task(samples, 0.2, seed=0)
    assert len({s.family for s in held}) == 2 and len({s.task_id for s in held}) == 4
    assert not {s.family for s in train} & {s.family for s in held}


def test_data_that_cannot_teach_is_refused() -> None:
    with pytest.raises(DataError, match="needs at least 2"):
        split_by_task([sample("a", True), sample("a", False)], 0.1, 0)
    with pytest.raises(DataError, match="training samples fails; there is nothing to tell apart"):
        split_by_task([sample("a", False), sample("b", False), sample("c", False)], 0.1, 0)
