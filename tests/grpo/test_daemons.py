"""Ray's processes hear no SIGTERM that is meant for the run, and say so when they are gone. Real Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

RUN = """
import signal, sys
from assay.policy import load_tokenizer
from grpo.cluster import Cluster
from grpo.config import ClusterConfig
from rollouts.config import EngineConfig, RolloutConfig
from rollouts.engine import Sampling

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
    config = RolloutConfig(engine=EngineConfig(kind="fake"))
    with Cluster(ClusterConfig()) as cluster:
        pool = cluster.rollouts(sys.argv[1], config, load_tokenizer(sys.argv[1]), max_model_len=64)
        for again in range(3):
            drawn = pool._engines[0].generate([(3, 4, 5)], Sampling(temperature=1.0, max_tokens=4, samples=2))
            print(len(drawn[0]), flush=True)
            sys.stdin.readline()
"""


def started(policy: Path, folder: Path) -> subprocess.Popen[str]:
    """RUN, a process of its own."""
    (folder / "run.py").write_text(RUN)
    return subprocess.Popen(
        [sys.executable, str(folder / "run.py"), str(policy)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def below(pid: int) -> list[int]:
    """Every process that `pid` started, and what these did."""
    children = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    return [*children, *(p for child in children for p in below(child))]


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_a_sigterm_to_every_process_of_a_run_reaches_the_driver_alone_and_a_daemon_that_is_gone_is_named(
    tiny_policy: Path, tmp_path: Path
):
    run = started(tiny_policy, tmp_path)
    assert run.stdin is not None and run.stdout is not None
    try:
        assert run.stdout.readline() == "2\n"
        everyone = [run.pid, *below(run.pid)]
        (raylet,) = (p for p in everyone if "/raylet/raylet " in name(p))
        actors = [p for p in everyone if name(p).startswith("ray::EngineActor")]
        assert len(actors) == 1 and any("gcs_server" in name(p) for p in everyone)
        for pid in everyone:
            os.kill(pid, signal.SIGTERM)
        assert run.stdout.readline() == "heard\n"
        time.sleep(1.0)
        assert all(Path(f"/proc/{p}").exists() for p in (raylet, *actors))
        run.stdin.write("\n")
        run.stdin.flush()
        assert run.stdout.readline() == "2\n"

        os.kill(raylet, signal.SIGKILL)
        _, said = run.communicate("\n\n", timeout=60)
        assert f"Ray's daemon on this machine (pid {raylet}) is gone, and Ray ends this process with it" in said
        assert "is taken up with --resume" in said
    finally:
        run.kill()
        run.wait()


def test_a_run_that_ends_by_itself_says_nothing_of_its_daemons_and_leaves_none(tiny_policy: Path, tmp_path: Path):
    done = started(tiny_policy, tmp_path)
    assert done.stdout is not None
    try:
        assert done.stdout.readline() == "2\n"
        everyone = below(done.pid)
        said, aloud = done.communicate("\n\n\n", timeout=60)
        assert (said, done.returncode) == ("2\n2\n", 0) and "daemon" not in aloud
    finally:
        done.kill()
        done.wait()
    deadline = time.monotonic() + 10
    while left := [p for p in everyone if Path(f"/proc/{p}").exists()]:
        assert time.monotonic() < deadline, [name(p) for p in left]
        time.sleep(0.1)
