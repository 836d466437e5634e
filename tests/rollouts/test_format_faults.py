"""Rows of published sets that lack what their format needs: refused in words that name the field, or read as meant."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from assay.errors import DataError
from rollouts.config import TaskFile
from rollouts.tasks import FORMATS, read_tasks

APPS = {"problem_id": 1, "question": "?"}
CONTEST = {"name": "n", "description": "?", "public_tests": {"input": ["1"], "output": ["1"]}}
LIVE = {"question_id": "q", "question_content": "?", "public_test_cases": [{"input": "1", "output": "1"}]}
CALLED = [{"input": "[1]", "output": "1", "testtype": "functional"}]
CRUX = {"code": "def f(x): return x", "input": "1", "id": "s"}
TESTS = base64.b64encode(b"import unittest\nfrom add import add\n").decode()
AIDER = {"content": "?", "canonical_solution": "", "labels": json.dumps({"task_id": "a"})}
PAIR = "class TestAdd(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(1, 1)\n"


@pytest.mark.parametrize(
    ("name", "row", "complaint"),
    [
        ("gsm8k", {"question": "?", "answer": None}, "answer is None"),
        ("gsm8k", {"question": "?", "answer": "It is three of them"}, "is no number"),
        ("math", {"problem": "?", "answer": None, "solution": "none"}, "boxes none"),
        ("math", {"problem": "?", "answer": ["3"]}, r"answer is \['3'\]"),
        ("cruxeval", {**CRUX, "output": 1}, "output is 1"),
        ("apps", {**APPS, "input_output": None}, "input_output is None"),
        ("apps", {**APPS, "input_output": ""}, "input_output is ''"),
        ("apps", {**APPS, "input_output": {"inputs": [], "outputs": []}}, "has no tests"),
        ("apps", {**APPS, "input_output": {"inputs": [], "outputs": [], "fn_name": "f"}}, "has no tests"),
        ("apps", {**APPS, "input_output": {"inputs": ["1"], "outputs": ["1", "2"]}}, "1 inputs and 2 outputs"),
        ("apps", {**APPS, "input_output": {"inputs": [3], "outputs": [3], "fn_name": "f"}}, "an input is 3"),
        ("apps", {**APPS, "input_output": {"inputs": ["a"], "outputs": ["3"], "fn_name": "f"}}, "'a' .* is no JSON"),
        ("code_contests", {**CONTEST, "public_tests": None}, "has no tests"),
        ("code_contests", {**CONTEST, "public_tests": {"input": ["1"]}}, "public_tests is"),
        ("code_contests", {**CONTEST, "time_limit": {"seconds": "2"}}, "time_limit is"),
        ("livecodebench", {**LIVE, "public_test_cases": CALLED}, "no func_name"),
        ("livecodebench", {**LIVE, "private_test_cases": "abc!!"}, "cannot be unpacked"),
        ("livecodebench", {**LIVE, "private_test_cases": base64.b64encode(b"abc").decode()}, "cannot be unpacked"),
        ("leetcode", {"task_id": 1, "prompt": "?", "test": "def check(f):\n    assert f(1) == 1"}, "no assertion"),
        ("aider", {**AIDER, "test": json.dumps({"asset": {"tests.py": TESTS}})}, "expected NAME_test.py"),
    ],
)
def test_a_row_without_what_it_needs_is_refused_by_the_name_of_the_field(
    name: str, row: dict[str, Any], complaint: str
):
    with pytest.raises(ValueError, match=complaint):
        FORMATS[name](row)


def test_other_ways_of_writing_a_row_mean_the_same():
    limits = ({"seconds": None, "nanos": None}, {"seconds": 2, "nanos": None}, 2.5, None)
    tasks = [FORMATS["code_contests"]({**CONTEST, "time_limit": limit}) for limit in limits]
    assert [task.answer.get("limits") for task in tasks] == [None, {"cpu_s": 2.0}, {"cpu_s": 2.5}, None]
    listed = FORMATS["code_contests"](
        {**CONTEST, "public_tests": [{"input": "1", "output": "1"}], "solutions": [{"language": 3, "solution": "x"}]}
    )
    assert listed.answer["tests"] == tasks[0].answer["tests"] and listed.reference == "```python\nx\n```"
    called = {"inputs": ["[1, 2]\n3"], "outputs": ["6"], "fn_name": "f"}
    assert FORMATS["apps"]({**APPS, "input_output": called}).answer["tests"] == ["assert f([1, 2], 3) == 6"]
    solved = FORMATS["math"]({"problem": "?", "answer": None, "solution": r"So $\boxed{3}$."})
    assert solved.answer == {"answer": r"So $\boxed{3}$."} and solved.reference == solved.answer["answer"]
    aider = FORMATS["aider"]({**AIDER, "test": {"asset": {"test_add.py": TESTS}}})
    assert aider.answer["module"] == "add"
    content = {"id": 0, "content": "def f():\n", "labels": {"entry_point": "f"}, "canonical_solution": "  return 1"}
    assert FORMATS["bigcodebench"]({**content, "test": PAIR}).answer["entry_point"] == "f"
    assert [FORMATS["gsm8k"]({"question": "?", "answer": a}).answer["answer"] for a in (18, "$1,018", "3/4")] == [
        *("18", "$1,018", "3/4")
    ]


def test_a_field_of_another_type_is_refused_with_the_row_and_the_format(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": 5, "answer": "3"}) + "\n", "utf-8")
    with pytest.raises(DataError, match=r"rows.jsonl.*1: a field is not what format 'gsm8k' has there"):
        read_tasks(TaskFile(path=str(path), format="gsm8k"))
