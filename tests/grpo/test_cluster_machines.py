"""Machines with a network of their own, started as the examples say: equal runs, pulled cables, wrong tokens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.authentication_test_utils import reset_auth_token_state

from assay.errors import EnvironmentProblem
from grpo.cluster import Cluster, _knock
from grpo.config import ClusterConfig
from tests.chaos import rig
from tests.grpo.machines import Machines, lacking, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.sandbox, pytest.mark.slow]

#: of every machine; `two_machines.sh` alone would offer `reward`
OFFERS = {"engine": 1, "reward": 2}
SLOW_LINK_S = 0.05  #: each way, to and from machine 1, which says that it is slow
PULLED = "import sys; from tests.grpo.pulled import main; sys.exit(main(*sys.argv[1:]))"
LOST_S = 15.0  #: at most, by the settings of two_machines.sh
REWARD = """import hashlib, socket
from pathlib import Path
def score(prompts, completions, **columns):
    with open(Path(__file__).with_name("hosts"), "a") as hosts:
        hosts.write(socket.gethostname() + chr(10))
    return [hashlib.sha256(str(c).encode()).digest()[0] / 255 for c in completions]
"""


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """A head on this side of the bridge, three machines that offer a place for an engine and for two reward workers."""
    if why := lacking():
        pytest.skip(why)
    made = Machines(3, slow={1: SLOW_LINK_S})
    with made:
        made.start_head()
        offers = [OFFERS | ({"slow": 1} if i == 0 else {}) for i in range(3)]
        with ThreadPoolExecutor(max_workers=2) as threads:
            options = [f"--resources={json.dumps(offer)}" for offer in offers]
            list(threads.map(made.join, made.machines, options))
        yield made
    assert made.left() == ([], [])


@pytest.fixture(scope="module")
def base(machines: Machines, tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rig.prepare(tmp_path_factory.mktemp("machines"), tiny_policy)


def settings(base: Path, name: str, address: str | None, engine: str = "engine", **others: Any) -> Path:
    """A configuration of the rig's, without its reward model; with an address everything is on the machines there."""
    tree = yaml.safe_load(base.read_text())
    del tree["reward_model_path"]
    tree |= {"run_dir": str(base.parent / name), "rewards": {"workers": 2, "sandbox": {"tier": "local"}}, **others}
    tree["rollouts"]["engine"] = {"engines": 1, "kind": "fake"}
    tree["cluster"] = {"stall_report_s": 5.0, "call_timeout_s": 200.0}
    if address:
        place = {"address": address, "engine_resources": {engine: 1}, "reward_resources": {"reward": 1}}
        tree["cluster"] |= {**place, "engine_cpus": 0, "reward_cpus": 0}
    path = base.with_name(f"{name}.yaml")
    path.write_text(yaml.safe_dump(tree))
    return path


