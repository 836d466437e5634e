"""With three runs in ten made to fail, every reward that is given is the one a quiet run gives."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from assay.errors import EnvironmentProblem
from assay.types import Task, Verdict
from rewards.config import RewardsConfig
from rewards.reward_check import as_group
from rewards.sandbox.base import Job, RunResult
from rewards.sandbox.docker import IMAGE, DockerSandbox, connect
from rewards.sandbox.local import LocalSandbox
from rewards.scorer import Scorer

pytestmark = pytest.mark.sandbox
SHARE = 0.3
PROGRAMS = 40


class Sabotaged:
    """A sandbox that is killed in the middle of a share of its runs, as the kernel's out-of-memory killer would."""

    def __init__(self, inner: LocalSandbox | DockerSandbox, seed: int) -> None:
        self._inner, self._random = inner, random.Random(seed)
        self.killed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, job: Job) -> RunResult:
        if self._random.random() >= SHARE:
            return self._inner.run(job)
        assert self._inner.isolation
        timer = threading.Timer(0.002 + 0.01 * self._random.random(), *self._weapon())
        timer.start()
        self.killed += 1
        try:
            return self._inner.run(job)
        finally:
            timer.join()

    def _weapon(self) -> tuple[Any, tuple[Any, ...]]:
        if isinstance(self._inner, DockerSandbox):
            return connect().kill, (self._inner._container,)
        assert self._inner._supervisor is not None
        return os.kill, (self._inner._supervisor.pid, signal.SIGKILL)


def sandbox_of(tier: str) -> LocalSandbox | DockerSandbox:
    """One of the tier, or the test is skipped with the reason."""
    if tier == "local":
        return LocalSandbox()
    sandbox = DockerSandbox(os.environ.get("ASSAY_SANDBOX_IMAGE", IMAGE))
    try:
        assert sandbox.isolation
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    return sandbox


def programs() -> list[str]:
    """Right, wrong, crashing and slow ones, no two alike, each busy long enough to be hit."""
    bodies = ("return x + 1", "return x + 2", "raise ValueError", "return str(x)")
    wait = "t = __import__('time').process_time\nstart = t()\nwhile t() - start < 0.03: pass\n"
    return [
        f"```python\n{wait}# {number}\ndef f(x):\n    {bodies[number % len(bodies)]}\n```" for number in range(PROGRAMS)
    ]


def scored(task: Task, sandbox: Any) -> list[Any]:
    scorer = Scorer(RewardsConfig(), sandbox)
    try:
        return scorer.score_group(as_group(task, programs()))
    finally:
        scorer.close()


@pytest.mark.parametrize("tier", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_rewards_are_those_of_a_quiet_run_or_none(function_task, tier: str):
    task = function_task("python", {"x": "int"}, "int", [([1], 2), ([5], 6)])
    quiet = scored(task, sandbox_of(tier))
    assert [r.verdict for r in quiet[:4]] == [Verdict.AC, Verdict.WA, Verdict.RE, Verdict.WA]
    sandbox = Sabotaged(sandbox_of(tier), seed=1)
    loud = scored(task, sandbox)
    assert sandbox.killed > 0.2 * PROGRAMS
    given = [(a.reward, a.verdict) for a, b in zip(quiet, loud, strict=True) if b.reward is not None]
    assert given == [(b.reward, b.verdict) for b in loud if b.reward is not None]
    lost = [b for b in loud if b.verdict is Verdict.INFRA]
    assert all(b.reward is None for b in lost)
    assert len(lost) < 0.3 * PROGRAMS, "a second try on a fresh box saves most"
    assert len(lost) < sandbox.killed, "nothing was saved by the second try"


def test_nothing_of_a_killed_supervisor_lives_on(function_task):
    marker = f"assay-{os.getpid()}-{time.monotonic_ns()}"
    sandbox = LocalSandbox()
    assert sandbox.isolation and sandbox._supervisor is not None
    pid = sandbox._supervisor.pid
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    code = f"import os, time\nfor _ in range(5):\n    if os.fork() == 0: os.setsid()\ntime.sleep(20)  # {marker}"
    with pytest.raises(Exception, match="supervisor failed"):
        sandbox.run(Job(argv=(sandbox.python, "-c", code)))
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _lives(marker):
        time.sleep(0.05)
    assert not _lives(marker)
    sandbox.close()


def _lives(marker: str) -> bool:
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        try:
            if int(name) != os.getpid() and marker.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False
