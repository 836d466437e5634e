"""Reward functions in processes: typed, timed, concurrent, and never able to blame the completion for a failure."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from assay.errors import DataError
from assay.types import Message, RewardResult, Task, Verdict
from rewards.define import Terms, reward
from rewards.reward_check import as_group
from rewards.verifiers import math
from rewards.verifiers.custom import CustomVerifier
from rewards.verifiers.math import MathVerifier
from rollouts.config import TaskFile
from rollouts.tasks import read_tasks

SOURCE = """
import os, time
from rewards.define import reward

@reward(timeout_s=2, concurrency=2)
def brevity(prompt: str, completion: str, *, target: int) -> float | None:
    if completion == "crash": os._exit(3)
    if completion == "raise": raise ValueError("no")
    if completion == "hang": time.sleep(60)
    if completion == "nothing": return None
    if completion == "nan": return float("nan")
    return 1.0 if len(completion) <= target and prompt == "hi" else 0.0

@reward(timeout_s=5)
class Counted:
    def __init__(self):
        self.calls = 0
    def __call__(self, prompt: str, completion: str) -> float:
        self.calls += 1
        return float(self.calls)

@reward(timeout_s=10, concurrency=2)
def slow(prompt, completion):
    time.sleep(1)
    return os.getpid()
"""


def judged(tmp_path: Path, name: str, texts: list[str], **columns: object) -> list[RewardResult]:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    answer = {"function": f"{path}:{name}", "columns": columns}
    task = Task(id="t", messages=(Message(role="user", content="hi"),), verifier="custom", answer=answer)
    return CustomVerifier().judge_group(as_group(task, texts))


def test_each_completion_is_judged_alone_and_failures_are_never_its_fault(tmp_path: Path):
    texts = ["abc", "abcdef", "raise", "crash", "nothing", "nan", "hang", "ab"]
    results = judged(tmp_path, "brevity", texts, target=3)
    assert [r.reward for r in results] == [1.0, 0.0, None, None, None, None, None, 1.0]
    assert [r.verdict for r in results[2:7]] == [Verdict.INFRA] * 5
    assert "ValueError: no" in results[2].detail
    assert "no answer within 2 s" in results[6].detail


def test_a_class_is_made_once_per_process(tmp_path: Path):
    assert [r.reward for r in judged(tmp_path, "Counted", ["a", "b", "c"])] == [1.0, 2.0, 3.0]


def test_calls_run_side_by_side(tmp_path: Path):
    judged(tmp_path, "slow", ["start"])
    started = time.monotonic()
    processes = {r.reward for r in judged(tmp_path, "slow", ["a", "b", "c", "d"])}
    assert len(processes) == 2
    assert time.monotonic() - started < 3.5  # four seconds one after another


def test_a_process_killed_while_it_waits_takes_none_of_the_later_answers_with_it(tmp_path: Path):
    (first,) = judged(tmp_path, "slow", ["a"])
    assert first.reward is not None
    os.kill(int(first.reward), signal.SIGKILL)
    time.sleep(1)
    assert judged(tmp_path, "slow", ["c"])[0].reward is not None


def test_terms_and_names_are_checked(tmp_path: Path):
    with pytest.raises(ValueError, match="positive"):
        reward(timeout_s=0)
    task = Task(
        id="t", messages=(Message(role="user", content="hi"),), verifier="custom", answer={"function": "no-such-entry"}
    )
    with pytest.raises(DataError, match="neither path/to/file.py:function nor an entry point"):
        CustomVerifier().check_group(task)


@pytest.mark.parametrize("name", ["brief", "grouped"])
def test_an_entry_point_is_named_in_a_file_of_tasks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From an installed package: a folder on the path with its record of entry points."""
    (tmp_path / "assay_test_rewards.py").write_text(
        "from rewards.define import reward\n\n@reward(timeout_s=20)\ndef brief(prompt, completion): return 1.0\n\n"
        "def grouped(prompts, completions, **columns): return [1.0] * len(prompts)\n"
    )
    record = tmp_path / "assay_test_rewards-1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: assay-test-rewards\nVersion: 1\n")
    (record / "entry_points.txt").write_text(f"[assay.rewards]\ntest-{name} = assay_test_rewards:{name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "assay_test_rewards", raising=False)
    row = {"id": "t", "messages": [{"role": "user", "content": "hi"}], "verifier": "custom"}
    for function in (f"test-{name}", f"assay_test_rewards.py:{name}"):
        (tmp_path / "tasks.jsonl").write_text(json.dumps({**row, "answer": {"function": function}}) + "\n")
        (task,) = read_tasks(TaskFile(path=str(tmp_path / "tasks.jsonl")))
        assert [r.reward for r in CustomVerifier().judge_group(as_group(task, ["a", "b"]))] == [1.0, 1.0]


def math_task(answer: str) -> Task:
    return Task(id="m", messages=(Message(role="user", content="?"),), verifier="math", answer={"answer": answer})


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("\\frac{1}{2}", "So it is $\\boxed{0.5}$.", True),
        ("\\frac{1}{2}", "So it is $\\boxed{\\frac{2}{4}}$.", True),
        ("\\frac{1}{2}", "So it is $\\boxed{2}$.", False),
        ("so 6 * 7 = 42\n#### 1,042", "The answer is 1042.", True),
        ("#### 42", "It is 42 for most people, but here 41.", False),
        ("#### 33", "The answer is 33.3, which rounds down.\n#### 33", True),
        ("#### 1,033", "She answered 20 questions.\n#### $1,033 \n", True),
        ("#### 33", "The answer is 33.\n#### 34", False),
        ("#### 33", "The answer is 33.\n#### Good luck!", True),
        ("33", "The answer is 33.\n#### 34", True),
        ("Hence $a = \\boxed{-2}$ or $a = \\boxed{1}$.", "So $\\boxed{-2}$ and $\\boxed{1}$.", True),
        ("Hence $a = \\boxed{-2}$ or $a = \\boxed{1}$.", "So $\\boxed{1}$.", False),
        ("Hence $x^2 = 4$, and $\\boxed{\\frac12}$.", "$\\boxed{0.5}$", True),
        ("(1, 2)", "$\\boxed{(1,2)}$", True),
        ("x^2+1", "$\\boxed{1+x^2}$", True),
        ("7", "", False),
        ("7", "no number at all", False),
    ],
)
def test_final_answers_are_compared_as_mathematics(gold: str, text: str, right: bool):
    (result,) = MathVerifier().judge_group(as_group(math_task(gold), [text]))
    assert (result.verdict is Verdict.AC) == right
    assert result.reward == float(right)


def test_an_answer_that_cannot_be_evaluated_is_refused_and_the_next_is_judged():
    bomb = "$\\boxed{9^{9^{9^{9^{9}}}}}$"
    results = MathVerifier().judge_group(as_group(math_task("7"), [bomb, "$\\boxed{7}$"]))
    assert [r.reward for r in results] == [0.0, 1.0]


def test_processes_that_read_not_even_the_reference_are_no_verdict(monkeypatch: pytest.MonkeyPatch):
    """They are killed long before math-verify is imported: every one of them, whatever it is asked."""
    monkeypatch.setattr(math, "TERMS", Terms(timeout_s=0.02, concurrency=1))
    results = MathVerifier().judge_group(as_group(math_task("7"), ["$\\boxed{7}$", "$\\boxed{8}$"]))
    assert [(r.verdict, r.reward) for r in results] == [(Verdict.INFRA, None)] * 2
    assert "of the reference: no answer within" in results[0].detail


def test_a_reference_that_is_no_answer_is_refused():
    with pytest.raises(DataError, match="final answer"):
        MathVerifier().check_group(math_task(" "))