def driven(machines: Machines, *command: str) -> tuple[list[tuple[float, str]], str]:
    """What a driver said on stderr, line by line with the second, and its last line of stdout."""
    driver = subprocess.Popen(
        [sys.executable, *command], cwd=rig.ROOT, env=machines.env(RAY_AUTH_MODE="token"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert driver.stdout is not None and driver.stderr is not None
    stop = threading.Timer(400, driver.send_signal, (signal.SIGKILL,))
    stop.start()
    said = [(time.monotonic(), line) for line in driver.stderr]
    out = driver.stdout.read()
    stop.cancel()
    driver.stdout.close()
    driver.stderr.close()
    assert driver.wait(30) == 0, "".join(line for _, line in said[-40:])
    return said, (out.splitlines() or [""])[-1]


def table(said: list[tuple[float, str]], seen: list[dict[str, Any]]) -> str:
    """Of each pull: when Ray gave the machine up, and when the step it fell into was done."""
    lines = [f"\n{'phase':8} {'lost after':>10} {'step done':>10}"]
    for one in seen:
        out = next(at for at, line in said if line.startswith(f"chaos: cable of {one['host']} out"))
        done = next((at for at, line in said if at > out and line.startswith("step ")), out)
        lines.append(f"{one['phase']:8} {one.get('lost_s', 0.0):8.1f} s {done - out:8.1f} s")
    return "\n".join(lines)


def traces(base: Path, name: str) -> dict[str, Any]:
    return rig.traces(base.parent / name)


def test_a_run_on_machines_equals_one_on_this_machine(machines: Machines, base: Path):
    """The command as it is, its engine behind a slow link, two reward workers on machines; and then all of it here."""
    tasks = base.parent / "custom"
    tasks.mkdir()
    (tasks / "hashed.py").write_text(REWARD)
    row = {"verifier": "custom", "answer": {"function": "hashed.py:score"}}
    rows = [{"id": f"t/{i}", "messages": [{"role": "user", "content": f"f {i}"}], **row} for i in range(6)]
    (tasks / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    others = {"tasks": {"train": {"path": str(tasks / "tasks.jsonl")}, "check": "none"}}
    hosts = {}
    named = f"localhost:{machines.port}"  # the machines know the head, and this driver, by the bridge's address
    for name, address in (("there", named), ("here", None)):
        (tasks / "hosts").write_text("")
        config = settings(base, name, address, "slow", **others)
        driven(machines, "-m", "assay.cli", "grpo", str(config), "grpo.steps=2")
        hosts[name] = set((tasks / "hosts").read_text().split())
    assert len(hosts["there"]) == 2 and hosts["there"] <= {machine.name for machine in machines.machines}
    assert hosts["here"] == {os.uname().nodename}
    there, here = traces(base, "there"), traces(base, "here")
    assert min(row["grad_norm"] for row in here["metrics"]) > 0
    for part, value in here.items():
        assert there[part] == value, part


def test_pulled_cables_are_noticed_and_leave_no_trace(machines: Machines, base: Path):
    """Of a machine that judges, and of one that takes weights over: silence, then another takes its place, and the
    cable comes back in the midst of that. One that is out for a moment while an engine draws is waited for."""
    cables = json.dumps({machine.name: machine.cable for machine in machines.machines})
    pulls: list[dict[str, Any]] = [
        {"victim": "reward", "phase": "reward", "turn": 2},
        {"victim": "engine", "phase": "sync", "turn": 7},
        {"victim": "engine", "phase": "rollout", "turn": 6, "back_s": 3},
    ]
    driven(machines, "-c", PULLED, str(settings(base, "quiet", None)), "[]", "{}")
    said, last = driven(machines, "-c", PULLED, str(settings(base, "noisy", machines.head)), json.dumps(pulls), cables)
    text = "".join(line for _, line in said)
    print(table(said, seen := json.loads(last)))
    *lost, short = seen
    assert [one["phase"] for one in seen] == ["reward", "sync", "rollout"]
    assert "lost_s" not in short and len({one["host"] for one in seen}) == 3
    for one in lost:
        assert one["lost_s"] < LOST_S + 5 and f" on {one['host']}:" in text
    assert f": its node {lost[1]['host']}:" in text and "is gone; starting another in its place" in text
    assert text.count("engine 0 is back after ") == 1
    quiet, noisy = traces(base, "quiet"), traces(base, "noisy")
    taken = Counter(row["task_id"] for row in noisy["samples"])
    assert len(taken) == rig.STEPS * rig.PROMPTS and set(taken.values()) == {rig.GROUP}
    for part, value in quiet.items():
        assert noisy[part] == value, part
    gone = [machine for machine in machines.machines if machine.name in {one["host"] for one in lost}]
    wait_for("old actors to end", lambda: not any(p.name().startswith("ray::S") for m in gone for p in m.processes()))


# -- tokens -----------------------------------------------------------------------------------------------------


@pytest.fixture
def token(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """This process without any; Ray keeps in mind what it read."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    reset_auth_token_state()
    yield monkeypatch
    monkeypatch.undo()
    reset_auth_token_state()


def refused(address: str) -> str:
    reset_auth_token_state()
    with pytest.raises(EnvironmentProblem) as caught:
        Cluster(ClusterConfig(address=address)).__enter__()
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_a_wrong_token_none_and_no_mode_are_told_apart_by_the_head(
    machines: Machines, token: pytest.MonkeyPatch, tmp_path: Path
):
    wants = f"the cluster at {machines.head} wants a token, and "
    token.setenv("HOME", str(machines.own / "home"))  # it is there, and Ray would not send it
    assert refused(machines.head).startswith(
        wants + "RAY_AUTH_MODE=token is not set here; set it, for every `ray start`"
    )
    token.setenv("RAY_ADDRESS", machines.head)
    assert refused("auto").startswith(wants)
    token.setenv("RAY_AUTH_MODE", "token")
    reset_auth_token_state()
    _knock(machines.head)
    token.setenv("RAY_AUTH_TOKEN", "a" * 64)
    assert refused(machines.head).startswith(wants + "the one here is another (RAY_AUTH_TOKEN, ")
    token.delenv("RAY_AUTH_TOKEN")
    token.setenv("HOME", str(tmp_path))
    assert refused(machines.head).startswith(
        "RAY_AUTH_MODE=token is set, and no token is here; copy the head's, which "
    )


def test_a_machine_without_the_token_is_told_what_to_copy(machines: Machines):
    with pytest.raises(RuntimeError, match="no token here: copy ~/.ray/auth_token of the head to the same place on th"):
        machines.join(machines.machines[0], token=False, HOME="/nowhere")


@pytest.mark.parametrize("home", ["/proc/nobody", "/dev/null"])
def test_a_home_that_cannot_be_written_is_told_with_the_remedy(home: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    reset_auth_token_state()
    with pytest.raises(EnvironmentProblem) as caught:
        Cluster(ClusterConfig()).__enter__()
    monkeypatch.undo()
    reset_auth_token_state()
    said = str(caught.value)
    assert said.startswith("Ray did not start: [Errno ") and "\n" not in said
    remedy = "set HOME to a folder that can be written, or RAY_AUTH_MODE=disabled"
    assert said.endswith(f"; Ray keeps a token in ~/.ray: {remedy}")
