"""`assay reward check`: it must notice rewards and tests that lie."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from assay.types import Message, Task
from rewards.check_tasks import check_tasks
from rewards.config import RewardsConfig
from rewards.reward_check import TAMPERING, answers_to, changed, check_reward, quantile
from rewards.scorer import Scorer

pytestmark = pytest.mark.sandbox
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    made = Scorer(RewardsConfig())
    yield made
    made.close()


def solved(task: Task, reference: str) -> Task:
    return Task(id=task.id, messages=task.messages, verifier=task.verifier, answer=task.answer, reference=reference)


PYTHON = "```python\ndef f(x):\n    return x * 2 + 1\n```"
C = "```c\nint f(int x) { return x * 2 + 1; }\n```"


@pytest.mark.parametrize(("language", "reference"), [("python", PYTHON), ("c", C)])
def test_a_good_task_accepts_its_reference_alone(function_task, scorer: Scorer, language: str, reference: str):
    task = solved(function_task(language, {"x": "int"}, "int", [([1], 3), ([5], 11), ([0], 1)]), reference)
    report = check_reward([task], scorer)
    assert report.ok, str(report)
    assert report.table["gold", "accepted"] == 1
    assert report.table["tampering", "refused"] == len(TAMPERING[language])
    assert report.table["wrong", "refused"] >= 2
    assert report.table["empty", "refused"] == 2
    assert "isolation: local:" in str(report)


def test_weak_tests_and_a_wrong_reference_are_named(function_task, scorer: Scorer):
    asked = function_task("python", {"x": "int"}, "int", [([1], 1)])
    weak = solved(asked, "```python\ndef f(x):\n    return x <= 2\n```")
    report = check_reward([weak], scorer)
    assert not report.ok and "the reference is refused" in str(report)  # True is no int
    same = "```python\ndef f(x):\n    if x >= 99:\n        return 5\n    return 5\n```"
    blind = solved(function_task("python", {"x": "int"}, "int", [([1], 5)]), same)
    report = check_reward([blind], scorer)
    assert "none of" in str(report) and "too weak" in str(report)


def test_a_reward_that_anything_satisfies_is_caught(tmp_path: Path, scorer: Scorer):
    (tmp_path / "kind.py").write_text("def kind(prompts, completions, **columns):\n    return [1.0] * len(prompts)\n")
    row = {"id": "k", "messages": [{"role": "user", "content": "hi"}], "verifier": "custom",
           "answer": {"function": "kind.py:kind"}, "reference": "yes + no"}  # fmt: skip
    (tmp_path / "tasks.jsonl").write_text(json.dumps(row) + "\n")
    command = [sys.executable, "-m", "assay.cli", "reward", "check", str(tmp_path / "tasks.jsonl")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "k: accepted, though empty" in done.stdout


@pytest.mark.parametrize("name", ["javascript", "py", "ruby"])
def test_tests_that_ask_for_nothing_are_caught(name: str, scorer: Scorer):
    text = {"javascript": "console.assert(1 === 1)", "py": "assert 1 == 1", "ruby": "raise unless 1 == 1"}[name]
    answer = {"language": name, "tests": [text]}
    task = Task(id="t", messages=(Message(role="user", content="?"),), verifier="unit_tests", answer=answer)
    assert "an empty program should fail: AC" in str(check_tasks([task], scorer))
    assert "t: accepted, though empty" in str(check_reward([task], scorer))
    whole = replace(task, verifier="stdio", answer={"language": name, "tests": [{"input": "", "output": "5\n"}]})
    assert check_tasks([whole], scorer).ok


def test_programs_that_do_nothing_are_whole_where_programs_are_run():
    def asked(verifier: str) -> str:
        task = Task(
            id="t", messages=(Message(role="user", content="?"),), verifier=verifier, answer={"language": "c++"}
        )
        return answers_to(task)[1].text

    assert asked("stdio") == asked("checker") == "```cpp\nint main() {}\n```"
    assert asked("unit_tests") == "```cpp\n// nothing\n```"


def test_the_example_outside_code(scorer: Scorer):
    command = [sys.executable, "-m", "assay.cli", "reward", "check", "examples/sql/tasks.jsonl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_changes_are_few_different_and_never_the_reference():
    texts = changed(PYTHON)
    assert 2 <= len(texts) <= 4
    assert len(set(texts)) == len(texts) and PYTHON not in texts


def test_a_task_without_a_reference_is_still_attacked(function_task):
    kinds = [answer.kind for answer in answers_to(function_task("python", {"x": "int"}, "int", [([1], 3), ([2], 4)]))]
    assert "gold" not in kinds and "constant" in kinds and kinds.count("tampering") == len(TAMPERING["python"])
    aliased = answers_to(function_task("py", {"x": "int"}, "int", [([1], 3), ([2], 4)]))
    assert aliased == answers_to(function_task("python", {"x": "int"}, "int", [([1], 3), ([2], 4)]))


def test_quantiles_are_nearest_rank():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([], 0.99) == 0.0
