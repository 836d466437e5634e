import json
from pathlib import Path

import pytest

from assay.errors import DataError
from rollouts.config import TaskFile
from rollouts.tasks import TaskStream, read_tasks, to_row
from tests.groups import make_task

ROW = {"id": "a", "messages": [{"role": "user", "content": "hi"}], "verifier": "function", "answer": {"tests": [1]}}


def write(path: Path, *lines: object) -> TaskFile:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return TaskFile(path=str(path))


def test_rows_round_trip(tmp_path: Path):
    task = read_tasks(write(tmp_path / "t.jsonl", ROW))[0]
    assert read_tasks(write(tmp_path / "again.jsonl", to_row(task))) == [task]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ((ROW, "{broken"), r"t\.jsonl:2: not valid JSON"),
        ((ROW, "[1]"), r"t\.jsonl:2: a list, expected an object"),
        (({**ROW, "answer": {"tests": []}},), r"t\.jsonl:1: task 'a' has no tests"),
        ((ROW, ROW), r"t\.jsonl:2: task id 'a' stands at .*t\.jsonl:1"),
        (({k: v for k, v in ROW.items() if k != "verifier"},), r"t\.jsonl:1: no field 'verifier'"),
        (({**ROW, "answer": "42"},), r"t\.jsonl:1: answer is '42', expected an object"),
        (({**ROW, "messages": "hi"},), r"t\.jsonl:1: messages is 'hi', expected a list"),
        (({**ROW, "messages": [{"role": "user", "content": None}]},), r"t\.jsonl:1: content is None, expected text"),
        (({**ROW, "messages": [{"role": "robot", "content": "x"}]},), r"t\.jsonl:1: role 'robot'"),
        (({**ROW, "reference": 5},), r"t\.jsonl:1: reference is 5, expected text"),
        (({**ROW, "verifier": ["x"]},), r"t\.jsonl:1: verifier is \['x'\], expected text"),
        (({**ROW, "messages": []},), r"t\.jsonl:1: task 'a' has no messages"),
        (({**ROW, "messages": [{"role": "assistant", "content": "x"}]},), r"must end with a user message"),
        ((ROW, {**ROW, "id": "b\ud83d"}), r"t\.jsonl:2: id holds '\\ud83d', half of a pair of surrogates"),
        (({**ROW, "source": "\ude00"},), r"t\.jsonl:1: source holds '\\ude00'"),
        (({**ROW, "family": "\ude00"},), r"t\.jsonl:1: family holds '\\ude00'"),
        (({**ROW, "messages": [{"role": "user", "content": "a \ud83d"}]},), r"t\.jsonl:1: content holds '\\ud83d'"),
        ((), r"holds no tasks"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, lines: tuple, complaint: str):
    with pytest.raises(DataError, match=complaint):
        read_tasks(write(tmp_path / "t.jsonl", *lines))


def test_a_missing_file_is_one_line(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere.jsonl: cannot be read"):
        read_tasks(TaskFile(path=str(tmp_path / "nowhere.jsonl")))


@pytest.mark.parametrize("names", [("text", "test_list"), ("prompt", "test")])
def test_mbpp_rows_become_tasks(tmp_path: Path, names: tuple[str, str]):
    text, tests = names
    row = {"task_id": 2, text: "Write f.", "code": "def f(): return 1", tests: ["assert f() == 1"]}
    file = TaskFile(path=write(tmp_path / "m.jsonl", row).path, format="mbpp")
    task = read_tasks(file)[0]
    assert task.verifier == "asserts"
    assert task.answer["tests"] == ["assert f() == 1"]
    assert task.messages[0].content.startswith("Write f. ")
    assert "assert f() == 1" in task.messages[0].content


def test_the_wording_goes_around_the_last_message(tmp_path: Path):
    file = write(tmp_path / "t.jsonl", ROW).model_copy(update={"prompt": "In Python: {prompt} Go."})
    assert read_tasks(file)[0].messages[-1].content == "In Python: hi Go."
    with pytest.raises(ValueError, match="lacks {prompt}"):
        TaskFile(path="t.jsonl", prompt="In Python.")


def test_every_epoch_is_a_permutation_and_a_cursor_resumes_it():
    tasks = [make_task(str(i)) for i in range(5)]
    stream = TaskStream(tasks, seed=3)
    taken = [t.id for t in stream.take(15)]
    for epoch in range(3):
        assert sorted(taken[5 * epoch : 5 * epoch + 5]) == list("01234")
    assert taken[:5] != taken[5:10]
    again = TaskStream(tasks, seed=3, cursor=7)
    assert [t.id for t in again.take(8)] == taken[7:15]
    assert [t.id for t in TaskStream(tasks, seed=4).take(15)] != taken
