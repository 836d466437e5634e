"""Fixtures for the tests of rewards: one sandbox for the folder, and proof that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.errors import EnvironmentProblem
from assay.types import Message, Task
from rewards.sandbox.base import MIB, Job, Limits, RunResult
from rewards.sandbox.local import LocalSandbox
from rewards.verifiers.base import Bench

TEST_LIMITS = Limits(
    cpu_s=0.6, wall_s=1.5, memory_bytes=384 * MIB, output_bytes=2 * MIB, processes=24, file_bytes=8 * MIB
)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[LocalSandbox]:
    """The local tier. Where the machine refuses it, what needs it is skipped with the remedy."""
    with LocalSandbox() as box:
        try:
            _ = box.isolation
        except EnvironmentProblem as problem:
            pytest.skip(str(problem))
        yield box


@pytest.fixture(scope="session")
def bench(sandbox: LocalSandbox) -> Bench:
    """A bench with small limits, so that hostile programs end soon."""
    return Bench(sandbox=sandbox, limits=TEST_LIMITS)


class Remembering:
    """A sandbox that compiles the same files once: tests that ask different things of one program share it."""

    def __init__(self, sandbox: LocalSandbox) -> None:
        self._sandbox, self._runs = sandbox, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sandbox, name)

    def run(self, job: Job) -> RunResult:
        if not job.collect:
            return self._sandbox.run(job)
        key = (job.argv, tuple(job.files.items()))
        if key not in self._runs:
            self._runs[key] = self._sandbox.run(job)
        return self._runs[key]


@pytest.fixture(scope="module")
def roomy(sandbox) -> Bench:
    """Room for a virtual machine beside the answer, and for a disk that is slow to give it."""
    limits = Limits(cpu_s=1.0, wall_s=20.0, memory_bytes=1024 * MIB, output_bytes=MIB, processes=32)
    return Bench(sandbox=Remembering(sandbox), limits=limits, stop_on_timeout=False, stop_on_failure=False)


@pytest.fixture
def nothing_left(sandbox: LocalSandbox) -> Iterator[None]:
    """Asserts that the test leaves no process, mount or file of the sandbox behind, and that the sandbox lives."""
    pid, before = _supervisor(sandbox), _traces(sandbox)
    yield
    assert _supervisor(sandbox) == pid, "the supervisor died"
    assert _traces(sandbox) == before


def _supervisor(sandbox: LocalSandbox) -> int:
    assert sandbox.isolation
    assert sandbox._supervisor is not None
    return sandbox._supervisor.pid


def _traces(sandbox: LocalSandbox) -> dict[str, Any]:
    pid = _supervisor(sandbox)
    return {
        "children": Path(f"/proc/{pid}/task/{pid}/children").read_text(),
        "its mounts": len(Path(f"/proc/{pid}/mounts").read_text().splitlines()),
        "our mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
        "its descriptors": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208
        "folders": [path for path in Path("/tmp").glob("assay-box-*") if path.stat().st_uid == os.geteuid()],
    }


@pytest.fixture(scope="session")
def function_task() -> Callable[..., Task]:
    """Makes a task for the verifier "function": (language, parameters, returns, tests, **rest)."""

    def make(
        language: str, parameters: dict[str, str], returns: str, tests: list[tuple[list, Any]], **rest: Any
    ) -> Task:
        answer = {
            "language": language,
            "entry_point": "f",
            "parameters": [{"name": name, "type": kind} for name, kind in parameters.items()],
            "returns": returns,
            "tests": [{"args": args, "expected": expected} for args, expected in tests],
            **rest,
        }
        return Task(id="t", messages=(Message(role="user", content="write f"),), verifier="function", answer=answer)

    return make


@pytest.fixture(scope="session")
def asserts_task() -> Callable[..., Task]:
    """Makes a task for the verifier "asserts": (tests, **rest)."""

    def make(*tests: str, **rest: Any) -> Task:
        answer = {"language": "python", "tests": list(tests), **rest}
        return Task(id="a", messages=(Message(role="user", content="write f"),), verifier="asserts", answer=answer)

    return make
