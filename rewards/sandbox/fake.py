"""A sandbox that runs nothing: it answers from a script. For tests of what stands above it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from assay.errors import InfraFailure
from rewards.sandbox.base import Isolation, Job, RunResult

Answer = RunResult | InfraFailure | Callable[[Job], RunResult]


def ended(stdout: bytes = b"", *, exit_code: int = 0, stderr: bytes = b"") -> RunResult:
    """A run that ended by itself."""
    return RunResult(
        exit_code=exit_code, signal=None, stdout=stdout, stderr=stderr, cpu_s=0.0, wall_s=0.0, memory_bytes=0
    )


class FakeSandbox:
    """Gives the scripted answers in order, then the last one for ever; keeps the jobs it was given in `jobs`."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = list(answers)
        if not self._answers:
            raise ValueError("a fake sandbox needs at least one answer")
        self.jobs: list[Job] = []
        self.python = "/usr/bin/python3"
        self.closed = False

    @property
    def isolation(self) -> Isolation:
        """None at all, and it says so."""
        return Isolation(tier="fake")

    def run(self, job: Job) -> RunResult:
        """The next scripted answer; an InfraFailure in the script is raised."""
        self.jobs.append(job)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, InfraFailure):
            raise answer
        return answer if isinstance(answer, RunResult) else answer(job)

    def has(self, tool: str) -> bool:
        """Everything is there."""
        return True

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True
