"""Verifier "literal": values that were written down, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.errors import DataError
from assay.types import Message, Task, Verdict
from rewards.define import Terms
from rewards.reward_check import as_group
from rewards.verifiers import literal
from rewards.verifiers.literal import LiteralVerifier


def value_task(answer: object) -> Task:
    return Task(id="v", messages=(Message(role="user", content="?"),), verifier="literal", answer={"answer": answer})


@pytest.mark.parametrize(
    ("expected", "text", "right"),
    [
        ("[(4, 1), (2, 3)]", "First it counts.\n```python\n[(4, 1), (2, 3)]\n```\nSo that is it.", True),
        ("[(4, 1)]", "```python\n[[4, 1]]\n```", False),
        ("'a b'", '```\n"a b"\n```', True),
        ("'ab'", "[THOUGHT]it joins[/THOUGHT]\n[ANSWER]\nassert f(['a', 'b']) == 'ab'\n[/ANSWER]", True),
        ("'ab'", "[ANSWER]'ab'[/ANSWER] or rather [ANSWER]'ba'[/ANSWER]", False),
        ("{1: None, 2: None}", "It returns\n\n{2: None, 1: None}\n", True),
        ("5", "It returns 5", False),
        ("True", "```\n1\n```", False),
        ("{'a': [True]}", "```\n{'a': [1]}\n```", False),
        ("2", "```\n2.0\n```", True),
        ("'ab'", "```python\ndef f(x): return ''.join(x)\nf(['a', 'b'])\n```", False),
        ("'ab'", "```python\n''.join(['a', 'b'])\n```", False),
        ("4", "```python\n2 + 2\n```", False),
        ("4", "```python\nassert f(4) >= 4\n```", False),
        ("4", "", False),
        ("[(4, 1)]", "It counts.\n`[(4, 1)]`", True),
        ("[(4, 1)]", "**[(4, 1)]**", True),
        ("[(4, 1)]", "So, the final answer is **`[(4, 1)]`**.", True),
        ("[(4, 1)]", "The answer is: [(4, 1)]", True),
        ("[(4, 1)]", "**Output:** [(4, 1)]", True),
        ("[(4, 1)]", "Output: `[(4, 1)]`", True),
        ("[(4, 1)]", "```python\nresult = [(4, 1)]\n```", True),
        ("[(4, 1)]", "[ANSWER]f(3) == [(4, 1)][/ANSWER]", True),
        ("'ab'", "```python\ndef f(x): return x\n```\nIt is run.\n[ANSWER]\n'ab'\n[/ANSWER]", True),
        ("'ab'", "[ANSWER]\n```python\n'ab'\n```\n[/ANSWER]", True),
        ("'ab'", "[ANSWER]'ba'[/ANSWER]\n```python\n'ab'\n```", True),
        ("5.0", "The answer is 5.", True),
        ("'*'", "The answer is '*'", True),
        ("'*a*'", "`'*a*'`", True),
        ("4", "The answer is 4 or 5", False),
        ("4", "The answer is not 4", False),
        ("4", "result = 2 + 2", False),
        ("4", "f(3) != 4", False),
        ("True", "f(3) == 4", False),
        ("4", "The answer is " * 5000 + "4", False),
        ("4", "`" * 90000 + "4" + "`" * 90000, False),
        ("4", "[" * 60000, False),
        ("4", "-" * 90000 + "4", False),
    ],
)
def test_only_values_are_compared(expected: str, text: str, right: bool):
    (result,) = LiteralVerifier().judge_group(as_group(value_task(expected), [text]))
    assert (result.verdict is Verdict.AC) == right and result.reward == float(right), result.detail


@pytest.mark.parametrize("answer", ["f(1)", "", 4, "[1"])
def test_a_reference_that_is_no_value_is_refused(answer: object):
    with pytest.raises(DataError, match="literal"):
        LiteralVerifier().check_group(value_task(answer))


def test_processes_that_read_not_even_the_reference_are_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    slow = tmp_path / "slow.py"
    slow.write_text("import time\n\n\ndef equal(prompt, completion, *, expected):\n    time.sleep(60)\n")
    monkeypatch.setattr(literal, "__file__", str(slow))
    monkeypatch.setattr(literal, "TERMS", Terms(timeout_s=0.2, concurrency=1))
    results = LiteralVerifier().judge_group(as_group(value_task("7"), ["7", "8"]))
    assert [(r.verdict, r.reward) for r in results] == [(Verdict.INFRA, None)] * 2
