"""The docker tier on a real engine: its walls, its failures, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from assay.errors import EnvironmentProblem, InfraFailure
from rewards.sandbox.base import MIB, PYTHON_FLAGS, Job, Limits
from rewards.sandbox.docker import IMAGE, OWNER, DockerSandbox, connect, owner, remove_orphans

pytestmark = pytest.mark.docker
NAME = os.environ.get("ASSAY_SANDBOX_IMAGE", IMAGE)
LIMITS = Limits(cpu_s=2, wall_s=30)


@pytest.fixture(scope="module")
def client() -> Any:
    try:
        engine = connect()
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    if not engine.images(NAME):
        pytest.skip(f"no image {NAME}: assay sandbox build")
    return engine


@pytest.fixture(scope="module")
def box(client: Any) -> Iterator[DockerSandbox]:
    with DockerSandbox(NAME) as sandbox:
        yield sandbox


def ours(client: Any, who: str | None = None) -> list[str]:
    return [row["Id"] for row in client.containers(all=True, filters={"label": f"{OWNER}={who or owner()}"})]


def eventually(true: Callable[[], bool], within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.1)
    return False


def python(code: str, **rest: Any) -> Job:
    return Job(argv=("/usr/bin/python3", *PYTHON_FLAGS, "main.py"), files={"main.py": code.encode()}, **rest)


def test_it_says_what_stands_around_a_run(box: DockerSandbox):
    features = box.isolation.features
    assert box.isolation.tier == "docker"
    assert {"container", "nocaps", "readonly", "pid", "net", "mnt", "seccomp", "nouserns"} <= set(features)
    assert box.run(python("print(1)")).isolation == box.isolation


def test_runs_share_a_container_and_nothing_else(box: DockerSandbox, client: Any):
    assert box.run(python("open('/tmp/left', 'w'); open('left', 'w'); print(1)")).stdout == b"1\n"
    look = "import os; print(os.listdir('/tmp'), sorted(os.listdir('.')), os.listdir('/proc').count('2'))"
    seen = box.run(python(look))
    assert seen.stdout == b"[] ['main.py'] 1\n"
    assert len(ours(client)) == 1


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        ("import socket; socket.create_connection(('1.1.1.1', 53), 2)", "network"),
        ("open('/usr/bin/python3', 'ab')", "tool-chains"),
        ("open('/etc/passwd', 'a')", "etc"),
        ("import os; os.setuid(0)", "root"),
        ("import os; os.mount", "mount"),
        ("import os; os.listdir('/root')", "the host's home"),
        ("import os; os.kill(1, 9); import time; time.sleep(0.5); open('/proc/1/mem', 'rb').read(1)", "the watcher"),
    ],
)
def test_walls_hold(box: DockerSandbox, attempt: str, why: str):
    result = box.run(python(attempt, limits=LIMITS))
    assert result.exit_code == 1, why
    assert box.run(python("print(1)")).stdout == b"1\n"


def test_a_program_has_no_capability_and_cannot_get_one(box: DockerSandbox):
    status = box.run(python("print(open('/proc/self/status').read())")).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"


def test_a_bomb_of_processes_or_memory_leaves_the_next_run_alone(box: DockerSandbox):
    bomb = box.run(python("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", limits=LIMITS))
    assert bomb.killed_by == "cpu"
    small = Limits(cpu_s=10, wall_s=20, memory_bytes=128 * MIB)
    hog = box.run(python("x = []\nwhile True: x.append(bytearray(1 << 20))", limits=small))
    assert hog.exit_code == 1 or hog.killed_by == "memory"
    assert box.run(python("print(1)")).stdout == b"1\n"


def test_a_killed_container_is_an_infrastructure_failure_and_the_next_job_gets_a_fresh_one(client: Any):
    with DockerSandbox(NAME) as sandbox:
        assert sandbox.isolation
        (victim,) = set(ours(client)) & {sandbox._container}
        assert victim is not None
        killer = subprocess.Popen(
            [sys.executable, "-c", f"import time, docker; time.sleep(1); docker.APIClient().kill({victim!r})"]
        )
        with pytest.raises(InfraFailure, match="container failed"):
            sandbox.run(python("import time; time.sleep(4)", limits=Limits(wall_s=6)))
        killer.wait(timeout=20)
        assert sandbox.run(python("print(2)")).stdout == b"2\n"
        assert sandbox._container != victim
    assert eventually(lambda: victim not in ours(client))


def test_nothing_outlives_a_worker_that_was_killed(client: Any):
    code = (
        "import sys, time\nfrom rewards.sandbox.docker import DockerSandbox, owner\n"
        f"box = DockerSandbox({NAME!r})\nassert box.isolation\nprint(owner(), flush=True)\ntime.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    who = worker.stdout.readline().strip()
    assert len(ours(client, who)) == 1
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert eventually(lambda: not ours(client, who)), "the daemon keeps the container of a dead worker"


def test_orphans_are_removed_and_the_living_are_left(box: DockerSandbox, client: Any):
    assert box.isolation
    boot, namespace, _, _ = owner().split(":")
    dead = client.create_container(NAME, ["/bin/true"], labels={OWNER: f"{boot}:{namespace}:{os.getpid()}:1"})["Id"]
    elsewhere = client.create_container(NAME, ["/bin/true"], labels={OWNER: f"another-boot:{namespace}:1:1"})["Id"]
    beside = client.create_container(NAME, ["/bin/true"], labels={OWNER: f"{boot}:7:{os.getpid()}:1"})["Id"]
    try:
        assert remove_orphans(client) == 1
        left = {row["Id"] for row in client.containers(all=True)}
        assert dead not in left and {elsewhere, beside, box._container} <= left
    finally:
        for other in (elsewhere, beside):
            client.remove_container(other, force=True)


def test_a_closed_sandbox_leaves_no_container(client: Any):
    sandbox = DockerSandbox(NAME)
    assert sandbox.isolation
    mine = sandbox._container
    sandbox.close()
    sandbox.close()
    assert eventually(lambda: mine not in ours(client))
    with pytest.raises(InfraFailure, match="closed"):
        sandbox.run(python("print(1)"))


def test_a_missing_image_or_engine_says_what_to_do(client: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(EnvironmentProblem, match="assay sandbox build"), DockerSandbox("no-such-image") as sandbox:
        _ = sandbox.isolation
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(EnvironmentProblem, match="no Docker engine answers"), DockerSandbox(NAME) as sandbox:
        _ = sandbox.isolation
