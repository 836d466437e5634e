"""Rows of sets whose tests are files of Python's unittest, made into tasks.

bigcodebench  task_id, complete_prompt, canonical_solution, test, entry_point (Zhuo et al. 2024, arXiv 2406.15877).
              Most of its tests import packages that no box has: those are refused when they are first to run, and
              `assay check-tasks` names them
aider         Exercism's Python track as SandboxFusion keeps it: content, canonical_solution, test, labels
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from assay.types import Task
from rollouts.wording import asked, block

Row = Mapping[str, Any]


def bigcodebench(row: Row) -> Task:
    """BigCodeBench: complete a function that calls libraries. Also as SandboxFusion keeps it: id, content, labels."""
    prompt = row["complete_prompt"] if "complete_prompt" in row else row["content"]
    entry = row["entry_point"] if "entry_point" in row else _json(row["labels"])["entry_point"]
    return Task(
        id=str(row["task_id"] if "task_id" in row else row["id"]),
        messages=asked(f"Complete this program. Keep the lines that are given.\n\n{block('python', prompt)}", "python"),
        verifier="unit_tests",
        answer={"language": "python", "tests": [row["test"]], "entry_point": entry},
        source="bigcodebench",
        reference=block("python", f"{prompt}{row['canonical_solution']}"),
    )


def aider(row: Row) -> Task:
    """An exercise whose tests import the answer as a module."""
    labels, test = _json(row["labels"]), _json(row["test"])
    if len(test["asset"]) != 1:
        raise ValueError(f"its tests are {len(test['asset'])} files")
    ((path, packed),) = test["asset"].items()
    named = re.fullmatch(r"(?:(\w+)_test|test_(\w+))\.py", path)  # of the module that its tests import
    if named is None:
        raise ValueError(f"its tests are {path!r}, which does not say what they test; expected NAME_test.py")
    name = str(labels["task_id"])
    return Task(
        id=f"aider/{name}",
        messages=asked(row["content"].strip(), "python"),
        verifier="unit_tests",
        answer={
            "language": "python",
            "tests": [base64.b64decode(packed).decode()],
            "module": named[1] or named[2],
        },
        source="aider",
        reference=block("python", row["canonical_solution"]),
    )


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


#: name of a task file's `format` -> a row of it as a task
UNITTEST_FORMATS: dict[str, Callable[[Row], Task]] = {"bigcodebench": bigcodebench, "aider": aider}
