"""Tasks of the verifier "project" and what becomes of answers to them, for its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay.types import Message, Task, Verdict
from rewards.bench import Bench
from rewards.extract import NoProgram, as_answer
from rewards.verifiers.base import Judged
from rewards.verifiers.project import ProjectVerifier


def task(answer: dict[str, Any]) -> Task:
    """A task with this record."""
    return Task(id="p", messages=(Message(role="user", content="write"),), verifier="project", answer=answer)


def bats(tests: str, helper: str) -> Task:
    """A script `twice.sh` to be written, tested by bats; skips where there is none."""
    if not Path("/usr/bin/bats").exists():
        pytest.skip("bats is not installed")
    run = ["/usr/bin/env", "BATS_RUN_SKIPPED=true", "/usr/bin/bats", "--tap", "twice.bats"]
    given = {"twice.bats": tests, "helper.bash": helper}
    return task({"language": "bash", "files": ["twice.sh"], "given": given, "run": run, "report": "bats"})


def judge(given: Task, answer: str | dict[str, str], bench: Bench) -> Judged:
    """What becomes of an answer as a scorer has it judged."""
    verifier = ProjectVerifier()
    text = as_answer(answer) if isinstance(answer, dict) else f"```\n{answer}\n```"
    try:
        program = verifier.extract(given, text, whole_text=False)
    except NoProgram as reason:
        return Judged(verdict=Verdict.CE, detail=str(reason))
    return verifier.judge(given, program, bench)
